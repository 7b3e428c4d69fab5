//! `alloc`: subnets are given out; whoever wants routes makes them.

use super::{Backend, LocalPlan, PeerPlan, PeerProblem, reach};
use crate::{Family, Lease, LeaseAttrs, Local};

#[derive(Debug)]
pub(super) struct Alloc;

impl Backend for Alloc {
    fn announce(&self, local: &Local) -> LeaseAttrs {
        let v6 = local.cluster.network(Family::V6).is_some();
        LeaseAttrs {
            public_v4: local.public_v4,
            public_v6: local.public_v6.filter(|_| v6),
            ..LeaseAttrs::default()
        }
    }

    fn local(&self, local: &Local) -> Result<LocalPlan, PeerProblem> {
        let objects = reach::blackholes(local).collect();
        Ok(LocalPlan { objects, mtu: local.underlay.mtu, ..LocalPlan::default() })
    }

    fn peer(&self, _local: &Local, _lease: &Lease) -> Result<PeerPlan, PeerProblem> {
        Ok(PeerPlan::default())
    }
}
