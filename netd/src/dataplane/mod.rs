//! The kernel's side: makes wirings true, and says what differs.
//!
//! Owns no state but sockets and what is on its way out of the kernel. `netlink.rs`
//! is the only file that opens netlink sockets, `netns.rs` the only one that calls
//! `setns`. Every operation is idempotent.

pub mod error;
pub mod netlink;

pub use error::DataplaneError;
