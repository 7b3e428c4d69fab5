//! Pure domain: names, networks, endpoints, and what the kernel has to hold for them.
//!
//! Knows no tokio, tonic, netlink or store; everything here is tested without root.

pub mod access;
pub mod attach;
pub mod backoff;
pub mod bandwidth;
pub mod endpoint;
pub mod error;
pub mod host_network;
pub mod host_port;
pub mod ids;
pub mod ipam;
pub mod network;
pub mod overlay;
pub mod pool;
pub mod port_mapping;
mod record_format;
pub mod request;
mod request_digest;
pub mod stored;
pub mod wiring;

pub use access::{NotAllowed, PodAccess};
pub use attach::{AttachSpec, DefaultRoute};
pub use backoff::Backoff;
pub use bandwidth::Bandwidth;
pub use endpoint::{Dns, Endpoint, Phase, PodIdentity, RuntimePlaced, Stage, Tombstone};
pub use error::{Invalid, Violation};
pub use host_network::HostNetwork;
pub use host_port::HostPort;
pub use ids::{EndpointKey, IfName, Mac, NetnsId, NetworkName, SandboxId};
pub use network::{Driver, Network, RepairScope};
pub use pool::Pool;
pub use port_mapping::{NamedPort, PortMapping, Protocol};
pub use request_digest::RequestDigest;
pub use wiring::{BridgeWiring, NetworkWiring, PodSide, Route, WiredAddress, Wiring, WiringDriver};
