//! `wireguard`: the kernel's device, or the same tunnel in the tunnel process.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Backend, LocalPlan, PeerPlan, PeerProblem, reach};
use crate::{Family, Lease, LeaseAttrs, Local, WireguardMode, flannel::value::WireguardData};
use netd_domain::{
    IfName,
    overlay::{
        DeviceKind, OverlayDevice, SecretKey, TunnelDevice, TunnelKind, TunnelPeer, WireguardPeer,
    },
};

/// IPv6 40, UDP 8, WireGuard 32: the same over IPv4, where 20 are left over, as flannel has it.
const OVERHEAD: u32 = 80;

/// UDP ports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// Of `flannel-wg`.
    pub v4: u16,
    /// Of `flannel-wg-v6`.
    pub v6: u16,
}

#[derive(Debug)]
pub(super) struct Wireguard {
    pub mode: WireguardMode,
    pub preshared_key: Option<SecretKey>,
    pub ports: Ports,
    pub mtu: Option<u32>,
    pub keepalive: u16,
}

/// The public half of an X25519 key.
fn public_key(private: &SecretKey) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(private.0)).to_bytes()
}

/// An address that is not routed on the internet.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

fn key_field(family: Family) -> &'static str {
    match family {
        Family::V4 => "BackendData.PublicKey",
        Family::V6 => "BackendV6Data.PublicKey",
    }
}

const DEVICE: &str = "flannel-wg";
const DEVICE_V6: &str = "flannel-wg-v6";

/// The devices of the backend, whichever of them a mode has.
pub fn wireguard_devices() -> impl Iterator<Item = IfName> {
    [DEVICE, DEVICE_V6].into_iter().filter_map(|name| name.parse().ok())
}

impl Wireguard {
    fn separate(&self) -> bool {
        self.mode == WireguardMode::Separate
    }

    /// The device that pods' packets of a family go over, and its port.
    fn device(&self, pods: Family) -> Result<(IfName, u16), PeerProblem> {
        match pods {
            Family::V6 if self.separate() => {
                Ok((reach::device(DEVICE_V6.to_owned())?, self.ports.v6))
            }
            _ => Ok((reach::device(DEVICE.to_owned())?, self.ports.v4)),
        }
    }

    /// Each device with what goes over it.
    fn devices(&self, local: &Local) -> Vec<Vec<Family>> {
        let families: Vec<_> = local.cluster.families().collect();
        if self.separate() {
            families.into_iter().map(|f| vec![f]).collect()
        } else {
            vec![families]
        }
    }

    /// Over which family to reach a peer.
    fn outer(&self, local: &Local, lease: &Lease, pods: Family) -> Family {
        let both = |f: Family| lease.attrs.public(f).is_some() && local.public(f).is_some();
        let first = match self.mode {
            WireguardMode::Separate => pods,
            WireguardMode::Ipv4 => return Family::V4,
            WireguardMode::Ipv6 => return Family::V6,
            WireguardMode::Auto => self.likelier(local, lease),
        };
        if !both(first) && both(first.other()) { first.other() } else { first }
    }

    /// flannel's choice for a peer that has both: what more likely gets through.
    fn likelier(&self, local: &Local, lease: &Lease) -> Family {
        let routed = |ip: Option<IpAddr>| ip.is_some_and(|ip| !is_private(ip));
        let (v4, v6) = (lease.attrs.public(Family::V4), lease.attrs.public(Family::V6));
        if routed(v4) && local.public_v4.is_some() {
            return Family::V4;
        }
        if routed(v6) && routed(local.public(Family::V6)) {
            return Family::V6;
        }
        Family::V4
    }

    fn endpoint(
        &self,
        local: &Local,
        lease: &Lease,
        pods: Family,
    ) -> Result<SocketAddr, PeerProblem> {
        let outer = self.outer(local, lease, pods);
        let ip = reach::remote_behind_router(lease, outer)?;
        let (_, own_port) = self.device(pods)?;
        let announced = if self.separate() { pods } else { outer };
        // One device, one port: a lease with one family's data says it there.
        let port = [announced, announced.other()]
            .into_iter()
            .filter(|f| *f == announced || !self.separate())
            .find_map(|f| WireguardData::read(&lease.attrs, f).ok()?.port)
            .unwrap_or(own_port);
        // Nodes behind one router have one address and a port each.
        if local.is_own(ip) && port == own_port {
            return Err(reach::own_address(ip));
        }
        Ok(SocketAddr::new(ip, port))
    }

    fn peer_over(
        &self,
        local: &Local,
        lease: &Lease,
        over: &[(Family, IpNet)],
    ) -> Result<Option<TunnelPeer>, PeerProblem> {
        // With one device for both, IPv6's data counts, as with flannel; they are the same.
        let Some((pods, _)) = over.last() else { return Ok(None) };
        let data = WireguardData::read(&lease.attrs, *pods)?;
        if data.public_key == public_key(&local.identity.wireguard) {
            return Err(PeerProblem::new(
                key_field(*pods),
                "this node's own key: two nodes have it, or the lease is a former one of this \
                 node, which ends by itself",
            ));
        }
        let peer = WireguardPeer {
            public_key: data.public_key,
            endpoint: self.endpoint(local, lease, *pods)?,
            allowed: over.iter().map(|(_, subnet)| *subnet).collect::<BTreeSet<_>>(),
            preshared_key: self.preshared_key.clone(),
            keepalive: self.keepalive,
        };
        Ok(Some(TunnelPeer::Wireguard(self.device(*pods)?.0, peer)))
    }

    /// Where the tunnel process listens, if it is to.
    fn listen(&self, families: &[Family], port: u16) -> Vec<SocketAddr> {
        let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let v6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        match (self.mode, families) {
            (WireguardMode::Ipv4, _) => vec![v4],
            (WireguardMode::Ipv6, _) => vec![v6],
            _ => vec![v4, v6],
        }
    }

    fn plan_device(
        &self,
        local: &Local,
        families: &[Family],
        plan: &mut LocalPlan,
    ) -> Result<(), PeerProblem> {
        let Some(last) = families.last() else { return Ok(()) };
        self.check_public(local, *last)?;
        let under = self.mtu.unwrap_or(local.underlay.mtu);
        let mtu = reach::inner_mtu(under, OVERHEAD, *last)?;
        let (name, port) = self.device(*last)?;
        let private_key = local.identity.wireguard.clone();
        let kind = if local.kernel_wireguard {
            DeviceKind::Wireguard { private_key, port }
        } else {
            let kind = TunnelKind::Wireguard {
                private_key,
                listen: self.listen(families, port),
                preshared_key: self.preshared_key.clone(),
                keepalive: self.keepalive,
            };
            plan.tunnels.push(TunnelDevice { name: name.clone(), mtu, kind });
            DeviceKind::Tun
        };
        for family in families {
            plan.objects.extend(reach::whole(local, *family, &name));
        }
        let addresses = reach::addresses(local, families.iter().copied());
        plan.devices.push(OverlayDevice { name, mtu, addresses, kind });
        plan.mtu = plan.mtu.min(mtu);
        Ok(())
    }

    /// That peers can send to this node over what they will take.
    fn check_public(&self, local: &Local, pods: Family) -> Result<(), PeerProblem> {
        let family = match self.mode {
            WireguardMode::Ipv4 => Family::V4,
            WireguardMode::Ipv6 => Family::V6,
            _ => return reach::outer(local, pods).map(|_| ()),
        };
        reach::source(local, family).map(|_| ())
    }
}

impl Backend for Wireguard {
    fn announce(&self, local: &Local) -> LeaseAttrs {
        let public_key = public_key(&local.identity.wireguard);
        let data = |pods: Family| {
            let port = self.device(pods).ok().map(|(_, port)| port);
            let there = local.cluster.network(pods).is_some();
            there.then(|| WireguardData { public_key, port }.json().into())
        };
        LeaseAttrs {
            public_v4: local.public_v4,
            public_v6: local.public_v6,
            backend_type: Some("wireguard".to_owned()),
            data_v4: data(Family::V4),
            data_v6: data(Family::V6),
        }
    }

    fn local(&self, local: &Local) -> Result<LocalPlan, PeerProblem> {
        let objects = reach::blackholes(local).collect();
        let mut plan = LocalPlan { objects, mtu: u32::MAX, ..LocalPlan::default() };
        for families in self.devices(local) {
            self.plan_device(local, &families, &mut plan)?;
        }
        Ok(plan)
    }

    fn peer(&self, local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem> {
        if !reach::is_of(lease, "wireguard")? {
            return Ok(PeerPlan::default());
        }
        let subnets: Vec<_> = reach::subnets(local, lease).collect();
        let mut tunnels = vec![];
        if self.separate() {
            for one in &subnets {
                tunnels.extend(self.peer_over(local, lease, std::slice::from_ref(one))?);
            }
        } else {
            tunnels.extend(self.peer_over(local, lease, &subnets)?);
        }
        Ok(PeerPlan { tunnels, ..PeerPlan::default() })
    }
}
