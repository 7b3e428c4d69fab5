//! `ipip`: IPv4 in IPv4 (RFC 2003).

use std::net::IpAddr;

use super::{Backend, LocalPlan, PeerPlan, PeerProblem, reach};
use crate::{Family, Lease, LeaseAttrs, Local};
use netd_domain::{
    IfName,
    overlay::{DeviceKind, Hop, OverlayDevice},
};

/// The outer IPv4 header.
const OVERHEAD: u32 = 20;

#[derive(Debug)]
pub(super) struct Ipip {
    pub direct_routing: bool,
}

fn device() -> Result<IfName, PeerProblem> {
    reach::device("flannel.ipip".to_owned())
}

impl Backend for Ipip {
    fn announce(&self, local: &Local) -> LeaseAttrs {
        LeaseAttrs {
            public_v4: local.public_v4,
            backend_type: Some("ipip".to_owned()),
            ..LeaseAttrs::default()
        }
    }

    fn local(&self, local: &Local) -> Result<LocalPlan, PeerProblem> {
        if local.cluster.v6.is_some() {
            let problem = "true, but ipip carries IPv4 only; take another backend for IPv6";
            return Err(PeerProblem::new("EnableIPv6", problem));
        }
        let IpAddr::V4(source) = reach::source(local, Family::V4)? else {
            return Err(PeerProblem::new("PublicIP", "this node has no IPv4 address"));
        };
        let mtu = reach::inner_mtu(local.underlay.mtu, OVERHEAD, Family::V4)?;
        let underlay = local.underlay.device.clone();
        let device = OverlayDevice {
            name: device()?,
            mtu,
            addresses: reach::addresses(local, std::iter::once(Family::V4)),
            kind: DeviceKind::Ipip { local: source, underlay },
        };
        let objects = reach::blackholes(local).collect();
        Ok(LocalPlan { devices: vec![device], objects, mtu, ..LocalPlan::default() })
    }

    fn peer(&self, local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem> {
        let mut objects = vec![];
        if !reach::is_of(lease, "ipip")? {
            return Ok(PeerPlan::default());
        }
        if let Some(subnet) = lease.subnets.of(Family::V4) {
            let gateway = reach::remote(local, lease, Family::V4)?;
            if self.direct_routing && local.underlay.reaches(gateway) {
                objects.push(reach::direct(local, subnet, gateway));
            } else {
                // The next hop is the remote of the outer header.
                let hop = Hop::Via { gateway, device: device()?, onlink: true };
                objects.push(reach::route(subnet, hop));
            }
        }
        Ok(PeerPlan { objects, ..PeerPlan::default() })
    }
}
