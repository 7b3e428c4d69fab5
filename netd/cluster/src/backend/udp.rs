//! `udp`: one IP packet a datagram, in the tunnel process.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{Backend, LocalPlan, PeerPlan, PeerProblem, reach};
use crate::{Family, Lease, LeaseAttrs, Local};
use netd_domain::{
    IfName,
    overlay::{DeviceKind, OverlayDevice, TunnelDevice, TunnelKind, TunnelPeer, UdpPeer},
};

/// IPv4 20, UDP 8.
const OVERHEAD_V4: u32 = 28;
/// IPv6 40, UDP 8.
const OVERHEAD_V6: u32 = 48;

#[derive(Debug)]
pub(super) struct Udp {
    pub port: u16,
}

fn device() -> Result<IfName, PeerProblem> {
    reach::device("flannel0".to_owned())
}

impl Backend for Udp {
    fn announce(&self, local: &Local) -> LeaseAttrs {
        // The type is left out, as by flannel.
        match reach::outer(local, Family::V4) {
            Ok(Family::V6) => LeaseAttrs { public_v6: local.public_v6, ..LeaseAttrs::default() },
            _ => LeaseAttrs { public_v4: local.public_v4, ..LeaseAttrs::default() },
        }
    }

    fn local(&self, local: &Local) -> Result<LocalPlan, PeerProblem> {
        let outer = reach::outer(local, Family::V4)?;
        let overhead = if outer == Family::V4 { OVERHEAD_V4 } else { OVERHEAD_V6 };
        let worst = if local.cluster.v6.is_some() { Family::V6 } else { Family::V4 };
        let mtu = reach::inner_mtu(local.underlay.mtu, overhead, worst)?;
        let name = device()?;
        let mut objects: Vec<_> = reach::blackholes(local).collect();
        for family in local.cluster.families() {
            objects.extend(reach::whole(local, family, &name));
        }
        let addresses = reach::addresses(local, local.cluster.families());
        let listen = vec![SocketAddr::new(reach::source(local, outer)?, self.port)];
        let tunnel = TunnelDevice { name: name.clone(), mtu, kind: TunnelKind::Udp { listen } };
        let device = OverlayDevice { name, mtu, addresses, kind: DeviceKind::Tun };
        let (devices, tunnels) = (vec![device], vec![tunnel]);
        Ok(LocalPlan { devices, tunnels, objects, mtu, ..LocalPlan::default() })
    }

    fn peer(&self, local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem> {
        // Reservations are routed to, as by flannel: nothing tells them from leases here.
        if lease.attrs.backend_type.is_some() {
            reach::is_of(lease, "udp")?;
        }
        if lease.reservation && lease.attrs.public_v4.is_none() && lease.attrs.public_v6.is_none() {
            return Ok(PeerPlan::default());
        }
        let outer = reach::outer(local, Family::V4)?;
        let endpoint = SocketAddr::new(reach::remote(local, lease, outer)?, self.port);
        let subnets: BTreeSet<_> = reach::subnets(local, lease).map(|(_, s)| s).collect();
        let peer = TunnelPeer::Udp(device()?, UdpPeer { endpoint, subnets });
        Ok(PeerPlan { tunnels: vec![peer], ..PeerPlan::default() })
    }
}
