//! Carries a plan out: sends its steps in batches, in the host's namespace and the sandbox's.

use super::{
    encode::{encode, is_default},
    indexes::Indexes,
    op::{LinkChange, Op, Side},
    teardown,
};
use crate::{
    DataplaneError,
    error::{failed, refused},
    events::Expected,
    exec::{
        context::{Context, pod_socket},
        namespace::Netns,
    },
    netlink::{Batch, Refusal, Socket},
    sysctl,
};
use netd_domain::{PodSide, Route, Wiring, WiringDriver};

/// Changes one endpoint in the kernel.
pub(crate) struct Applier<'a> {
    pub(super) kernel: &'a mut Context,
    pub(super) netns: &'a Netns,
    pub(super) wiring: &'a Wiring,
    pub(super) pod_side: PodSide,
    pub(super) pod: Option<Socket>,
    /// As far as they are known.
    pub indexes: Indexes,
    /// Indexes of the links made so far, which [`Applier::undo`] removes.
    pub(super) made: Vec<u32>,
    /// IPv6 was off in the sandbox, and netd has switched it on.
    ipv6_on: bool,
    /// A default route of another program's is replaced where the sandbox has no other endpoint.
    pub(super) restores: bool,
    /// Default routes that were not made, because the sandbox has others.
    pub(super) skipped: Vec<Route>,
}

/// What to do about a step that the kernel refused.
enum Verdict {
    /// Nothing: the step was not necessary.
    Fine,
    /// Send this step instead.
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
        let (ipv6_on, restores, skipped) = (false, false, Vec::new());
        Self {
            kernel,
            netns,
            wiring,
            pod_side,
            pod: None,
            indexes,
            made,
            ipv6_on,
            restores,
            skipped,
        }
    }

    /// For a pair that was looked at; `pod` is a socket in the sandbox.
    pub(crate) fn for_existing(
        kernel: &'a mut Context,
        netns: &'a Netns,
        wiring: &'a Wiring,
        indexes: Indexes,
        pod: Socket,
    ) -> Self {
        let new = Self::for_new(kernel, netns, wiring, PodSide::Placed, indexes.bridge);
        Self { pod: Some(pod), indexes, ..new }
    }

    /// Carries out the steps in order.
    ///
    /// # Errors
    /// The first step that failed; [`Applier::undo`] removes what was made.
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

    /// Detaches the links made so far; the reaper deletes them.
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

    /// From now on, changes of the endpoint by others are drift.
    pub(super) fn watch(&self) {
        let (wiring, at) = (self.wiring, self.indexes);
        let routed = wiring.driver == WiringDriver::Routed;
        let addresses = wiring.addresses.iter().filter(|_| routed).map(|a| a.address.addr());
        self.kernel.shared.table.lock().expect(Expected {
            name: wiring.host_ifname.clone(),
            host: at.host,
            host_mac: wiring.host_mac.bytes(),
            pod: at.pod_netns.map(|id| (id, at.pod)),
            pod_mac: wiring.pod_mac.unwrap_or(wiring.mac).bytes(),
            pod_name: wiring.ifname.clone(),
            mtu: wiring.mtu,
            bridge: at.bridge,
            addresses: addresses.collect(),
            awaited: self.pod_side == PodSide::Pending,
        });
    }

    /// Sends steps of one side together, and then once more the refused ones that have a
    /// remedy.
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
            // The kernel or the link (MTU below 1280) has no IPv6 to switch off.
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
            // IPv6 is off in this sandbox.
            (Op::PodAddress(net), libc::EACCES) if net.addr().is_ipv6() => {
                if !std::mem::replace(&mut self.ipv6_on, true) {
                    sysctl::enable_ipv6(self.netns, &self.wiring.ifname)?;
                }
                Ok(Verdict::Instead(op.clone()))
            }
            // New links of the host have IPv6 off (net.ipv6.conf.default.disable_ipv6).
            (Op::HostRoute(net), libc::EACCES) if net.addr().is_ipv6() => {
                sysctl::enable_host_ipv6(&self.wiring.host_ifname)?;
                Ok(Verdict::Instead(op.clone()))
            }
            (Op::HostNeighbour(neighbour), libc::EINVAL) if neighbour.ip.is_ipv6() => {
                sysctl::enable_host_ipv6(&self.wiring.host_ifname)?;
                Ok(Verdict::Instead(op.clone()))
            }
            // It is there already, out of this link.
            (Op::PodRoute(route), libc::EEXIST) if !is_default(route) => Ok(Verdict::Fine),
            (Op::PodRoute(route), libc::EEXIST) if self.restores && self.is_alone() => {
                Ok(Verdict::Instead(Op::ReplacePodRoute(route.clone())))
            }
            (Op::PodRoute(route), libc::EEXIST) => {
                self.skipped.push(route.clone());
                Ok(Verdict::Fine)
            }
            (op, _) if self.ipv6_on && op.side() == Side::Pod => Ok(Verdict::Instead(op.clone())),
            _ => Ok(Verdict::Fatal),
        }
    }

    /// Whether the sandbox has no other endpoint of netd's.
    fn is_alone(&self) -> bool {
        let id = self.indexes.pod_netns;
        id.is_some_and(|id| self.kernel.shared.table.lock().endpoints_in(id) <= 1)
    }

    fn refusal(&self, op: &Op, refusal: &Refusal) -> DataplaneError {
        refused(format!("{}: {op}", self.wiring.host_ifname), refusal)
    }

    fn send(&mut self, ops: &[Op]) -> Result<Vec<Result<(), Refusal>>, DataplaneError> {
        let mut batch = Batch::new();
        for op in ops {
            encode(op, &self.indexes, &mut batch);
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
}

/// Whether the next steps need the outcome of this one.
fn alone(op: &Op) -> bool {
    matches!(op, Op::CreateVeth | Op::CreateIfb { .. } | Op::DeleteLink | Op::LocalRoutes)
}
