//! Notices what other programs change, on the host and in the sandboxes.
//!
//! One netlink socket receives the events of every namespace that has an id in the host's,
//! as namespaces at the other end of our veths have. Nothing is polled. When the kernel
//! had to drop events, that is reported as a [`Drift::Everything`].

mod filter;
mod ids;
mod listener;
mod listening;
mod overlay;
mod parse;
mod table;
#[cfg(test)]
mod tests;

pub use self::listening::EventsTrouble;
pub(crate) use self::{
    listening::{Listening, listen},
    overlay::{Expectation, ExpectedDevice, ExpectedUnderlay},
    table::{Expected, ExpectedBridge, Table},
};

#[cfg(feature = "fuzzing")]
/// For fuzzing: a table that knows nothing yet.
pub(super) fn fuzz_table() -> Table {
    Table::default()
}
