//! Bytes and the descriptors that come with them.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::{io::Interest, net::UnixStream};

use super::requests::Descriptors;

/// Room for one descriptor, and for a second one by which too many are told. The kernel
/// closes those for which there is none.
const SPACE: usize = rustix::cmsg_space!(ScmRights(2));

/// Reads what is there: how many bytes (0: the end), and the descriptors. The kernel ends a
/// read with the bytes that a descriptor was sent with, so there is one message's at most.
///
/// # Errors
/// The system's.
pub(crate) async fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
) -> io::Result<(usize, Descriptors<OwnedFd>)> {
    stream.async_io(Interest::READABLE, || receive_now(stream, bytes)).await
}

fn receive_now(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Descriptors<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let received = recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut found = Descriptors::None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptors.for_each(|descriptor| found.add(Descriptors::One(descriptor)));
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // With room for two, fewer came: the process could have no more.
        found = match found {
            Descriptors::None => Descriptors::Lost,
            _ => Descriptors::TooMany,
        };
    }
    Ok((received.bytes, found))
}
