//! Pure domain: names, networks, endpoints, and what the kernel has to hold for them.
//!
//! Knows no tokio, tonic, netlink or store; everything here is tested without root.

pub mod attach;
pub mod backoff;
pub mod endpoint;
pub mod error;
pub mod host_port;
pub mod ids;
pub mod ipam;
pub mod network;
pub mod overlay;
pub mod pool;
pub mod stored;
pub mod wiring;

pub use attach::AttachSpec;
pub use backoff::Backoff;
pub use endpoint::{
    Bandwidth, Dns, Endpoint, Moved, Phase, PodIdentity, PortMapping, Protocol, Stage, Tombstone,
};
pub use error::{Invalid, Violation};
pub use host_port::HostPort;
pub use ids::{EndpointKey, IfName, Mac, NetnsId, NetworkName, SandboxId};
pub use network::{Driver, Network};
pub use pool::Pool;
pub use wiring::{BridgeWiring, NetworkWiring, Route, WiredAddress, Wiring, WiringDriver};
