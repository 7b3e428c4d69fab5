//! A CNI plugin, executed as a runtime does, on a host of its own.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::{Daemon, Host, Namespace, hook, paths, wait};

use crate::times::Times;

/// A bridge takes 1,023 ports: with 1,000 attached, this many more at a time.
pub(crate) const CHUNK: usize = 16;
/// The kernel takes namespaces apart in its own time: not in another contender's.
pub(crate) const CLEAN_UP: Duration = Duration::from_millis(150);

pub(crate) struct Contender {
    pub name: String,
    host: Host,
    plugin: PathBuf,
    config: String,
    pods: Vec<Pod>,
    made: usize,
}

struct Pod {
    id: String,
    net: Namespace,
}

impl Contender {
    /// The `bridge` in the directory `plugins`, with the `host-local` beside it.
    pub(crate) fn peer(name: &str, host: Host, plugins: PathBuf) -> Self {
        let data = host.directory().join("ipam");
        let config = json!({
            "cniVersion": "1.0.0", "name": "peer", "type": "bridge", "bridge": "peer0",
            "isGateway": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]],
                     "dataDir": data},
        });
        Self::new(name, host, plugins.join("bridge"), &config)
    }

    /// The hook of the netd that runs on the host.
    pub(crate) fn netd(name: &str, host: Host) -> Result<Self> {
        let mut config = hook::plugin_config(&host);
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!("default");
        Ok(Self::new(name, host, paths::plugin()?, &config))
    }

    fn new(name: &str, host: Host, plugin: PathBuf, config: &Value) -> Self {
        let name = name.to_owned();
        Self { name, host, plugin, config: config.to_string(), pods: Vec::new(), made: 0 }
    }

    /// Attaches until `count` pods stay.
    pub(crate) fn fill(&mut self, count: usize) -> Result<()> {
        const AT_ONCE: usize = 4;
        let more = self.bare(count.saturating_sub(self.pods.len()))?;
        self.measure("ADD", &more, AT_ONCE)?;
        self.pods.extend(more);
        Ok(())
    }

    /// ADD and DEL of [`CHUNK`] more pods, which are gone when this returns; `settled`
    /// waits until their network is.
    pub(crate) fn sample(
        &mut self,
        at_once: usize,
        settled: impl Fn() -> Result<()>,
    ) -> Result<[Times; 2]> {
        let pods = self.bare(CHUNK)?;
        let times = [self.measure("ADD", &pods, at_once)?, self.measure("DEL", &pods, at_once)?];
        settled()?;
        drop(pods);
        wait::pause(CLEAN_UP);
        Ok(times)
    }

    /// Namespaces without a network; making them is not measured.
    fn bare(&mut self, count: usize) -> Result<Vec<Pod>> {
        let directory = self.host.directory().join("pods");
        let first = self.made;
        self.made += count;
        (first..first + count)
            .map(|number| {
                let id = format!("pod-{number}");
                let net = Namespace::create(directory.join(&id))?;
                Ok(Pod { id, net })
            })
            .collect()
    }

    /// Calls for all pods, `at_once` at a time.
    fn measure(&self, command: &str, pods: &[Pod], at_once: usize) -> Result<Times> {
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        let work = || {
            self.host.net.run(|| {
                let mut times = Vec::new();
                while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                    times.push(self.call(command, pod)?);
                }
                Ok(times)
            })
        };
        let parts: Result<Vec<Vec<Duration>>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
            });
            joined.collect()
        });
        let all = start.elapsed();
        Ok(Times::new(parts?.into_iter().flatten().collect(), all))
    }

    /// The calling thread has to be in the host's namespace: the plugin inherits it.
    fn call(&self, command: &str, pod: &Pod) -> Result<Duration> {
        let start = Instant::now();
        let mut child = Command::new(&self.plugin)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.net.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.plugin.parent().unwrap_or(&self.plugin))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.plugin.display().to_string())?;
        child.stdin.take().context("no stdin")?.write_all(self.config.as_bytes())?;
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{} {command}: {printed}", self.name);
        Ok(took)
    }
}

/// Median of what netd itself says its last attaches took, in milliseconds.
pub(crate) fn inside(daemon: &Daemon, last: usize) -> Option<f64> {
    let logged = daemon.logged();
    let attached = logged.lines().rev().filter(|line| line.contains("\"attached"));
    let micros = attached.filter_map(|line| {
        serde_json::from_str::<Value>(line).ok()?.get("micros").and_then(Value::as_u64)
    });
    let mut micros: Vec<u64> = micros.take(last).collect();
    micros.sort_unstable();
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    micros.get(micros.len() / 2).map(|micros| *micros as f64 / 1000.0)
}
