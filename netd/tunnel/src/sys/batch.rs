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

/// Room for two control messages with an int each, aligned as their headers have to be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

const CONTROL: usize = 48;

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
    /// DSCP and ECN of the header.
    pub class: u8,
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

    /// What came with the last call, and where it lies.
    pub(crate) fn split(&mut self) -> (&[Received], &mut [u8]) {
        (&self.messages, &mut self.buffer)
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
        let mut controls = vec![Control([0; CONTROL]); slots];
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
            let (segment, class) = read_control(&header.msg_hdr);
            let segment = segment.unwrap_or(len).max(1);
            let (start, len) = (index * MOST, len.min(MOST));
            self.messages.push(Received { from, start, len, segment, class });
        }
        Ok(got == slots)
    }
}

/// What UDP_GRO says, if anything, and the traffic class; 0 if the socket does not tell it.
fn read_control(header: &libc::msghdr) -> (Option<usize>, u8) {
    let (mut segment, mut class) = (None, 0);
    // SAFETY: the header's control buffer is alive and the kernel has set its length; the
    // CMSG macros stay within that. Each type has a value of the size that is read here.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = control.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = data.cast::<libc::c_int>().read_unaligned();
                    segment = usize::try_from(size).ok().filter(|size| *size > 0);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => class = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    class = data.cast::<libc::c_int>().read_unaligned() as u8;
                }
                _ => {}
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    (segment, class)
}

/// Datagrams to one peer, to be sent by one message.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// DSCP and ECN of the header.
    pub class: u8,
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
        self.controls.resize(messages.len(), Control([0; CONTROL]));
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
            write_control(&mut header.msg_hdr, control, message);
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

/// Says how the message is to be cut and which traffic class its header gets, where that is not
/// what the kernel does anyway.
fn write_control(header: &mut libc::msghdr, control: &mut Control, message: &Outgoing<'_>) {
    header.msg_control = ptr::from_mut(control).cast();
    header.msg_controllen = CONTROL as _;
    let mut used = 0;
    // SAFETY: the control buffer is aligned for a header, zeroed, and as long as the CMSG_SPACE
    // of the two values together; the kernel reads `used` bytes of it.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        if let Some(segment) = message.segment {
            let (level, kind) = (libc::SOL_UDP, libc::UDP_SEGMENT);
            used += put_control(next, level, kind, segment);
            next = libc::CMSG_NXTHDR(header, next);
        }
        if message.class != 0 {
            let (level, kind) = match message.to {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            used += put_control(next, level, kind, libc::c_int::from(message.class));
        }
    }
    header.msg_controllen = used as _;
}

/// Writes a control message and returns how much room it takes.
///
/// # Safety
/// `at` is null or aligned for a control message, with room for one of this size.
unsafe fn put_control<T>(at: *mut libc::cmsghdr, level: i32, kind: i32, value: T) -> usize {
    let size = mem::size_of::<T>() as u32;
    // SAFETY: see above.
    unsafe {
        let Some(message) = at.as_mut() else { return 0 };
        message.cmsg_level = level;
        message.cmsg_type = kind;
        message.cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
        libc::CMSG_SPACE(size) as usize
    }
}
