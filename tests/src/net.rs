//! Looking at the network from inside a namespace.

pub mod flow;
pub mod probe;
pub mod raw;
