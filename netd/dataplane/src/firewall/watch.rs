//! Notices when another program changes netd's tables.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    attributes::find_text,
    elements::Layer,
    message::{ATTR_TABLE, NEW_GENERATION, NFGENMSG, SUBSYSTEM},
    own::OwnChanges,
    settings::TABLE,
};
use crate::{
    DataplaneError,
    netlink::{Protocol, Received, Socket},
};

/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
/// Receive buffer, bytes: enough for the events of another program's large `nft -f`.
const BUFFER: i32 = 8 << 20;

/// Why the tables should be looked at ([`super::Firewall::intact`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Another program added, changed or deleted something in netd's tables.
    Changed,
    /// Events were lost; anything may have happened.
    Lost,
}

/// Listens to nftables' events in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(super) socket: Socket,
    own: OwnChanges,
}

impl Watcher {
    /// Listens from now on. `own`: of the [`super::Firewall`] whose changes don't count.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(own: OwnChanges) -> Result<Self, DataplaneError> {
        let socket = Socket::open(Protocol::Netfilter).map_err(failed)?;
        // A small buffer only means that more is lost, and said to be.
        let _ = socket.set_buffers(BUFFER);
        socket.subscribe(&[GROUP], false).map_err(failed)?;
        Ok(Self { socket, own })
    }

    /// As [`Watcher::try_next`], but waits.
    #[cfg(test)]
    pub(super) fn wait(&mut self) -> Result<Foreign, DataplaneError> {
        loop {
            let events = self.socket.events();
            if let Some(foreign) = self.judge(events)? {
                return Ok(foreign);
            }
        }
    }

    /// Whether another program has changed netd's tables; `None`: nothing of interest has
    /// arrived.
    ///
    /// # Errors
    /// The socket's; opening another watcher is all that helps.
    pub(crate) fn try_next(&mut self) -> Result<Option<Foreign>, DataplaneError> {
        loop {
            let events = self.socket.events_now();
            if matches!(&events, Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
                return Ok(None);
            }
            if let Some(foreign) = self.judge(events)? {
                return Ok(Some(foreign));
            }
        }
    }

    fn judge(&self, events: io::Result<Vec<Received>>) -> Result<Option<Foreign>, DataplaneError> {
        match events {
            Ok(events) => {
                let foreign = |e: &Received| touches_us(e) && !self.own.contains(e.port);
                Ok(events.iter().any(foreign).then_some(Foreign::Changed))
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(Some(Foreign::Lost)),
            Err(e) => Err(failed(e)),
        }
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether an event is of one of our tables.
pub(super) fn touches_us(event: &Received) -> bool {
    let body = event.body();
    let ours = [Layer::Inet, Layer::Arp, Layer::Bridge];
    event.kind >> 8 == SUBSYSTEM
        && event.kind & 0xff != NEW_GENERATION
        && ours.iter().any(|layer| body.first() == Some(&(*layer as u8)))
        && find_text(body.get(NFGENMSG..).unwrap_or_default(), ATTR_TABLE) == Some(TABLE)
}

fn failed(e: io::Error) -> DataplaneError {
    DataplaneError::Io { what: "watching nftables".into(), reason: e.to_string() }
}
