//! Many datagrams a system call: recvmmsg with UDP_GRO, sendmmsg with UDP_SEGMENT.
//!
//! Unsafe: `nix` gives every message of a batch the same control data, but each has a
//! segment size of its own.

use std::{
    io::{self, IoSlice},
    mem,
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use socket2::{SockAddr, SockAddrStorage};

/// Room for one control message with an int, aligned as its header has to be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 32]);

/// Bytes of the largest datagram, or of several that the kernel put together.
const MOST: usize = 65_536;

/// Bytes a call, where messages are large: what has come is worked on before the
/// processor's cache is full of it.
const MOST_AT_ONCE: usize = 256 << 10;
/// Messages a call at least.
const LEAST: usize = 4;

/// A datagram or several of one sender, all of one length but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub from: SocketAddr,
    /// Where it lies in [`Receiver::buffer`].
    pub start: usize,
    /// Bytes of all.
    pub len: usize,
    /// Bytes of each, at least 1.
    pub segment: usize,
}

/// Buffers for a batch of datagrams.
pub struct Receiver {
    buffer: Vec<u8>,
    messages: Vec<Received>,
    slots: usize,
}

impl Receiver {
    /// For `slots` messages a call.
    pub fn new(slots: usize) -> Self {
        Self { buffer: vec![0; slots * MOST], messages: Vec::with_capacity(slots), slots }
    }

    /// Where the datagrams lie.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// What came with the last call.
    pub fn messages(&self) -> &[Received] {
        &self.messages
    }

    /// How many are asked for: fewer if those that came last were large.
    fn slots_now(&self) -> usize {
        let bytes: usize = self.messages.iter().map(|message| message.len).sum();
        let each = bytes.checked_div(self.messages.len()).unwrap_or(0);
        let fit = MOST_AT_ONCE.checked_div(each).unwrap_or(self.slots);
        fit.max(LEAST).min(self.slots)
    }

    /// Takes what has come, without waiting; whether there may be more.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has; the system's.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let slots = self.slots_now();
        self.messages.clear();
        // SAFETY (all three): plain data, for which zeroes are a value.
        let mut headers: Vec<libc::mmsghdr> = vec![unsafe { mem::zeroed() }; slots];
        let mut names: Vec<SockAddrStorage> =
            (0..slots).map(|_| SockAddrStorage::zeroed()).collect();
        let mut controls = vec![Control([0; 32]); slots];
        let mut parts: Vec<libc::iovec> = self
            .buffer
            .chunks_exact_mut(MOST)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() })
            .collect();
        let places = names.iter_mut().zip(&mut controls).zip(&mut parts);
        for (header, ((name, control), part)) in headers.iter_mut().zip(places) {
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = name.size_of();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = ptr::from_mut(control).cast();
            header.msg_hdr.msg_controllen = mem::size_of::<Control>() as _;
        }
        // SAFETY: each header points to a name, a buffer and a control buffer of its own,
        // of the sizes it says; all of them live until the call is over.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                slots as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        for (index, (header, name)) in headers.iter().zip(names).take(got).enumerate() {
            // SAFETY: the kernel has written the name, and its length.
            let name = unsafe { SockAddr::new(name, header.msg_hdr.msg_namelen) };
            let (Some(from), len) = (name.as_socket(), header.msg_len as usize) else { continue };
            let segment = segment_size(&header.msg_hdr).unwrap_or(len).max(1);
            self.messages.push(Received { from, start: index * MOST, len: len.min(MOST), segment });
        }
        Ok(got == slots)
    }
}

/// What UDP_GRO says.
fn segment_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the header's control buffer is alive and the kernel has set its length; the
    // CMSG macros stay within that.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = control.as_ref() {
            if (message.cmsg_level, message.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO) {
                let data = libc::CMSG_DATA(control).cast::<libc::c_int>();
                return usize::try_from(data.read_unaligned()).ok().filter(|size| *size > 0);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

/// Datagrams to one peer, to be sent by one message.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The bytes.
    pub parts: &'a [IoSlice<'a>],
    /// Bytes of each datagram but the last; `None`: it is one.
    pub segment: Option<u16>,
}

/// Sends batches.
#[derive(Default)]
pub struct Sender {
    names: Vec<SockAddr>,
    controls: Vec<Control>,
}

impl Sender {
    /// Sends the first messages, without waiting, and says how many.
    ///
    /// # Errors
    /// The first one's: `WouldBlock`, or it can't be sent.
    pub fn send(&mut self, socket: BorrowedFd<'_>, messages: &[Outgoing<'_>]) -> io::Result<usize> {
        self.names.clear();
        self.names.extend(messages.iter().map(|message| SockAddr::from(message.to)));
        self.controls.clear();
        self.controls.resize(messages.len(), Control([0; 32]));
        let mut headers = Vec::with_capacity(messages.len());
        let places = self.names.iter().zip(&mut self.controls);
        for (message, (name, control)) in messages.iter().zip(places) {
            // SAFETY: plain data, for which zeroes are a value.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = name.len();
            // IoSlice has iovec's layout; the kernel does not write to these.
            header.msg_hdr.msg_iov = message.parts.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_iovlen = message.parts.len() as _;
            if let Some(segment) = message.segment {
                set_segment_size(&mut header.msg_hdr, control, segment);
            }
            headers.push(header);
        }
        // SAFETY: each header points to its own name and control data in `self` and to its
        // message's parts, all of which live until the call is over.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn set_segment_size(header: &mut libc::msghdr, control: &mut Control, segment: u16) {
    header.msg_control = ptr::from_mut(control).cast();
    // SAFETY: CMSG_SPACE only computes.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(mem::size_of::<u16>() as u32) } as _;
    // SAFETY: the control buffer is aligned for a header and longer than CMSG_SPACE of
    // what is written to it.
    unsafe {
        let Some(message) = libc::CMSG_FIRSTHDR(header).as_mut() else { return };
        message.cmsg_level = libc::SOL_UDP;
        message.cmsg_type = libc::UDP_SEGMENT;
        message.cmsg_len = libc::CMSG_LEN(mem::size_of::<u16>() as u32) as _;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
    }
}
