//! The kernel's WireGuard devices: keys, ports and peers.

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    peers::{PeerPlan, clamped, plan_peers},
    report::{OverlayReport, OverlaySubject},
    wireguard_compare::device_difference,
    wireguard_socket::{Request, WireguardSocket},
    worker::Overlay,
};
use crate::{
    DataplaneError, Repair, RepairKind,
    error::{failed, refused},
    netlink::{
        Batch, Protocol, Socket,
        wireguard::{self, HeldTunnel},
    },
};
use netd_domain::{
    IfName,
    overlay::{DeviceKind, OverlayChange, OverlayDevice, OverlayState, WireguardPeer},
};

impl Overlay {
    /// `None`: this kernel has no WireGuard. Asked again each time: the module may be
    /// loaded later.
    pub(super) fn wireguard(&mut self) -> Result<Option<&mut WireguardSocket>, DataplaneError> {
        if self.generic.is_none() {
            let what = || failed("asking whether the kernel knows wireguard");
            let mut socket = Socket::open(Protocol::Generic).map_err(what())?;
            let mut batch = Batch::new();
            let ack = libc::NLM_F_ACK as u16;
            batch.raw(wireguard::CONTROLLER, ack, &wireguard::get_family());
            let (results, messages) = socket.exchange(batch).map_err(what())?;
            match results.first() {
                Some(Err(refusal)) if refusal.errno == libc::ENOENT => return Ok(None),
                Some(Err(refusal)) => return Err(refused("asking for wireguard", refusal)),
                _ => {}
            }
            let family = messages.iter().find_map(wireguard::read_family);
            self.generic = family.map(|family| WireguardSocket { socket, family });
        }
        Ok(self.generic.as_mut())
    }

    /// Sets the devices' keys, ports and peers where they differ.
    pub(super) fn sync_wireguard(&mut self, wanted: &OverlayState, report: &mut OverlayReport) {
        for device in &wanted.devices {
            let peers = wanted.wireguard_of(&device.name);
            if let Err(e) = self.sync_tunnel(device, peers, wanted.partial, report) {
                report.refused.push((OverlaySubject::Device(device.name.clone()), e));
            }
        }
    }

    /// What a device has, and the steps to the wanted peers. `partial`: others stay. `None`: this
    /// kernel has no WireGuard, so the device could not be made, which was said.
    pub(super) fn plan_tunnel<'a>(
        &mut self,
        name: &IfName,
        peers: impl Iterator<Item = &'a WireguardPeer>,
        partial: bool,
    ) -> Result<Option<(HeldTunnel, PeerPlan)>, DataplaneError> {
        let Some(generic) = self.wireguard()? else { return Ok(None) };
        let dump = generic.socket.dump_raw(generic.family, &wireguard::get_device(name));
        let dump = dump.map_err(failed(format!("{name}: reading its peers")))?;
        let held = wireguard::read_device(&dump);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs().cast_signed());
        let mut plan = plan_peers(peers, &held, now);
        if partial {
            plan.remove.clear();
        }
        Ok(Some((held, plan)))
    }

    fn sync_tunnel<'a>(
        &mut self,
        device: &OverlayDevice,
        peers: impl Iterator<Item = &'a WireguardPeer>,
        partial: bool,
        report: &mut OverlayReport,
    ) -> Result<(), DataplaneError> {
        let name = &device.name;
        let DeviceKind::Wireguard { private_key: key, port } = &device.kind else { return Ok(()) };
        let Some((held, plan)) = self.plan_tunnel(name, peers, partial)? else { return Ok(()) };
        if device_difference(name, &held, key, *port).is_some() {
            let what = format!("{name}: set the key and the port {port}");
            let request = wireguard::set_device(name, clamped(key.0), *port);
            let Some(generic) = self.wireguard()? else { return Ok(()) };
            if let Err(refusal) = generic.one(&request, &what)? {
                return Err(self.refused_device(device, what, &refusal));
            }
            report.repairs.push(Repair { kind: RepairKind::OverlayDevice, detail: what });
        }
        for (key, net) in plan.refused {
            let operation = format!("{name}: lead {net} to a peer");
            let errno = "another peer claims the same".into();
            let error = DataplaneError::Kernel { operation, errno };
            report.refused.push((OverlaySubject::Peer(name.clone(), key), error));
        }
        let mut requests = Vec::new();
        for (peer, keep_endpoint) in &plan.set {
            let body = wireguard::set_peer(name, peer, *keep_endpoint);
            requests.push(Request { name, key: peer.public_key, body, remove: false });
        }
        for key in plan.remove {
            let body = wireguard::remove_peer(name, key);
            requests.push(Request { name, key, body, remove: true });
        }
        match self.wireguard()? {
            Some(generic) => generic.send(&requests, report),
            None => Ok(()),
        }
    }

    /// Sets and removes single peers.
    pub(super) fn change_wireguard(
        &mut self,
        change: &OverlayChange,
        report: &mut OverlayReport,
    ) -> Result<(), DataplaneError> {
        if change.set_wireguard.is_empty() && change.remove_wireguard.is_empty() {
            return Ok(());
        }
        let set: HashSet<_> =
            change.set_wireguard.iter().map(|(name, peer)| (name, peer.public_key)).collect();
        let mut requests = Vec::new();
        for (name, peer) in &change.set_wireguard {
            let body = wireguard::set_peer(name, peer, false);
            requests.push(Request { name, key: peer.public_key, body, remove: false });
        }
        for (name, key) in &change.remove_wireguard {
            if !set.contains(&(name, *key)) {
                let body = wireguard::remove_peer(name, *key);
                requests.push(Request { name, key: *key, body, remove: true });
            }
        }
        if let Some(generic) = self.wireguard()? {
            return generic.send(&requests, report);
        }
        for request in requests.into_iter().filter(|request| !request.remove) {
            let subject = OverlaySubject::Peer(request.name.clone(), request.key);
            report.refused.push((subject, no_wireguard()));
        }
        Ok(())
    }
}

fn no_wireguard() -> DataplaneError {
    DataplaneError::Unsupported {
        what: "devices of kind wireguard (kernel module wireguard)".into(),
        hint: "netd's tunnel process does WireGuard without it".into(),
    }
}
