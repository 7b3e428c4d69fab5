//! The only file that opens netlink sockets.
//!
//! A [`Socket`] belongs to the network namespace that its thread was in when it was
//! opened, and stays there. Requests are put together in a [`Batch`] and go to the
//! kernel in one `sendmsg`; the kernel works through them in order and goes on after
//! one that fails (except netfilter batches, which are all or nothing).

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use netlink_packet_route::RouteNetlinkMessage;

use super::{
    dump::Dump,
    message::{Batch, Received, Refusal, cut, outcome, sequence},
    socket_calls::{bind, receive_once, set_option, set_receive_timeout},
};

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// uapi/linux/netlink.h
const NETLINK_GET_STRICT_CHK: i32 = 12;
/// The kernel answers a request in microseconds, and a dump part by part. This ends the wait
/// for an answer that was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// Largest datagram that the kernel sends: dumps come in parts of at most 32 KiB,
/// a single link with its statistics in a few KiB.
const RECEIVE: usize = 64 << 10;

thread_local! {
    /// Room for one datagram, until it is split into messages. All sockets of a thread share
    /// it, because some sockets live only as long as an attach.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours, tc.
    Route,
    /// nftables.
    Netfilter,
    /// Generic netlink: WireGuard.
    Generic,
    /// Sockets of processes.
    Sockets,
}

/// A netlink socket, blocking.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The system's, e.g. out of descriptors or no permission.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let unbound = Self::open_unbound(protocol)?;
        Ok(Self { port: bind(&unbound.fd)?, ..unbound })
    }

    /// As [`Socket::open`], but its [`Socket::port`] is not known: the kernel picks it at
    /// the first request.
    ///
    /// # Errors
    /// As for `open`.
    pub(crate) fn open_unbound(protocol: Protocol) -> io::Result<Self> {
        let number = match protocol {
            Protocol::Route => libc::NETLINK_ROUTE,
            Protocol::Netfilter => libc::NETLINK_NETFILTER,
            Protocol::Generic => libc::NETLINK_GENERIC,
            Protocol::Sockets => libc::NETLINK_SOCK_DIAG,
        };
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: plain system call; the descriptor is owned from here on.
        #[allow(clippy::disallowed_methods)] // this is its place
        let fd = unsafe {
            let raw = libc::socket(libc::AF_NETLINK, kind, number);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        if protocol == Protocol::Route {
            // Dumps are filtered by what the request says instead of sent whole.
            set_option(&fd, libc::SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)?;
        }
        set_receive_timeout(&fd, ANSWER_TIMEOUT)?;
        // Echoes of large requests in acknowledgements cost a copy each.
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        Ok(Self { fd, port: 0, sequence: 0 })
    }

    /// This socket's port id; 0: not known. Events that it causes carry it in
    /// [`Received::port`].
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sets the send and receive buffers, bytes, past the system's limit where allowed.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn set_buffers(&self, bytes: i32) -> io::Result<()> {
        for (force, plain) in
            [(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF), (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)]
        {
            set_option(&self.fd, libc::SOL_SOCKET, force, bytes)
                .or_else(|_| set_option(&self.fd, libc::SOL_SOCKET, plain, bytes))?;
        }
        Ok(())
    }

    /// Joins multicast groups. With `everywhere` the socket also receives events of every
    /// namespace that has an id in this one, as sandboxes with our veths have (see
    /// [`Received::nsid`]).
    ///
    /// # Errors
    /// The system's.
    pub fn subscribe(&self, groups: &[u32], everywhere: bool) -> io::Result<()> {
        for group in groups {
            set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, *group as i32)?;
        }
        if everywhere {
            set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID, 1)?;
        }
        Ok(())
    }

    /// Drops messages that the classic BPF `program` does not pass, before they are queued.
    /// Its offsets begin at the netlink header.
    ///
    /// # Errors
    /// The system's.
    pub fn filter(&self, program: &mut [libc::sock_filter]) -> io::Result<()> {
        let whole = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        let size = size_of_val(&whole) as u32;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        let pointer = (&raw const whole).cast();
        // SAFETY: the kernel copies the program, which lives through the call.
        let result = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, pointer, size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends the batch and waits for every acknowledgement: one result a request that
    /// asks for one, in order (a request that doesn't gives `Ok` unless it was refused).
    ///
    /// # Errors
    /// The socket's own failure; whether the requests were carried out is unknown then.
    pub fn batch(&mut self, batch: Batch) -> io::Result<Vec<Result<(), Refusal>>> {
        let (results, _) = self.exchange(batch)?;
        Ok(results)
    }

    /// As [`Socket::batch`], and the messages that came with the answers
    /// (of gets, or of requests with `NLM_F_ECHO`).
    ///
    /// # Errors
    /// As for `batch`.
    #[allow(clippy::type_complexity)]
    pub fn exchange(
        &mut self,
        mut batch: Batch,
    ) -> io::Result<(Vec<Result<(), Refusal>>, Vec<Received>)> {
        let first = self.stamp(&mut batch);
        self.send(&batch.bytes)?;
        let mut results = vec![Ok(()); batch.len()];
        let mut waiting = batch.acked.iter().filter(|acked| **acked).count();
        let mut pending = batch.acked;
        let mut extra = Vec::new();
        while waiting > 0 {
            for message in self.answer()? {
                let index = sequence(&message.bytes).wrapping_sub(first) as usize;
                let Some(result) = results.get_mut(index) else { continue };
                if message.kind == NLMSG_ERROR {
                    *result = outcome(&message.bytes);
                    waiting -= usize::from(std::mem::take(&mut pending[index]));
                    // An error for the opening message refuses the batch as a whole.
                    if batch.whole && index == 0 && result.is_err() {
                        waiting = 0;
                    }
                } else if message.kind != NLMSG_NOOP {
                    extra.push(message);
                }
            }
        }
        Ok((results, extra))
    }

    /// Sends a dump request and gathers all of its answer.
    ///
    /// # Errors
    /// The kernel's refusal or failure in the midst of the dump (as an OS error), or the
    /// socket's failure. A dump that a change interrupted is tried again.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<Received>> {
        self.dump_whole(|batch| batch.route(message.clone(), libc::NLM_F_DUMP as u16))
    }

    /// As [`Socket::dump`], for tables that change all the time: after some tries it returns
    /// what all of them found, the newest last, with duplicates. What existed during all
    /// of the tries is among it.
    ///
    /// # Errors
    /// As for `dump`.
    pub(crate) fn dump_moving(
        &mut self,
        message: &RouteNetlinkMessage,
    ) -> io::Result<Vec<Received>> {
        const MAX_TRIES: usize = 3;
        let mut found = Vec::new();
        for _ in 0..MAX_TRIES {
            let mut batch = Batch::new();
            batch.route(message.clone(), libc::NLM_F_DUMP as u16);
            let dump = self.dump_once(batch)?;
            if dump.consistent {
                return Ok(dump.found);
            }
            found.extend(dump.found);
        }
        Ok(found)
    }

    /// As [`Socket::dump`] for an encoded request (netfilter, generic netlink).
    ///
    /// # Errors
    /// As for `dump`.
    pub(crate) fn dump_raw(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Received>> {
        self.dump_whole(|batch| batch.raw(kind, libc::NLM_F_DUMP as u16, body))
    }

    /// As [`Socket::dump_raw`], but hands over each message as it comes, for tables that are
    /// too large to be kept and change while they are read.
    ///
    /// # Errors
    /// As for `dump`; what came before was handed over.
    pub(crate) fn walk(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(&Received),
    ) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.raw(kind, libc::NLM_F_DUMP as u16, body);
        let mut dump = Dump::new(self.stamp(&mut batch));
        self.send(&batch.bytes)?;
        loop {
            for message in self.receive(0)? {
                let last = dump.add(message)?;
                dump.found.drain(..).for_each(|message| each(&message));
                if last {
                    return Ok(());
                }
            }
        }
    }

    /// Sends the dump that `ask` adds until its answer is consistent.
    fn dump_whole(&mut self, ask: impl Fn(&mut Batch)) -> io::Result<Vec<Received>> {
        const MAX_TRIES: usize = 8;
        for _ in 0..MAX_TRIES {
            let mut batch = Batch::new();
            ask(&mut batch);
            let dump = self.dump_once(batch)?;
            if dump.consistent {
                return Ok(dump.found);
            }
        }
        Err(io::Error::other("the kernel's tables change faster than they can be read"))
    }

    fn dump_once(&mut self, mut batch: Batch) -> io::Result<Dump> {
        let mut dump = Dump::new(self.stamp(&mut batch));
        self.send(&batch.bytes)?;
        loop {
            for message in self.answer()? {
                if dump.add(message)? {
                    return Ok(dump);
                }
            }
        }
    }

    /// Waits for messages of the groups subscribed to.
    ///
    /// # Errors
    /// `ENOBUFS`: the kernel dropped messages; read everything again.
    pub fn events(&mut self) -> io::Result<Vec<Received>> {
        loop {
            match self.receive(0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }

    /// As [`Socket::events`], but does not wait: `WouldBlock` when there are none.
    ///
    /// # Errors
    /// As for `events`.
    pub(crate) fn events_now(&mut self) -> io::Result<Vec<Received>> {
        self.receive(libc::MSG_DONTWAIT)
    }

    /// Gives each message its sequence number; the first one's.
    fn stamp(&mut self, batch: &mut Batch) -> u32 {
        let first = self.sequence.wrapping_add(1);
        for (i, offset) in batch.offsets.iter().enumerate() {
            let number = first.wrapping_add(i as u32).to_ne_bytes();
            batch.bytes[offset + 8..offset + 12].copy_from_slice(&number);
        }
        self.sequence = self.sequence.wrapping_add(batch.len() as u32);
        first
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length are of a live slice.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(sent) {
            Ok(n) if n == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// A part of the answer to what was sent.
    fn answer(&mut self) -> io::Result<Vec<Received>> {
        self.receive(0).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the kernel did not answer within {ANSWER_TIMEOUT:?}"),
            ),
            _ => e,
        })
    }

    /// One datagram, cut into its messages.
    fn receive(&mut self, flags: i32) -> io::Result<Vec<Received>> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(RECEIVE, 0);
            let mut control = [0u64; 8];
            let (length, nsid) = loop {
                match receive_once(&self.fd, buffer, &mut control, flags) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
            Ok(cut(&buffer[..length], nsid))
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
