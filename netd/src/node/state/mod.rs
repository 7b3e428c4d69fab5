//! The node's state in memory: written after the store has it, and rebuilt from the store
//! at start.

mod address_reservations;
mod load;
mod networks;
mod node_state;
mod reserve;
mod sandboxes;
mod tombstones;

pub use address_reservations::{AddressOwner, AddressReservation};
pub use load::Loaded;
pub use node_state::{KernelStatus, NetworkState, NodeState};
pub use reserve::Placement;
pub use sandboxes::is_primary;
