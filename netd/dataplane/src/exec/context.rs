//! What a thread that works on links has: a socket, and what all of them share.

use std::{collections::HashMap, io, os::fd::AsFd, sync::Arc};

use parking_lot::Mutex;

use super::namespace::{self, Netns};
use crate::{
    DataplaneError, Settings,
    error::failed,
    events::Table,
    netlink::{Batch, Protocol, Refusal, Socket, link::LinkId, link_group::LinkGroups, query},
};
use netd_domain::{IfName, Mac, Wiring, WiringDriver};

/// State of one thread that does link work.
#[derive(Debug)]
pub(crate) struct Context {
    /// In the host's namespace.
    pub socket: Socket,
    /// What all of them share.
    pub shared: Arc<SharedContext>,
}

/// What the threads share.
#[derive(Debug, Default)]
pub(crate) struct SharedContext {
    /// Setup.
    pub settings: Settings,
    /// Indexes of the networks' bridges. An entry may be out of date; it is looked up again
    /// when the kernel refuses it.
    pub bridges: Mutex<HashMap<IfName, u32>>,
    /// MACs of the networks' bridges: netd's own, or that of another program's bridge with which
    /// netd goes on.
    pub bridge_macs: Mutex<HashMap<IfName, Mac>>,
    /// What was made, for the thread that listens.
    pub table: Mutex<Table>,
    /// Links on their way out.
    pub link_groups: LinkGroups,
    /// Ports of the threads' sockets: changes that these cause are no drift.
    pub ports: Mutex<Vec<u32>>,
}

impl Context {
    /// Opens this thread's socket.
    pub(crate) fn open(shared: Arc<SharedContext>) -> Result<Self, DataplaneError> {
        let socket = Socket::open(Protocol::Route).map_err(failed("opening a netlink socket"))?;
        shared.ports.lock().push(socket.port());
        Ok(Self { socket, shared })
    }

    /// The index of the bridge that the endpoint's host side is a port of.
    pub(crate) fn bridge(&mut self, wiring: &Wiring) -> Result<Option<u32>, DataplaneError> {
        let WiringDriver::Bridge(name) = &wiring.driver else { return Ok(None) };
        if let Some(index) = self.shared.bridges.lock().get(name) {
            return Ok(Some(*index));
        }
        let found = query::link(&mut self.socket, LinkId::Name(name.as_str()))
            .map_err(failed(format!("looking for the bridge {name}")))?;
        let Some(link) = found.filter(|link| link.kind == "bridge") else {
            return Err(DataplaneError::Kernel {
                operation: format!("looking for the bridge {name}"),
                errno: "there is none; it is made again with its network".into(),
            });
        };
        self.shared.bridges.lock().insert(name.clone(), link.index);
        Ok(Some(link.index))
    }

    /// Sends one request.
    pub(crate) fn one(&mut self, fill: impl FnOnce(&mut Batch)) -> io::Result<Result<(), Refusal>> {
        let mut batch = Batch::new();
        fill(&mut batch);
        let mut results = self.socket.batch(batch)?;
        Ok(results.pop().unwrap_or(Ok(())))
    }
}

/// A socket in a sandbox's namespace.
pub(crate) fn pod_socket(netns: &Netns) -> Result<Socket, DataplaneError> {
    let what = || format!("opening a netlink socket in {}", netns.path().display());
    namespace::run_in(netns.as_fd(), || Socket::open_unbound(Protocol::Route))
        .and_then(|socket| socket)
        .map_err(|e| failed(what())(e))
}
