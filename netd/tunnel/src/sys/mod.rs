//! System calls. The only place with unsafe code: each file says why it needs it.

mod batch;
mod handed;
mod socket;
mod stop;
mod tun;

pub use batch::{Outgoing, Received, Receiver, Sender};
pub use handed::handed_over;
pub use socket::bind;
pub use stop::{Stop, Stopper, Wake, wait, wait_any};
pub use tun::{Tun, TunError, remove};
