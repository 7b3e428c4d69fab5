//! System calls. The only place with unsafe code: each file says why it needs it.

mod batch;
mod inherited_fd;
mod socket;
mod stop;
mod tun;

pub use batch::{Outgoing, Received, Receiver, Sender};
pub use inherited_fd::inherited_fds;
pub use socket::bind;
pub(crate) use socket::tell_traffic_class;
pub use stop::{Stop, Wake, wait};
pub(crate) use stop::{Stopper, wait_any};
pub use tun::{Tun, TunError, remove};
