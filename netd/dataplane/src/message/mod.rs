//! How steps are said to the kernel, and how its answers are read.

pub mod attr;
pub mod device;
pub mod link;
pub mod net;
pub mod object;
pub mod tc;
pub mod wireguard;
