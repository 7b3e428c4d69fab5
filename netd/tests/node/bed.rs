//! A host on which netd is started, killed and started again.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use netd::config::load;
use netd::metrics::Metrics;
use netd::node::{Node, Result, now_boot};
use netd_dataplane::{Dataplane, Settings};
use netd_domain::{AttachSpec, DefaultRoute, Endpoint, EndpointKey};
use netd_store::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio::runtime::Runtime;

use super::{
    space::Space,
    store::{Failing, Faults},
};

/// Two networks; `small` has five addresses.
const NETWORKS: &str = r#"
[[network]]
name = "default"
[[network.pool]]
subnet = "10.88.0.0/24"
[[network.pool]]
subnet = "fd00:88::/64"
[[network]]
name = "small"
driver = "routed"
[[network.pool]]
subnet = "10.99.0.0/29"
"#;

/// A netd: killed when dropped.
pub(crate) struct Process {
    pub node: Arc<Node>,
    runtime: Option<Runtime>,
}

impl Process {
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    pub(crate) fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.as_ref().unwrap().spawn(work)
    }

    pub(crate) fn attach(&self, spec: AttachSpec) -> Result<Arc<Endpoint>> {
        self.run(self.node.attach(spec))
    }

    pub(crate) fn detach(&self, key: &EndpointKey) -> Result<u32> {
        self.detach_at(key, now_boot())
    }

    pub(crate) fn detach_at(&self, key: &EndpointKey, issued_at: u64) -> Result<u32> {
        let (sandbox, ifname) = (key.sandbox.clone(), Some(key.ifname.clone()));
        self.run(self.node.detach(sandbox, ifname, issued_at))
    }

    /// Waits until `done`, at most five seconds.
    pub(crate) fn until(&self, what: &str, done: impl Fn(&Node) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !done(&self.node) {
            assert!(Instant::now() < end, "not in five seconds: {what}");
            pause(Duration::from_millis(5));
        }
    }

    /// Waits until endpoints that are being removed are gone.
    pub(crate) fn settle(&self) {
        self.until("everything is given back", |node| node.counts().detaching == 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

pub(crate) struct Bed {
    pub host: Space,
    pub faults: Arc<Faults>,
    pub networks: String,
    /// As in `[gc]`.
    pub grace: &'static str,
    pub dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self {
            host: Space::new(),
            faults: Arc::default(),
            networks: NETWORKS.into(),
            grace: "1h",
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn config(&self) -> PathBuf {
        let dir = self.dir.path().display();
        let file = self.dir.path().join("netd.toml");
        let text = format!(
            r#"
node = "test"
socket = "{dir}/netd.sock"
state_dir = "{dir}/state"
run_dir = "{dir}/run"
metrics_listen = "off"
[gc]
grace = "{}"
interval = "1s"
unsafe_short_grace = true
{}"#,
            self.grace, self.networks
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    pub(crate) fn open_store(&self) -> Arc<EmbeddedStore> {
        let dir = self.dir.path();
        let end = Instant::now() + Duration::from_secs(5);
        for sub in ["state", "run"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        loop {
            let options = EmbeddedOptions::of_this_boot(dir.join("state"), dir.join("run"));
            match EmbeddedStore::open(options.unwrap()) {
                Ok(store) => return store,
                // The last commit of a killed netd may still be running.
                Err(e) if Instant::now() > end => panic!("{e}"),
                Err(_) => pause(Duration::from_millis(5)),
            }
        }
    }

    pub(crate) fn start(&self) -> Process {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let mut config = load(Some(&self.config()), vec![]).unwrap();
        config.gc.interval = Duration::from_millis(100);
        let node = runtime.block_on(async {
            let store = Failing { inner: self.open_store(), faults: self.faults.clone() };
            let settings = Settings { host_netns: Some(self.host.0.clone()), ..Default::default() };
            let (dataplane, drift) = Dataplane::start(settings).unwrap();
            let node = Node::new(config, Arc::new(store), dataplane, Arc::new(Metrics::new()));
            node.start(drift).await.unwrap();
            node
        });
        Process { node, runtime: Some(runtime) }
    }
}

/// Nothing waits on the test's own thread.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

pub(crate) fn key(sandbox: &str, ifname: &str) -> EndpointKey {
    EndpointKey { sandbox: sandbox.parse().unwrap(), ifname: ifname.parse().unwrap() }
}

/// A request for `key` in `network`, issued now.
pub(crate) fn spec(key: &EndpointKey, pod: &Space, network: &str) -> AttachSpec {
    AttachSpec {
        netns_path: Some(pod.path()),
        default_route: match key.ifname.as_str() {
            "eth0" => DefaultRoute::First,
            _ => DefaultRoute::Never,
        },
        source: "test".into(),
        ..AttachSpec::for_endpoint(key.clone(), network.parse().unwrap(), now_boot())
    }
}
