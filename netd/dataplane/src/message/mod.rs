//! How steps are said to the kernel, and how its answers are read.

pub(crate) mod attr;
pub(crate) mod device;
pub(crate) mod link;
pub(crate) mod net;
pub(crate) mod object;
pub(crate) mod tc;
pub(crate) mod wireguard;
