//! Ends flows that a change of host ports or addresses made stale. conntrack decides at a
//! flow's first packet where it goes, and a client that keeps sending never starts a new one.
//!
//! All of it is one look at the kernel's table, however many ports and addresses there are.
//! A look takes milliseconds, so it has a thread of its own.

use std::{collections::HashSet, io, net::IpAddr, sync::Arc};

use super::{
    attributes::find_u32,
    flow::{Flow, deletion},
    listeners::{self, HostListener},
    message::NFGENMSG,
    port_owners::PortOwners,
    published::Published,
};
use crate::{
    DataplaneError,
    error::failed,
    netlink::{Batch, Protocol, Refusal, Socket},
};
use netd_domain::Wiring;

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET`, `_DELETE`, `_GET_STATS`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const GET_STATS: u16 = 1 << 8 | 5;
/// `CTA_STATS_GLOBAL_ENTRIES`
const ENTRIES: u16 = 1;
/// `struct nfgenmsg` for every family.
const EVERY_FAMILY: [u8; NFGENMSG] = [0; NFGENMSG];
/// Deletions in one message: as many refusals fit into the socket's default buffer.
const DELETIONS: usize = 128;

/// State of the thread that ends flows.
#[derive(Debug)]
pub(crate) struct Flows {
    socket: Socket,
    published: Arc<Published>,
    /// The last look failed, and that was logged.
    failing: bool,
}

impl Flows {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(published: Arc<Published>) -> Result<Self, DataplaneError> {
        let socket = Socket::open(Protocol::Netfilter)
            .map_err(failed("opening a netlink socket for connection tracking"))?;
        Ok(Self { socket, published, failing: false })
    }

    /// Ends every flow of the addresses `ended`, which have no owner any longer, and those
    /// that go past the present owner of a host port. A failure is only logged: new flows go
    /// where they should, and a kernel without ctnetlink has no way to end the old ones.
    pub(crate) fn end_stale(&mut self, ended: &[IpAddr]) {
        let result = self.try_end(&ended.iter().copied().collect());
        if let Err(error) = &result
            && !self.failing
        {
            tracing::warn!(%error, "connections through changed host ports can't be ended, \
                they may go on to where they went: {error}");
        }
        self.failing = result.is_err();
    }

    /// Processes that listen on host ports of the endpoint.
    pub(crate) fn listeners(&self, wiring: &Wiring) -> Result<Vec<HostListener>, DataplaneError> {
        let find = || {
            let mut socket = Socket::open_unbound(Protocol::Sockets)?;
            listeners::find(&mut socket, wiring, &self.published.node())
        };
        find().map_err(failed("looking for processes that listen on host ports"))
    }

    fn try_end(&mut self, ended: &HashSet<IpAddr>) -> io::Result<()> {
        // The kernel's table is shared by all namespaces: a walk costs the same if nothing in
        // it is of this one.
        if self.count()? == 0 {
            return Ok(());
        }
        let owners = self.published.owners();
        let stale = self.find(&owners, ended)?;
        for some in stale.chunks(DELETIONS) {
            let mut batch = Batch::new();
            some.iter().for_each(|flow| batch.raw(DELETE, libc::NLM_F_ACK as u16, flow));
            // One that ended by itself meanwhile is fine.
            let refusals = self.socket.batch(batch)?.into_iter().filter_map(Result::err);
            let refusal = refusals.into_iter().find(|r: &Refusal| r.errno != libc::ENOENT);
            refusal.map_or(Ok(()), |r| Err(io::Error::other(r)))?;
        }
        if !stale.is_empty() {
            tracing::debug!(flows = stale.len(), "ended {} stale flows", stale.len());
        }
        Ok(())
    }

    /// The requests that delete the stale flows.
    fn find(&mut self, owners: &PortOwners, ended: &HashSet<IpAddr>) -> io::Result<Vec<Vec<u8>>> {
        let mut stale = Vec::new();
        self.socket.walk(GET, &EVERY_FAMILY, |message| {
            let body = message.body();
            if Flow::read(body).is_some_and(|flow| owners.is_stale(&flow, ended)) {
                stale.push(deletion(body));
            }
        })?;
        Ok(stale)
    }

    /// How many flows this namespace has.
    fn count(&mut self) -> io::Result<u32> {
        let mut batch = Batch::new();
        batch.raw(GET_STATS, libc::NLM_F_ACK as u16, &EVERY_FAMILY);
        let (_, answers) = self.socket.exchange(batch)?;
        let read = |body: &[u8]| find_u32(body.get(NFGENMSG..)?, ENTRIES);
        // A kernel that does not say is looked through.
        Ok(answers.iter().find_map(|answer| read(answer.body())).unwrap_or(u32::MAX))
    }
}

#[cfg(feature = "fuzzing")]
/// For fuzzing: reads a flow, and the request that would end it.
pub(super) fn fuzz(body: &[u8]) {
    if let Some(flow) = Flow::read(body) {
        let _ = (deletion(body), PortOwners::default().is_stale(&flow, &HashSet::new()));
    }
}
