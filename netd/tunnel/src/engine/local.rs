//! This node's subnets, and which packets they let in.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::table::Table;

/// This node's subnets.
#[derive(Debug, Default)]
pub(super) struct Local(ArcSwap<Table<()>>);

impl Local {
    pub(super) fn new(nets: &[IpNet]) -> Self {
        let local = Self::default();
        local.set(nets);
        local
    }

    pub(super) fn set(&self, nets: &[IpNet]) {
        self.0.store(Arc::new(nets.iter().map(|net| (*net, ())).collect()));
    }

    /// For a batch.
    pub(super) fn load(&self) -> Arc<Table<()>> {
        self.0.load_full()
    }
}

/// Whether a peer may send to `destination`: into this node's subnets, or, if they are
/// not known, to whatever is no peer's. Nobody sends to a third node through this one.
pub(super) fn accepts<T>(local: &Table<()>, peers: &Table<T>, destination: IpAddr) -> bool {
    match local.is_empty() {
        true => peers.find(destination).is_none(),
        false => local.find(destination).is_some(),
    }
}
