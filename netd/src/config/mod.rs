//! netd's configuration: [`Config`] is made from the file, the environment and the flags.
//!
//! Only [`load`] does I/O. All errors of all sources are reported at once, each with the
//! path of its key.

mod duration;
mod kubernetes;
mod load;
mod networks;
mod overlay;
mod section;
mod sources;
mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use netd_domain::{IfName, Network};

pub use kubernetes::Kubernetes;
pub use load::load;
pub use overlay::{ClusterSource, Etcd, Overlay};
pub use sources::{Override, Sources};
pub use values::{LogFormat, SocketGroup};

/// Minimum of `gc.grace`: kubelet gives a sandbox four minutes to start, and until then a
/// runtime may not list it.
pub(crate) const MIN_GRACE: Duration = Duration::from_secs(240);

/// A whole configuration without errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's name: a DNS subdomain (RFC 1123), as kubelet registers it.
    pub node: String,
    /// The Unix socket of the gRPC API; at most 107 bytes (`sun_path`).
    pub socket: PathBuf,
    /// The group that may call besides root; `None`: only root may.
    pub socket_group: Option<SocketGroup>,
    /// The store's directory; it survives reboots.
    pub state_dir: PathBuf,
    /// The directory of files that need not survive a reboot.
    pub run_dir: PathBuf,
    /// Prometheus metrics and health over HTTP; `None`: off.
    pub metrics_listen: Option<SocketAddr>,
    /// Logging.
    pub log: Log,
    /// Garbage collection.
    pub gc: Gc,
    /// Where CNI's `host-local` keeps the addresses that it has given out; `None`: its files
    /// are not looked at.
    pub host_local_dir: Option<PathBuf>,
    /// How long the tombstone of a removed endpoint is kept, so that a late attach is refused.
    pub tombstone_ttl: Duration,
    /// Packet mark of traffic to host ports; one bit.
    pub hostport_mark: u32,
    /// kube-proxy's masquerade mark, left to kube-proxy; one bit.
    pub kube_proxy_mark: u32,
    /// The interface whose MTU the networks follow; `None`: the default route's.
    pub underlay: Option<IfName>,
    /// Whether attaches are made faster by hints to the kernel; `None`: where netd may use every
    /// processor.
    pub kernel_hints: Option<bool>,
    /// The cluster that this node is in; `None`: it is in none.
    pub overlay: Option<Overlay>,
    /// Created at start if they do not exist; at least one.
    pub networks: Vec<Network>,
}

/// How netd logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The format and the destination.
    pub format: LogFormat,
    /// A level, or `target=level` directives with commas between them.
    pub filter: String,
}

/// Garbage collection of endpoints that no runtime knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gc {
    /// The time from when no runtime knows an endpoint to its removal.
    pub grace: Duration,
    /// The time between two searches for such endpoints.
    pub interval: Duration,
    /// Permits a grace below [`MIN_GRACE`]; for tests.
    pub unsafe_short_grace: bool,
}

#[cfg(test)]
mod tests;
