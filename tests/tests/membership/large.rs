//! 10,000 leases in etcd: requests, time and CPU.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netd_cluster::flannel;
use netd_store::{
    Change, LeaseStore as _, Store as _, Txn,
    etcd::{EtcdOptions, EtcdStore, Rpc},
    keys::ClusterKeys,
};
use testbed::{block_on, case, etcd::EtcdCluster};
use tokio::time::sleep;

use super::node::{Node, attrs};

const PEERS: usize = 10_000;
const CONFIG: &str = r#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;

async fn write_all(store: &EtcdStore, lease: i64) -> Result<()> {
    let numbers: Vec<usize> = (0..PEERS).collect();
    for chunk in numbers.chunks(100) {
        let put = |n: &usize| {
            let ip = format!("172.16.{}.{}", n / 256, n % 256);
            let name = format!("10.{}.{}.0-24", 100 + n / 256, n % 256);
            let value = flannel::value::format(&attrs(&ip)?).into_bytes();
            anyhow::Ok(Change::Put { key: ClusterKeys::default().lease(&name), value, lease })
        };
        let changes = chunk.iter().map(put).collect::<Result<Vec<_>>>()?;
        store.commit(Txn { compares: vec![], changes }).await?;
    }
    Ok(())
}

/// All requests of a kind that a store has made.
fn requests(store: &EtcdStore) -> Vec<(&'static str, u64)> {
    let all = Rpc::ALL.iter().map(|rpc| (rpc.name(), store.metrics().read(*rpc).count));
    all.filter(|(_, count)| *count > 0).collect()
}

fn cpu() -> Result<Duration> {
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    Ok(nix::time::clock_gettime(clock)?.into())
}

#[test]
fn ten_thousand_peers() -> Result<()> {
    case(|bed| {
        let etcd = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        etcd.ctl(&["put", "/coreos.com/network/config", CONFIG])?;
        block_on(async {
            let other = EtcdStore::open(EtcdOptions::new(etcd.endpoints()))?;
            let lease = other.grant(Duration::from_secs(3600)).await?;
            write_all(&other, lease).await?;

            let start = Instant::now();
            let node =
                Node::start(&etcd, bed.directory(), 1, Duration::from_secs(24 * 3600)).await?;
            while node.told.lock().peers.len() < PEERS {
                sleep(Duration::from_millis(1)).await;
            }
            let known = start.elapsed();
            while node.own().is_empty() {
                ensure!(start.elapsed() < Duration::from_secs(30), "no subnet");
                sleep(Duration::from_millis(1)).await;
            }
            println!("{PEERS} peers told after {known:?}, own subnet after {:?}", start.elapsed());
            sleep(Duration::from_secs(1)).await;
            let at_start = requests(&node.store);
            println!("requests at start: {at_start:?}");

            // flannel's renewals of all: nothing is asked, nothing is told.
            let lease = other.grant(Duration::from_secs(3600)).await?;
            let updates = node.told.lock().updates;
            let before = cpu()?;
            write_all(&other, lease).await?;
            sleep(Duration::from_secs(1)).await;
            println!(
                "{PEERS} renewals of flannel's, writing them included: {:?} CPU",
                cpu()? - before
            );
            ensure!(node.told.lock().updates == updates, "renewals were told");
            let quiet = |all: &[(&str, u64)]| {
                let asked =
                    all.iter().filter(|(name, _)| !["get", "progress", "status"].contains(name));
                asked.map(|(_, count)| count).sum::<u64>()
            };
            let now = requests(&node.store);
            ensure!(quiet(&now) == quiet(&at_start), "{at_start:?}, then {now:?}");
            node.membership.stop().await;
            Ok(())
        })
    })
}
