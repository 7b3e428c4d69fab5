//! The start, from the store's lock to a node that can be asked. SIGTERM ends it at any moment.

use std::{
    fs::{DirBuilder, Permissions, set_permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use tokio::{runtime::Handle, sync::watch};

use super::{
    cluster,
    error::ServeError,
    kubernetes,
    listener::{self, Listeners},
    netns_lock,
    stop::stopped,
};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::node::{self, Node};
use crate::privileges;
use netd_dataplane::{Dataplane, FirewallSettings, Settings, may_use_every_cpu};
use netd_store::{
    Store,
    embedded::{EmbeddedOptions, EmbeddedStore},
};

/// What a start leaves.
pub(super) struct Started {
    pub node: Arc<Node>,
    pub listeners: Listeners,
    pub metrics: Arc<Metrics>,
    /// When it began, seconds since the Unix epoch.
    pub started_at: i64,
}

/// Starts everything but the API; `None`: `stop` became true meanwhile. What the start was
/// doing then is left as SIGKILL would leave it, and the next netd completes it.
///
/// # Errors
/// As for [`super::serve`].
pub(super) async fn until_stopped(
    config: Config,
    stop: watch::Receiver<bool>,
) -> Result<Option<Started>, ServeError> {
    let (handle, stopping) = (Handle::current(), stop.clone());
    // On a thread of its own: the start waits for files, locks and the kernel, which may block
    // the thread, and the signal has to be heard on a machine with one processor too.
    let starting = tokio::task::spawn_blocking(move || {
        handle.block_on(async {
            tokio::select! {
                biased;
                () = stopped(stopping) => Ok(None),
                started = start(config) => started.map(Some),
            }
        })
    });
    tokio::select! {
        started = starting => started.unwrap_or_else(|e| Err(node::Error::Internal(e.to_string()).into())),
        () = stopped(stop) => Ok(None),
    }
}

async fn start(config: Config) -> Result<Started, ServeError> {
    let started_at = node::now_unix();
    let missing = privileges::missing().unwrap_or_default();
    if !missing.is_empty() {
        let named = missing.iter().map(|(_, name, purpose)| {
            format!("{name} is missing, without which netd can't {purpose}")
        });
        return Err(ServeError::Privileges(named.collect::<Vec<_>>().join("; ")));
    }
    // Before anything is read or changed: two netds must not run on one node. The store has
    // a lock of its own, for two that share a directory and no network namespace.
    tokio::spawn(netns_lock::take()?.hold_forever());
    let store = open_store(&config)?;
    let listeners = listener::open(&config)?;
    let metrics = Arc::new(Metrics::new());
    let settings = Settings {
        underlay: config.underlay.clone(),
        kernel_hints: config.kernel_hints.unwrap_or_else(may_use_every_cpu),
        bridges_pass_iptables: kubernetes::is_around(&config),
        firewall: FirewallSettings {
            hostport_mark: config.hostport_mark,
            kube_proxy_mark: config.kube_proxy_mark,
            memory: Some(config.run_dir.join("firewall.json")),
            ..FirewallSettings::default()
        },
        ..Settings::default()
    };
    let (dataplane, drift) = Dataplane::start(settings)?;
    let node = Node::new(config.clone(), store, dataplane, metrics.clone());
    let startup = node.start(drift).await?;
    cluster::start(&config, &node).await?;
    tracing::info!(
        endpoints = startup.endpoints,
        detaching = startup.detaching,
        quarantined = startup.quarantined,
        strays = startup.strays,
        "started"
    );
    Ok(Started { node, listeners, metrics, started_at })
}

fn open_store(config: &Config) -> Result<Arc<dyn Store>, ServeError> {
    // The group of the gRPC socket has to get to it, and to nothing else.
    for (path, mode) in [(&config.state_dir, 0o700), (&config.run_dir, 0o755)] {
        make_directory(path, mode)
            .map_err(|source| ServeError::Directory { path: path.clone(), source })?;
    }
    let options = EmbeddedOptions::of_this_boot(&config.state_dir, &config.run_dir)?;
    Ok(EmbeddedStore::open(options)?)
}

/// Makes a directory with exactly this mode, whatever the umask is; one that is there keeps
/// its own.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    set_permissions(path, Permissions::from_mode(mode))
}
