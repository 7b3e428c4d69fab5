//! Makes links and learns their indexes from the kernel's echo.

use std::os::fd::{AsFd, AsRawFd};

use super::{apply::Applier, indexes::Indexes};
use crate::{
    DataplaneError,
    device_names::ifb_name,
    error::{failed, refused},
    netlink::{
        Batch, Received, Refusal, attribute,
        link::{self, LINK_ATTRIBUTES, LinkId},
        query,
    },
};
use netd_domain::{PodSide, WiringDriver};

/// Flags of a request that makes something and has the kernel echo it.
const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ECHO) as u16;
/// In the echo of a new pair: the other end's index, and the id of its namespace.
const IFLA_LINK: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
/// Offset of the index in a link message.
const LINK_INDEX: usize = 4;

impl Applier<'_> {
    /// Makes the pair and notes the indexes of its ends.
    pub(super) fn create_veth(&mut self) -> Result<(), DataplaneError> {
        let fd = self.netns.as_fd().as_raw_fd();
        let mut batch = Batch::new();
        if self.pod_side == PodSide::Placed {
            // The kernel may refuse it because the namespace has an id, or another one has
            // this id: that does not matter. The host's own namespace must not get one, or
            // its events would look like a sandbox's.
            let hints = self.kernel.shared.settings.kernel_hints;
            let id = hints.then(|| self.kernel.shared.table.lock().wish_id()).flatten();
            id.into_iter().for_each(|id| batch.route(link::netns_id(fd, id), 0));
        }
        batch.route(link::veth(self.wiring, fd, self.indexes.bridge), NEW);
        batch.quieten();
        let name = &self.wiring.host_ifname;
        let what = "make the veth pair";
        let (result, answer) = self.create(batch, what)?;
        if let Err(refusal) = result {
            return Err(self.not_made(what, &refusal));
        }
        let (host, pod, id) = match answer.iter().find_map(ends) {
            Some(all) => all,
            // Kernels before 6.2 do not echo what they make.
            None => query::link(&mut self.kernel.socket, LinkId::Name(name.as_str()))
                .map_err(failed(format!("{name}: {what}")))?
                .and_then(|link| Some((link.index, link.peer?, link.peer_netns)))
                .ok_or_else(|| self.vanished(what))?,
        };
        self.indexes = Indexes { host, pod, pod_netns: id, ..self.indexes };
        self.made.push(host);
        self.watch();
        Ok(())
    }

    /// The reason: often another interface has one of the names.
    fn not_made(&mut self, what: &str, refusal: &Refusal) -> DataplaneError {
        let host = &self.wiring.host_ifname;
        if let (libc::EXFULL, WiringDriver::Bridge(bridge)) = (refusal.errno, &self.wiring.driver) {
            return DataplaneError::BridgeFull { bridge: bridge.clone() };
        }
        if refusal.errno != libc::EEXIST {
            return refused(format!("{host}: {what}"), refusal);
        }
        let socket = &mut self.kernel.socket;
        match query::link(socket, LinkId::Name(host.as_str())) {
            Ok(Some(_)) => {
                DataplaneError::InterfaceExists { ifname: host.clone(), place: "the host" }
            }
            _ => DataplaneError::InterfaceExists {
                ifname: self.wiring.ifname.clone(),
                place: "the sandbox",
            },
        }
    }

    pub(super) fn create_ifb(&mut self, mtu: u32) -> Result<(), DataplaneError> {
        let name = ifb_name(&self.wiring.host_ifname);
        let what = "make the device that limits what the pod sends";
        let mut batch = Batch::new();
        batch.route(link::ifb(&name, mtu), NEW);
        let (result, answer) = self.create(batch, what)?;
        if let Err(refusal) = result {
            return Err(refused(format!("{name}: {what}"), &refusal));
        }
        self.indexes.ifb = match answer.iter().find_map(|m| attribute::u32_at(m.body(), LINK_INDEX))
        {
            Some(index) => index,
            None => {
                query::link(&mut self.kernel.socket, LinkId::Name(name.as_str()))
                    .map_err(failed(format!("{name}: {what}")))?
                    .ok_or_else(|| self.vanished(what))?
                    .index
            }
        };
        self.made.push(self.indexes.ifb);
        Ok(())
    }

    /// The outcome of the last request, and the kernel's echo.
    #[allow(clippy::type_complexity)]
    fn create(
        &mut self,
        batch: Batch,
        what: &str,
    ) -> Result<(Result<(), Refusal>, Vec<Received>), DataplaneError> {
        let (mut results, answer) = self
            .kernel
            .socket
            .exchange(batch)
            .map_err(failed(format!("{}: {what}", self.wiring.host_ifname)))?;
        Ok((results.pop().unwrap_or(Ok(())), answer))
    }

    fn vanished(&self, what: &str) -> DataplaneError {
        let operation = format!("{}: {what}", self.wiring.host_ifname);
        DataplaneError::Kernel { operation, errno: "it was gone at once".into() }
    }
}

/// Both ends' indexes and the namespace's id, from the kernel's echo.
fn ends(message: &Received) -> Option<(u32, u32, Option<i32>)> {
    let body = message.body();
    let attributes = body.get(LINK_ATTRIBUTES..)?;
    let peer = attribute::find(attributes, IFLA_LINK)?;
    let id = attribute::find(attributes, IFLA_LINK_NETNSID).and_then(|id| attribute::u32_at(id, 0));
    Some((
        attribute::u32_at(body, LINK_INDEX)?,
        attribute::u32_at(peer, 0)?,
        id.map(u32::cast_signed),
    ))
}
