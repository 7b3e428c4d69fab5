//! Everything that is said to the kernel over netlink, and how its answers are read.
//!
//! [`Socket`] is the only thing that opens netlink sockets. The other files build and
//! read messages, one file for each kind of object; they hold no state.

pub(crate) mod address;
pub(crate) mod attribute;
mod dump;
pub(crate) mod entry;
pub(crate) mod link;
pub(crate) mod link_group;
pub(crate) mod listening;
mod message;
mod missing;
pub(crate) mod neighbour;
pub(crate) mod overlay_device;
pub(crate) mod overlay_entry;
pub(crate) mod query;
pub(crate) mod route;
mod socket;
mod socket_calls;
pub(crate) mod tc;
#[cfg(test)]
mod tests;
pub(crate) mod wireguard;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use message::cut;
#[cfg(feature = "fuzzing")]
pub(crate) use message::outcome;
pub use message::{Batch, Received, Refusal};
pub use socket::{Protocol, Socket};
