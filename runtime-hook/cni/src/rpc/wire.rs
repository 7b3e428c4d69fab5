//! netd's Unix socket, with a deadline for everything.

use alloc::vec::Vec;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect,
        recv, send, socket_with,
    },
};

use crate::clock::Deadline;

/// Bytes read at once; answers are a few hundred.
const READ: usize = 1 << 10;

/// A connection.
pub struct Wire(OwnedFd);

/// Why something was not done.
#[derive(Debug)]
pub enum Fault {
    /// Time was over.
    Late,
    /// The system's word.
    System(Errno),
}

impl Wire {
    /// Connects; never waits.
    ///
    /// # Errors
    /// The system's; `EAGAIN` when the listener's queue is full.
    pub fn connect(path: &str) -> Result<Self, Errno> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        #[allow(clippy::disallowed_methods)] // a Unix one
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)?;
        Ok(Self(socket))
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// [`Fault`]; part of it may have been sent.
    pub fn send(&self, mut bytes: &[u8], until: Deadline) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent.min(bytes.len())..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, until)?,
                Err(e) => return Err(Fault::System(e)),
            }
        }
        Ok(())
    }

    /// Appends what comes; how many bytes. 0 means the end.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn receive(&self, to: &mut Vec<u8>, until: Deadline) -> Result<usize, Fault> {
        to.reserve(READ);
        loop {
            // It takes netd longer than it takes to ask twice.
            self.wait(PollFlags::IN, until)?;
            let before = to.len();
            match recv(&self.0, rustix::buffer::spare_capacity(to), RecvFlags::empty()) {
                Ok(_) => return Ok(to.len() - before),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(Fault::System(e)),
            }
        }
    }

    fn wait(&self, event: PollFlags, until: Deadline) -> Result<(), Fault> {
        let left = until.left().ok_or(Fault::Late)?;
        let time = Timespec::try_from(left);
        let time = time.map_err(|_| Fault::System(Errno::INVAL))?;
        match poll(&mut [PollFd::new(&self.0, event)], Some(&time)) {
            Ok(0) => Err(Fault::Late),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(Fault::System(e)),
        }
    }
}
