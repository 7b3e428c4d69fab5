//! Address allocation: pure arithmetic, no I/O, no clock.
//!
//! An allocator is rebuilt from the stored records at start ([`NetworkAllocator::restore`])
//! and proposes addresses from then on. The store's
//! compare-and-swap decides whether an address is free; whoever loses a race gives the
//! address back with `release`.
//!
//! Order: addresses that were never used come first, ascending from the one given out
//! last (next-fit); then freed ones, the longest free first. Cost is O(log n) in the
//! number of gaps between used addresses, whatever the size of a pool and its fill;
//! memory is proportional to the addresses in use.

mod error;
mod external;
mod freed;
mod network;
mod number;
mod pool;
mod ranges;
#[cfg(test)]
mod tests;

pub use error::{Family, IpamError, PoolUsage};
pub use external::ExternalPool;
pub use network::{Allocation, NetworkAllocator};
#[cfg(test)]
pub(crate) use pool::{MAX_FREED, PoolAllocator};
