//! netd's configuration: file, environment and flags become one checked [`Config`].
//!
//! Everything here but [`load`] is pure. Every error of all sources is reported
//! at once, each with the path of its key.

mod duration;
mod load;
mod networks;
mod overlay;
mod section;
mod sources;
mod suggest;
mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use netd_domain::{IfName, Network};

pub use duration::duration_text;
pub use load::{DEFAULT_FILE, load};
pub use overlay::{Etcd, Overlay};
pub use sources::{Override, Sources};
pub use values::{LogFormat, SocketGroup};

/// Least grace before an unknown endpoint is collected: kubelet gives a sandbox
/// four minutes to come up, and until then no runtime may list it.
pub const MIN_GRACE: Duration = Duration::from_secs(240);

/// The whole configuration of one netd, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's name: a DNS subdomain (RFC 1123), as kubelet registers it.
    pub node: String,
    /// Where the gRPC API listens; at most 107 bytes (`sun_path`).
    pub socket: PathBuf,
    /// Who besides root may call; `None`: root only.
    pub socket_group: Option<SocketGroup>,
    /// Holds the store; lasts over reboots.
    pub state_dir: PathBuf,
    /// Holds what ends with a reboot.
    pub run_dir: PathBuf,
    /// Prometheus metrics and health over HTTP; `None`: off.
    pub metrics_listen: Option<SocketAddr>,
    /// Logging.
    pub log: Log,
    /// Garbage collection.
    pub gc: Gc,
    /// How long a removed endpoint is remembered, so that a late attach is refused.
    pub tombstone_ttl: Duration,
    /// Packet mark of traffic to host ports; one bit.
    pub hostport_mark: u32,
    /// kube-proxy's masquerade mark, left to kube-proxy; one bit.
    pub kube_proxy_mark: u32,
    /// The interface whose MTU the networks follow; `None`: the default route's.
    pub underlay: Option<IfName>,
    /// The cluster that this node is part of; `None`: it stands alone.
    pub overlay: Option<Overlay>,
    /// Made at start if they are not there; at least one.
    pub networks: Vec<Network>,
}

/// How netd logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where to and how.
    pub format: LogFormat,
    /// A level, or `target=level` directives with commas between them.
    pub filter: String,
}

/// When endpoints that no runtime knows are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gc {
    /// Between "nobody knows it" and removal.
    pub grace: Duration,
    /// Between two looks.
    pub interval: Duration,
    /// Permits a grace below [`MIN_GRACE`]; for tests.
    pub unsafe_short_grace: bool,
}

#[cfg(test)]
mod tests;
