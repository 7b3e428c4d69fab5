//! Looking at the network from inside a namespace.

pub mod flow;
pub mod iperf;
pub mod probe;
pub mod raw;
pub mod rounds;
