//! Carries a plan out: steps become batches, in the host's namespace and the sandbox's.

use std::os::fd::{AsFd, AsRawFd};

use super::{
    op::{LinkChange, Op, Shaped, Side},
    teardown,
};
use crate::{
    DataplaneError,
    device_names::ifb_name,
    error::{failed, refused},
    events::Expected,
    exec::{
        context::{Context, pod_socket},
        namespace::Netns,
    },
    netlink::{
        Batch, Received, Refusal, Socket, address, attribute,
        link::{self, LinkId, LinkSettings},
        neighbour, query, route, tc,
    },
    sysctl,
};
use netd_domain::{PodSide, Route, Wiring, WiringDriver};

/// Make it, and say what it became.
const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ECHO) as u16;
/// In the answer to the making of a pair: the other end's index, and its namespace's id.
const IFLA_LINK: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
/// Where a link message has its index, and where its attributes begin.
const LINK_INDEX: usize = 4;
pub(super) const LINK_ATTRIBUTES: usize = 16;

/// An endpoint that is being worked on.
pub(crate) struct Applier<'a> {
    pub(super) kernel: &'a mut Context,
    netns: &'a Netns,
    pub(super) wiring: &'a Wiring,
    pod_side: PodSide,
    pub(super) pod: Option<Socket>,
    /// Indexes, as far as they are known.
    pub indexes: Indexes,
    /// Made here: to be taken away if a later step fails.
    made: Vec<u32>,
    /// IPv6 was off in the sandbox, and was switched on once already.
    ipv6_on: bool,
}

/// Interface indexes around an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Indexes {
    /// The host's end.
    pub host: u32,
    /// The sandbox's end.
    pub pod: u32,
    /// The host's id for the sandbox's namespace.
    pub pod_netns: Option<i32>,
    /// The bridge.
    pub bridge: Option<u32>,
    /// The device that limits what the pod sends.
    pub ifb: u32,
}

/// What becomes of a step that was refused.
enum Verdict {
    /// It does not matter.
    Fine,
    /// Try this instead.
    Instead(Op),
    /// The endpoint can't be made.
    Fatal,
}

impl<'a> Applier<'a> {
    /// For a pair that is to be made, with the pod's end in `netns`; the index of the bridge
    /// is known if there is one.
    pub(crate) fn for_new(
        kernel: &'a mut Context,
        netns: &'a Netns,
        wiring: &'a Wiring,
        pod_side: PodSide,
        bridge: Option<u32>,
    ) -> Self {
        let indexes = Indexes { bridge, ..Indexes::default() };
        let made = Vec::new();
        Self { kernel, netns, wiring, pod_side, pod: None, indexes, made, ipv6_on: false }
    }

    /// For a pair that was looked at; `pod` is a socket in the sandbox.
    pub(crate) fn for_existing(
        kernel: &'a mut Context,
        netns: &'a Netns,
        wiring: &'a Wiring,
        indexes: Indexes,
        pod: Socket,
    ) -> Self {
        let (pod_side, pod, made) = (PodSide::Placed, Some(pod), Vec::new());
        Self { kernel, netns, wiring, pod_side, pod, indexes, made, ipv6_on: false }
    }

    /// Carries out the steps in order.
    ///
    /// # Errors
    /// The first step that failed; [`Applier::undo`] takes away what was made.
    pub(crate) fn apply(&mut self, ops: &[Op]) -> Result<(), DataplaneError> {
        for run in ops.chunk_by(|a, b| !alone(a) && !alone(b) && a.side() == b.side()) {
            match run {
                [Op::CreateVeth] => self.create_veth()?,
                [Op::CreateIfb { mtu }] => self.create_ifb(*mtu)?,
                [Op::LocalRoutes] => sysctl::allow_local_routes(&self.wiring.host_ifname)?,
                run => self.batch(run)?,
            }
        }
        Ok(())
    }

    /// Takes what was made out of the way; the reaper removes it.
    pub(crate) fn undo(&mut self) {
        let made = std::mem::take(&mut self.made);
        let host = &self.wiring.host_ifname;
        if made.is_empty() {
            return;
        }
        self.kernel.shared.table.lock().forget(host);
        if let Err(e) = teardown::detach_made(self.kernel, host, &made) {
            tracing::warn!(interface = %host, "undoing an attach: {e}");
        }
    }

    fn create_veth(&mut self) -> Result<(), DataplaneError> {
        let fd = self.netns.as_fd().as_raw_fd();
        let mut batch = Batch::new();
        if self.pod_side == PodSide::Placed {
            // Refused when it has one, or the id is taken: fine. Never for the host's own:
            // its events would look like a sandbox's.
            let id = self.kernel.shared.table.lock().wish_id();
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

    /// From now on, what somebody else does to the endpoint is drift.
    pub(crate) fn watch(&self) {
        let (wiring, at) = (self.wiring, self.indexes);
        let routed = wiring.driver == WiringDriver::Routed;
        let addresses = wiring.addresses.iter().filter(|_| routed).map(|a| a.address.addr());
        self.kernel.shared.table.lock().expect(Expected {
            name: wiring.host_ifname.clone(),
            host: at.host,
            host_mac: wiring.host_mac.bytes(),
            pod: at.pod_netns.map(|id| (id, at.pod)),
            pod_mac: wiring.mac.bytes(),
            mtu: wiring.mtu,
            bridge: at.bridge,
            addresses: addresses.collect(),
            awaited: self.pod_side == PodSide::Pending,
        });
    }

    /// Says whose name was in the way.
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

    fn create_ifb(&mut self, mtu: u32) -> Result<(), DataplaneError> {
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

    /// What became of the last request, and what it echoed.
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

    /// Sends steps of one side together, and once more those for which the kernel's
    /// refusal has a remedy.
    fn batch(&mut self, ops: &[Op]) -> Result<(), DataplaneError> {
        let mut again = Vec::new();
        for (op, result) in ops.iter().zip(self.send(ops)?) {
            let Err(refusal) = result else { continue };
            match self.judge(op, &refusal)? {
                Verdict::Fine => {}
                Verdict::Instead(op) => again.push(op),
                Verdict::Fatal => return Err(self.refusal(op, &refusal)),
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        for (op, result) in again.iter().zip(self.send(&again)?) {
            result.map_err(|refusal| self.refusal(op, &refusal))?;
        }
        Ok(())
    }

    fn judge(&mut self, op: &Op, refusal: &Refusal) -> Result<Verdict, DataplaneError> {
        match (op, refusal.errno) {
            (Op::DeleteLink, libc::ENODEV) => Ok(Verdict::Fine),
            (Op::RemovePodAddress(_), libc::EADDRNOTAVAIL) => Ok(Verdict::Fine),
            // No IPv6 in the kernel or on this link (MTU below 1280): nothing to switch off.
            (Op::SetHostLink(change) | Op::SetPodLink(change), libc::EAFNOSUPPORT)
                if change.no_autoconf =>
            {
                let rest = LinkChange { no_autoconf: false, ..*change };
                let instead = match op {
                    Op::SetHostLink(_) => Op::SetHostLink(rest),
                    _ => Op::SetPodLink(rest),
                };
                Ok(if rest.is_empty() { Verdict::Fine } else { Verdict::Instead(instead) })
            }
            // A sandbox may be made with IPv6 off.
            (Op::PodAddress(net), libc::EACCES) if net.addr().is_ipv6() => {
                if !std::mem::replace(&mut self.ipv6_on, true) {
                    sysctl::enable_ipv6(self.netns, &self.wiring.ifname)?;
                }
                Ok(Verdict::Instead(op.clone()))
            }
            (op, _) if self.ipv6_on && op.side() == Side::Pod => Ok(Verdict::Instead(op.clone())),
            _ => Ok(Verdict::Fatal),
        }
    }

    fn refusal(&self, op: &Op, refusal: &Refusal) -> DataplaneError {
        refused(format!("{}: {op}", self.wiring.host_ifname), refusal)
    }

    fn send(&mut self, ops: &[Op]) -> Result<Vec<Result<(), Refusal>>, DataplaneError> {
        let mut batch = Batch::new();
        for op in ops {
            self.encode(op, &mut batch);
        }
        batch.quieten();
        let pod = ops.first().is_some_and(|op| op.side() == Side::Pod);
        if pod && self.pod.is_none() {
            self.pod = Some(pod_socket(self.netns)?);
        }
        let socket = match &mut self.pod {
            Some(socket) if pod => socket,
            _ => &mut self.kernel.socket,
        };
        let whose = &self.wiring.host_ifname;
        socket.batch(batch).map_err(failed(format!("{whose}: sending to the kernel")))
    }

    fn encode(&self, op: &Op, batch: &mut Batch) {
        const PUT: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        let at = &self.indexes;
        let (host, pod) = (LinkId::Index(at.host), LinkId::Index(at.pod));
        match op {
            Op::DeleteLink => batch.route(link::delete(host), 0),
            Op::SetHostLink(change) => batch.route(link::change(host, &settings(change)), 0),
            Op::HostRoute(net) => {
                let route = Route { destination: *net, gateway: None };
                batch.route(route::add(at.host, &route), PUT);
            }
            Op::HostNeighbour(n) => batch.route(neighbour::add(at.host, n.ip, n.mac.to), PUT),
            Op::PodLoopbackUp => batch.route(link::set_up(LinkId::Name("lo")), 0),
            Op::SetPodLink(change) => batch.route(link::change(pod, &settings(change)), 0),
            Op::RemovePodAddress(net) => batch.route(address::remove(at.pod, *net), 0),
            Op::PodAddress(net) => batch.route(address::add(at.pod, *net), PUT),
            Op::PodNeighbour(n) => batch.route(neighbour::add(at.pod, n.ip, n.mac.to), PUT),
            Op::PodRoute(route) => batch.route(route::add(at.pod, route), PUT),
            Op::IfbUp => batch.route(link::set_up(LinkId::Index(at.ifb)), 0),
            Op::Limit(Shaped::HostLink, limit) => tc::limit(batch, at.host, limit.to),
            Op::Limit(Shaped::Ifb, limit) => tc::limit(batch, at.ifb, limit.to),
            Op::IngressHook => tc::hook(batch, at.host),
            Op::Redirect => tc::redirect(batch, at.host, at.ifb),
            // Carried out by themselves, in `apply`.
            Op::CreateVeth | Op::CreateIfb { .. } | Op::LocalRoutes => {}
        }
    }
}

fn settings(change: &LinkChange) -> LinkSettings {
    LinkSettings {
        up: change.up,
        mtu: change.mtu.map(|mtu| mtu.to),
        mac: change.mac.map(|mac| mac.to),
        master: change.master.map(|master| master.to),
        hairpin: change.hairpin,
        no_autoconf: change.no_autoconf,
    }
}

/// Steps whose outcome the next ones need.
fn alone(op: &Op) -> bool {
    matches!(op, Op::CreateVeth | Op::CreateIfb { .. } | Op::DeleteLink | Op::LocalRoutes)
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
