//! The dataplane on the real kernel, in network namespaces of its own. Needs root.
#![allow(clippy::unwrap_used)]

mod bed;
mod drift;
mod mending;
mod overlay;
mod paths;
mod wiring;
