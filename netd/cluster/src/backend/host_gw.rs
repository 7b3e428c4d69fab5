//! `host-gw`: routes through the other nodes, which have to be on the same link.

use super::{Backend, LocalPlan, PeerPlan, PeerProblem, reach};
use crate::{Family, Lease, LeaseAttrs, Local};
use netd_domain::overlay::Hop;

#[derive(Debug)]
pub(super) struct HostGw;

impl Backend for HostGw {
    fn announce(&self, local: &Local) -> LeaseAttrs {
        let of = |family| local.cluster.network(family).is_some();
        LeaseAttrs {
            public_v4: local.public_v4.filter(|_| of(Family::V4)),
            public_v6: local.public_v6.filter(|_| of(Family::V6)),
            backend_type: Some("host-gw".to_owned()),
            ..LeaseAttrs::default()
        }
    }

    fn local(&self, local: &Local) -> Result<LocalPlan, PeerProblem> {
        for family in local.cluster.families() {
            let field = reach::public_field(family);
            let public = local.public(family).ok_or_else(|| {
                PeerProblem::new(field, format!("this node has no {family} address"))
            })?;
            if !local.underlay.addresses.iter().any(|net| net.addr() == public) {
                let device = &local.underlay.device;
                let problem = format!(
                    "{public} is not an address of {device}: host-gw doesn't work behind NAT"
                );
                return Err(PeerProblem::new(field, problem));
            }
            reach::inner_mtu(local.underlay.mtu, 0, family)?;
        }
        let objects = reach::blackholes(local).collect();
        Ok(LocalPlan { objects, mtu: local.underlay.mtu, ..LocalPlan::default() })
    }

    fn peer(&self, local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem> {
        let mut objects = vec![];
        if !reach::is_of(lease, "host-gw")? {
            return Ok(PeerPlan::default());
        }
        for (family, subnet) in reach::subnets(local, lease) {
            let gateway = reach::remote(local, lease, family)?;
            let onlink = lone(local, family);
            if !onlink && !local.underlay.reaches(gateway) {
                let device = &local.underlay.device;
                let problem = format!(
                    "{gateway} is not on the link of {device}, as host-gw needs it; \
                     take a backend with encapsulation for nodes on several links"
                );
                return Err(PeerProblem::new(reach::public_field(family), problem));
            }
            let device = local.underlay.device.clone();
            objects.push(reach::route(subnet, Hop::Via { gateway, device, onlink }));
        }
        Ok(PeerPlan { objects, ..PeerPlan::default() })
    }
}

/// Whether this node's address says nothing about its link (a /32, as some clouds give
/// them): peers are taken to be on it.
fn lone(local: &Local, family: Family) -> bool {
    let public = local.public(family);
    let own = local.underlay.addresses.iter().find(|net| Some(net.addr()) == public);
    own.is_some_and(|net| net.prefix_len() == net.max_prefix_len())
}
