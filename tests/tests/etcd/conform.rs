//! The suite that every store passes.

// Panicking is how a check fails.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use anyhow::Result;
use netd_store::{
    LeaseStore, Store,
    conformance::{self, Subject},
};
use testbed::{block_on, case, etcd::EtcdCluster};

struct OnEtcd {
    cluster: EtcdCluster,
}

#[async_trait::async_trait]
impl Subject for OnEtcd {
    async fn store(&self) -> Arc<dyn Store> {
        super::open(&self.cluster).unwrap()
    }

    async fn compact(&self, _store: &Arc<dyn Store>) {
        // etcd keeps the revision itself that it compacts at.
        self.cluster.ctl(&["put", "/elsewhere", "1"]).unwrap();
        self.cluster.compact().unwrap();
    }
}

fn conforms(members: usize) -> Result<()> {
    case(|bed| {
        let cluster = EtcdCluster::start(&bed.directory().join("etcd"), members)?;
        let subject = OnEtcd { cluster };
        block_on(conformance::run(&subject));
        let store: Arc<dyn LeaseStore> = super::open(&subject.cluster)?;
        block_on(conformance::run_leases(&store));
        Ok(())
    })
}

#[test]
fn one_member_conforms() -> Result<()> {
    conforms(1)
}

#[test]
fn three_members_conform() -> Result<()> {
    conforms(3)
}
