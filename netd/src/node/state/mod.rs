//! The node's state in memory: written after the store has it, and rebuilt from the store
//! at start.

mod address_reservations;
mod external_pools;
mod foreign_addresses;
mod foreign_entry;
mod last_macs;
mod load;
mod networks;
mod node_state;
mod pods;
mod reserve;
mod sandboxes;
mod tombstones;

pub(crate) use address_reservations::AddressOwner;
pub(crate) use address_reservations::AddressReservation;
pub(crate) use foreign_addresses::ForeignAddress;
pub(crate) use foreign_entry::ForeignHolder;
pub(crate) use load::Loaded;
pub use node_state::KernelStatus;
pub(crate) use node_state::NetworkState;
pub(crate) use node_state::NodeState;
pub(crate) use reserve::Placement;
pub(crate) use sandboxes::is_primary;
