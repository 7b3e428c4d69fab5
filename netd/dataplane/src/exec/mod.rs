//! The threads that do blocking kernel work, what they share, and where they run:
//! in which network namespace, and on which processors.

pub(crate) mod context;
pub(crate) mod cpu_affinity;
pub mod namespace;
pub(crate) mod pulse;
pub(crate) mod worker;
