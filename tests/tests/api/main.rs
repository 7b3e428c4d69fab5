//! The gRPC API and what speaks it: order and repetition of calls, watches, hostile
//! peers, reflection, the command line.

mod cli;
mod fencing;
mod frames;
mod hooks;
mod limits;
mod node;
mod reflection;
mod watches;
