//! The node on the embedded store and the real kernel, in network namespaces of
//! their own, with a store that fails when told to, and a netd that is killed. Needs root.
#![allow(clippy::unwrap_used)]

mod audit;
mod bed;
mod cnm;
mod damaged;
mod faults;
mod garbage;
mod lists;
mod logs;
mod model;
mod networks;
mod order;
#[allow(dead_code)]
#[path = "../../dataplane/tests/kernel/bed.rs"]
mod space;
mod store;
