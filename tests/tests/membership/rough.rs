//! What can happen to an etcd of three members.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use netd_cluster::flannel;
use testbed::{block_on, case, etcd::EtcdCluster};
use tokio::time::sleep;

use super::node::{Node, attrs, converge, ensure_unharmed};

const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
const TTL: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(30);
/// A lease of flannel's, and a reservation.
const OTHERS: [&str; 2] = ["10.5.200.0-24", "10.5.201.0-24"];

async fn nodes(etcd: &EtcdCluster, dir: &Path, numbers: std::ops::Range<u8>) -> Result<Vec<Node>> {
    let mut nodes = vec![];
    for n in numbers {
        nodes.push(Node::start(etcd, dir, n, TTL).await?);
    }
    Ok(nodes)
}

fn prepare(etcd: &EtcdCluster) -> Result<()> {
    etcd.ctl(&["put", "/coreos.com/network/config", CONFIG])?;
    // `lease 694d... granted with TTL(86400s)`
    let granted = etcd.ctl(&["lease", "grant", "86400"])?;
    let lease = granted.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let key = |name: &str| format!("/coreos.com/network/subnets/{name}");
    let value = |ip: &str| anyhow::Ok(flannel::value::format(&attrs(ip)?));
    etcd.ctl(&["put", &key(OTHERS[0]), &value("192.0.2.200")?, &format!("--lease={lease}")])?;
    etcd.ctl(&["put", &key(OTHERS[1]), &value("192.0.2.201")?])?;
    Ok(())
}

/// Members lost, the leader lost, history compacted, all lost for longer than the leases.
#[test]
fn what_is_known_stays_while_etcd_is_in_trouble() -> Result<()> {
    case(|bed| {
        let mut etcd = EtcdCluster::start(&bed.directory().join("etcd"), 3)?;
        prepare(&etcd)?;
        block_on(async {
            let mut nodes = nodes(&etcd, bed.directory(), 1..9).await?;
            let took = converge(&nodes, &OTHERS, SOON).await?;
            println!("8 nodes have a subnet and know each other after {took:?}");
            let had: Vec<_> = nodes.iter().map(Node::own).collect();

            let leader = etcd.leader()?;
            etcd.kill(leader)?;
            sleep(TTL * 2).await;
            ensure_unharmed(&nodes, &had)?;
            etcd.start_member(leader)?;
            etcd.wait_healthy()?;
            etcd.compact()?;
            sleep(Duration::from_secs(1)).await;
            ensure_unharmed(&nodes, &had)?;

            for member in 0..3 {
                etcd.kill(member)?;
            }
            sleep(TTL * 2).await;
            ensure!(nodes.iter().all(|n| n.membership.status().behind.is_some()));
            // A node that starts now knows as much.
            let old = nodes.remove(0);
            old.membership.stop().await;
            nodes.insert(0, Node::start(&etcd, bed.directory(), 1, TTL).await?);
            sleep(Duration::from_secs(1)).await;
            ensure_unharmed(&nodes, &had)?;
            ensure!(nodes[0].told.lock().peers.len() == 7 + OTHERS.len());

            for member in 0..3 {
                etcd.start_member(member)?;
            }
            etcd.wait_healthy()?;
            let took = converge(&nodes, &OTHERS, SOON).await?;
            println!("caught up {took:?} after etcd was healthy");
            sleep(TTL * 2).await;
            converge(&nodes, &OTHERS, SOON).await?;
            ensure_unharmed(&nodes, &had)
        })
    })
}

/// Restored from a snapshot: what was given out since is claimed again, and no two nodes
/// have one subnet.
#[test]
fn a_restored_etcd_learns_what_it_forgot() -> Result<()> {
    case(|bed| {
        let mut etcd = EtcdCluster::start(&bed.directory().join("etcd"), 3)?;
        prepare(&etcd)?;
        block_on(async {
            let mut all = nodes(&etcd, bed.directory(), 1..5).await?;
            converge(&all, &OTHERS, SOON).await?;
            let file = bed.directory().join("snapshot");
            etcd.snapshot(&file)?;
            // These are not in the snapshot.
            all.extend(nodes(&etcd, bed.directory(), 5..9).await?);
            all[0].membership.more()?;
            all[1].membership.announce(attrs("192.0.2.77")?);
            converge(&all, &OTHERS, SOON).await?;
            for _ in 0..100 {
                if all[0].own().len() == 2 {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
            converge(&all, &OTHERS, SOON).await?;
            let had: Vec<_> = all.iter().map(Node::own).collect();

            etcd.restore(&file)?;
            let took = converge(&all, &OTHERS, SOON).await?;
            println!("converged {took:?} after the restored etcd was healthy");
            sleep(TTL * 2).await;
            converge(&all, &OTHERS, SOON).await?;
            let name = had[1].first().map(flannel::key::name).unwrap_or_default();
            let seen = all[7].told.lock().peers.get(&name).cloned();
            ensure!(seen == Some(attrs("192.0.2.77")?), "{seen:?}");
            ensure_unharmed(&all, &had)
        })
    })
}

/// A node that stops for good is forgotten after its time, and only it.
#[test]
fn a_dead_node_is_removed_when_its_lease_ends() -> Result<()> {
    case(|bed| {
        let etcd = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        prepare(&etcd)?;
        block_on(async {
            let mut all = nodes(&etcd, bed.directory(), 1..5).await?;
            converge(&all, &OTHERS, SOON).await?;
            let dead = all.remove(0);
            let had = dead.own();
            dead.membership.stop().await;
            let took = converge(&all, &OTHERS, TTL * 4).await?;
            println!("removed {took:?} after its end, with leases of {TTL:?}");
            all.insert(0, Node::start(&etcd, bed.directory(), 1, TTL).await?);
            converge(&all, &OTHERS, SOON).await?;
            ensure!(all[0].own() == had, "it has another subnet");
            Ok(())
        })
    })
}
