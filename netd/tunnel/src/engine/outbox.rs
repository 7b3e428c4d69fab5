//! Datagrams on the way to peers, packed so that few system calls and few passes through
//! the kernel carry many of them (UDP_SEGMENT, sendmmsg).

use std::{io, io::ErrorKind, io::IoSlice, net::SocketAddr, os::fd::BorrowedFd};

use super::links::Links;
use crate::{
    packet::Piece,
    sys::{Outgoing, Sender, Stop, Wake, wait},
};

/// Datagrams the kernel cuts one message into (UDP_MAX_SEGMENTS of older kernels).
const MAX_DATAGRAMS: usize = 64;
/// Bytes of a message: the largest UDP payload in IPv4.
const MAX_BYTES: usize = 65_507;
/// Messages that are looked through for one to the same peer.
const WINDOW: usize = 16;
/// Milliseconds that a full send buffer is waited for before what does not fit is
/// dropped. All peers wait, also for what they send: once, until something fits again.
const PATIENCE: u16 = 10;

/// Where a datagram goes, and the traffic class of its header: DSCP and ECN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The peer.
    pub to: SocketAddr,
    /// Of the packet inside; 0 for what carries none.
    pub class: u8,
}

/// A batch.
#[derive(Debug, Default)]
pub struct Outbox {
    messages: Vec<Message>,
    used: usize,
    /// Waiting was of no use last time.
    stuck: bool,
}

/// Datagrams to one peer, of one traffic class.
#[derive(Debug)]
struct Message {
    to: Destination,
    /// Bytes of each datagram but the last.
    segment: usize,
    bytes: usize,
    datagrams: usize,
    open: bool,
    pieces: Vec<Piece>,
}

impl Outbox {
    /// Adds a datagram.
    pub fn add(&mut self, to: Destination, pieces: &[Piece]) {
        let len = pieces.iter().map(|piece| piece.len as usize).sum();
        let from = self.used.saturating_sub(WINDOW);
        let recent = self.messages.get_mut(from..self.used).unwrap_or_default();
        if let Some(message) = recent.iter_mut().rev().find(|message| message.to == to) {
            if message.takes(len) {
                message.add(len, pieces);
                return;
            }
            message.open = false;
        }
        self.begin(to, len).add(len, pieces);
    }

    fn begin(&mut self, to: Destination, segment: usize) -> &mut Message {
        let fresh = Message { to, segment, bytes: 0, datagrams: 0, open: true, pieces: vec![] };
        let index = self.used;
        self.used += 1;
        if index == self.messages.len() {
            self.messages.push(fresh);
        }
        let message = &mut self.messages[index];
        message.pieces.clear();
        *message = Message {
            to,
            segment,
            bytes: 0,
            datagrams: 0,
            open: true,
            pieces: std::mem::take(&mut message.pieces),
        };
        message
    }

    /// Sends everything and is empty then. Returns how many datagrams were not sent.
    pub fn flush(
        &mut self,
        arenas: &[&[u8]; 2],
        links: &Links,
        queue: usize,
        sender: &mut Sender,
        stop: &Stop,
    ) -> u64 {
        let messages = self.messages.get(..self.used).unwrap_or_default();
        let mut dropped = 0;
        for v4 in [true, false] {
            let mut those = messages.iter().filter(|m| m.to.to.is_ipv4() == v4).peekable();
            let Some(first) = those.peek() else { continue };
            let Some(socket) = links.socket(first.to.to, queue) else {
                dropped += those.map(|message| message.datagrams as u64).sum::<u64>();
                continue;
            };
            let parts: Vec<Vec<IoSlice<'_>>> = those.clone().map(|m| m.parts(arenas)).collect();
            let outgoing: Vec<Outgoing<'_>> =
                those.zip(&parts).map(|(message, parts)| message.outgoing(parts)).collect();
            dropped += Flush { socket, sender, stop, stuck: &mut self.stuck }.all(&outgoing);
        }
        self.used = 0;
        dropped
    }
}

impl Message {
    fn takes(&self, len: usize) -> bool {
        self.open
            && len <= self.segment
            && len > 0
            && self.datagrams < MAX_DATAGRAMS
            && self.bytes + len <= MAX_BYTES
    }

    fn add(&mut self, len: usize, pieces: &[Piece]) {
        self.pieces.extend_from_slice(pieces);
        self.bytes += len;
        self.datagrams += 1;
        self.open = len == self.segment;
    }

    fn parts<'a>(&self, arenas: &[&'a [u8]; 2]) -> Vec<IoSlice<'a>> {
        self.pieces.iter().map(|piece| IoSlice::new(piece.of(arenas))).collect()
    }

    fn outgoing<'a>(&self, parts: &'a [IoSlice<'a>]) -> Outgoing<'a> {
        // Segments are shorter than 64 KiB, or there is only one.
        let segment = (self.datagrams > 1).then(|| u16::try_from(self.segment).ok()).flatten();
        Outgoing { to: self.to.to, class: self.to.class, parts, segment }
    }
}

struct Flush<'a> {
    socket: BorrowedFd<'a>,
    sender: &'a mut Sender,
    stop: &'a Stop,
    stuck: &'a mut bool,
}

impl Flush<'_> {
    /// Sends the messages; returns how many datagrams were not sent.
    fn all(&mut self, messages: &[Outgoing<'_>]) -> u64 {
        let (mut rest, mut dropped) = (messages, 0);
        while let Some((first, others)) = rest.split_first() {
            match self.sender.send(self.socket, rest) {
                Ok(sent) => {
                    *self.stuck = false;
                    rest = rest.get(sent.max(1)..).unwrap_or_default();
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let wait = || wait(Some(self.socket), true, self.stop, Some(PATIENCE));
                    if *self.stuck || wait() != Wake::Ready {
                        *self.stuck = true;
                        return dropped + rest.iter().map(datagrams).sum::<u64>();
                    }
                }
                Err(e) if first.segment.is_some() && unsegmented(&e) => {
                    dropped += self.one_by_one(first);
                    rest = others;
                }
                // To this peer it can't be sent; the others don't wait for it.
                Err(_) => {
                    dropped += datagrams(first);
                    rest = others;
                }
            }
        }
        dropped
    }

    fn one_by_one(&mut self, message: &Outgoing<'_>) -> u64 {
        let mut singles = vec![];
        let (mut begin, mut bytes) = (0, 0);
        let segment = usize::from(message.segment.unwrap_or(u16::MAX));
        for (index, part) in message.parts.iter().enumerate() {
            bytes += part.len();
            if bytes >= segment || index + 1 == message.parts.len() {
                let parts = message.parts.get(begin..=index).unwrap_or_default();
                let (to, class) = (message.to, message.class);
                singles.push(Outgoing { to, class, parts, segment: None });
                (begin, bytes) = (index + 1, 0);
            }
        }
        self.all(&singles)
    }
}

fn datagrams(message: &Outgoing<'_>) -> u64 {
    let bytes: usize = message.parts.iter().map(|part| part.len()).sum();
    message.segment.map_or(1, |segment| bytes.div_ceil(usize::from(segment).max(1))) as u64
}

/// The kernel can't cut it: the device can't do checksums (EIO), or the datagrams are
/// longer than the path's MTU (EINVAL, EMSGSIZE), which alone they may be: they are
/// fragmented.
fn unsegmented(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}
