//! netd's Unix socket, with a deadline for everything.

use std::{io::IoSlice, mem::MaybeUninit};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketAddrUnix, SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
    },
};

use crate::clock::Deadline;

/// Bytes read at once; answers are a few hundred.
const READ: usize = 1 << 10;

/// A connection.
pub(crate) struct UnixStream(OwnedFd);

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Time was over.
    Late,
    /// The system's word.
    System(Errno),
}

impl UnixStream {
    /// Connects; never waits.
    ///
    /// # Errors
    /// The system's; `EAGAIN` when the listener's queue is full.
    pub(crate) fn connect(path: &str) -> Result<Self, Errno> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        #[allow(clippy::disallowed_methods)] // a Unix one
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)?;
        Ok(Self(socket))
    }

    /// Sends all of it; `descriptor` goes with the first byte.
    ///
    /// # Errors
    /// [`Fault`]; part of it may have been sent.
    pub(crate) fn send(
        &self,
        mut bytes: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
        until: Deadline,
    ) -> Result<(), Fault> {
        let mut descriptor = descriptor;
        while !bytes.is_empty() {
            match self.send_some(bytes, descriptor) {
                Ok(sent) => {
                    bytes = &bytes[sent.min(bytes.len())..];
                    descriptor = None;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, until)?,
                Err(e) => return Err(Fault::System(e)),
            }
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if let Some(descriptor) = &descriptor {
            // There is room for one.
            ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    }

    /// Appends what comes; how many bytes. 0 means the end.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn receive(&self, to: &mut Vec<u8>, until: Deadline) -> Result<usize, Fault> {
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
