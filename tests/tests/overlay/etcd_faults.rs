//! What becomes of pods when etcd does: nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Bed, Cluster, Plan, Sandbox, case,
    cluster::{Families, traffic::AllPairs},
    wait,
};

use super::{SOON, backend, pings};

/// Packets a second and way.
const RATE: u32 = 50;
const LEASE: Duration = Duration::from_secs(5);

fn plan() -> Plan {
    Plan::new(Families::V4, backend("vxlan")).overlay("lease_ttl = \"5s\"")
}

fn started(bed: &Bed, plan: &Plan) -> Result<(Cluster, Vec<Sandbox>, AllPairs)> {
    let cluster = Cluster::start(bed, plan)?;
    let pods = cluster.pods()?;
    let traffic = AllPairs::start(&pods.iter().collect::<Vec<_>>(), RATE)?;
    Ok((cluster, pods, traffic))
}

/// All know all again, nobody has two nodes' subnet, and each has what it had.
fn as_before(cluster: &Cluster, before: &[Vec<String>]) -> Result<()> {
    cluster.wait_converged()?;
    ensure!(subnets(cluster)? == before, "{:?}, not {before:?}", subnets(cluster)?);
    cluster.check_nobody_shares()?;
    let leases = wait::until(SOON, "all leases are there", || {
        let leases = cluster.check_no_subnet_twice()?;
        ensure!(leases == before.len(), "{leases} leases");
        Ok(leases)
    })?;
    ensure!(leases.0 == before.len());
    Ok(())
}

fn subnets(cluster: &Cluster) -> Result<Vec<Vec<String>>> {
    cluster.nodes.iter().map(|node| node.subnets()).collect()
}

/// A pod that is made now is reached from all nodes.
fn new_pod_is_reached(cluster: &Cluster, pods: &[Sandbox], name: &str) -> Result<()> {
    let node = cluster.nodes.first().context("no node")?;
    let fresh = Sandbox::attached(&node.host, name)?;
    for pod in pods.iter().skip(1) {
        pings(pod, &fresh)?;
    }
    fresh.del(&node.host)
}

#[test]
fn a_member_and_then_the_leader_are_killed() -> Result<()> {
    case(|bed| {
        let (mut cluster, pods, traffic) = started(bed, &plan().three_members())?;
        let before = subnets(&cluster)?;
        let leader = cluster.etcd.leader()?;
        let other = (leader + 1) % 3;
        cluster.etcd.kill(other)?;
        wait::pause(Duration::from_secs(2));
        new_pod_is_reached(&cluster, &pods, "one")?;
        cluster.etcd.start_member(other)?;
        cluster.etcd.wait_healthy()?;
        cluster.etcd.kill(leader)?;
        // A new node gets its subnet from who is left.
        let start = Instant::now();
        cluster.join(bed)?;
        cluster.wait_converged()?;
        println!("a node joined {:.1?} after the leader's death", start.elapsed());
        new_pod_is_reached(&cluster, &pods, "two")?;
        // More than a lease after its death.
        wait::pause(LEASE + Duration::from_secs(1));
        cluster.etcd.start_member(leader)?;
        cluster.etcd.wait_healthy()?;
        traffic.finish_without_loss("a member and the leader were killed")?;
        cluster.nodes.pop();
        wait::until(Duration::from_secs(20), "the fourth is gone", || {
            ensure!(cluster.leases()?.len() == 3);
            Ok(())
        })?;
        as_before(&cluster, &before)
    })
}

#[test]
fn etcd_is_down_for_longer_than_the_leases() -> Result<()> {
    case(|bed| {
        let (mut cluster, pods, traffic) = started(bed, &plan())?;
        let before = subnets(&cluster)?;
        cluster.etcd.kill(0)?;
        wait::pause(2 * LEASE);
        for node in &cluster.nodes {
            let listed = node.listed()?;
            ensure!(listed.behind_since > 0 && listed.nodes.len() == 3, "{listed:?}");
            let status = node.netd.status()?;
            ensure!(status.ready, "what is known is in force: {:?}", status.components);
            ensure!(node.problem("etcd")?.contains("behind since"), "{}", node.problem("etcd")?);
        }
        new_pod_is_reached(&cluster, &pods, "meanwhile")?;
        // A netd that starts meanwhile knows what it knew.
        let node = cluster.nodes.get_mut(1).context("no node")?;
        node.netd.kill9()?;
        node.netd.restart()?;
        ensure!(node.listed()?.nodes.len() == 3, "{:?}", node.listed()?);
        new_pod_is_reached(&cluster, &pods, "again")?;
        cluster.etcd.start_member(0)?;
        cluster.etcd.wait_healthy()?;
        let back = Instant::now();
        as_before(&cluster, &before)?;
        println!("all as before {:.1?} after etcd was back", back.elapsed());
        wait::until(SOON, "nobody is behind", || {
            for node in &cluster.nodes {
                ensure!(node.listed()?.behind_since == 0, "{:?}", node.problem("etcd")?);
            }
            Ok(())
        })?;
        wait::pause(Duration::from_secs(1));
        as_before(&cluster, &before)?;
        traffic.finish_without_loss("etcd was down for two leases")
    })
}

/// The store goes on without them, so that their leases really end there.
#[test]
fn all_nodes_are_cut_off_from_etcd_until_their_leases_have_ended() -> Result<()> {
    case(|bed| {
        let (cluster, pods, traffic) = started(bed, &plan())?;
        let before = subnets(&cluster)?;
        cluster.nodes.iter().try_for_each(|node| node.cut_from_etcd())?;
        wait::until(Duration::from_secs(20), "all leases have ended", || {
            let leases = cluster.leases()?;
            ensure!(leases.is_empty(), "{leases:?}");
            Ok(())
        })?;
        new_pod_is_reached(&cluster, &pods, "meanwhile")?;
        cluster.nodes.iter().try_for_each(|node| node.heal())?;
        let back = Instant::now();
        as_before(&cluster, &before)?;
        println!("all as before {:.1?} after etcd was back", back.elapsed());
        wait::pause(Duration::from_secs(1));
        as_before(&cluster, &before)?;
        traffic.finish_without_loss("all leases ended")
    })
}

/// For less than its lease: its peers can't see anything. For longer, they take it for
/// dead; when it is back, it has what it had.
#[test]
fn one_node_is_cut_off_from_etcd_and_history_is_compacted_meanwhile() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::V4, backend("vxlan")).overlay("lease_ttl = \"20s\"");
        let (mut cluster, pods, traffic) = started(bed, &plan)?;
        let before = subnets(&cluster)?;
        let cut = cluster.nodes.get(2).context("no node")?;
        cut.cut_from_etcd()?;
        wait::pause(Duration::from_secs(1));
        let fresh = Sandbox::attached(&cut.host, "fresh")?;
        pings(pods.first().context("no pod")?, &fresh)?;
        // Things it misses, and that it can't read up.
        cluster.join(bed)?;
        cluster.etcd.ctl(&["put", "/other", "1"])?;
        cluster.etcd.compact()?;
        let cut = cluster.nodes.get(2).context("no node")?;
        wait::until(SOON, "it knows that it is behind", || {
            ensure!(cut.listed()?.behind_since > 0, "{:?}", cut.listed()?);
            Ok(())
        })?;
        ensure!(cut.listed()?.nodes.len() == 3, "{:?}", cut.listed()?);
        cut.heal()?;
        let back = Instant::now();
        cluster.wait_converged()?;
        println!("it knows what it missed {:.1?} after it was back", back.elapsed());
        ensure!(subnets(&cluster)?.starts_with(&before), "{:?}", subnets(&cluster)?);
        // What was attached meanwhile is published.
        let first = cluster.nodes.first().context("no node")?;
        wait::until(SOON, "the pod is known to others", || {
            let route = first.route(fresh.v4()?)?;
            let pod = route.endpoint.clone().with_context(|| format!("{route:?}"))?;
            ensure!(pod.sandbox_id == fresh.id, "{route:?}");
            Ok(())
        })?;
        traffic.finish_without_loss("a node was cut off")?;
        cluster.check_no_subnet_twice()?;
        cluster.check_nobody_shares()
    })
}

/// Revisions go back, and a lease that was made since is not in the copy.
#[test]
fn a_snapshot_is_restored() -> Result<()> {
    case(|bed| {
        let plan =
            Plan::new(Families::V4, backend("vxlan")).overlay("lease_ttl = \"30s\"").nodes(2);
        let mut cluster = Cluster::start(bed, &plan)?;
        let file = bed.directory().join("snapshot");
        cluster.etcd.snapshot(&file)?;
        cluster.join(bed)?;
        cluster.wait_converged()?;
        // Time passes: the revisions that the nodes know do not exist in the copy.
        for _ in 0..20 {
            cluster.etcd.ctl(&["put", "/other", "1"])?;
        }
        let before = subnets(&cluster)?;
        let pods = cluster.pods()?;
        let traffic = AllPairs::start(&pods.iter().collect::<Vec<_>>(), RATE)?;
        let revision = cluster.etcd.revision(0)?;
        cluster.etcd.restore(&file)?;
        ensure!(cluster.etcd.revision(0)? < revision, "revisions did not go back");
        let back = Instant::now();
        as_before(&cluster, &before)?;
        println!("all as before {:.1?} after the restored etcd was there", back.elapsed());
        // It goes on from there: a change is seen.
        cluster.join(bed)?;
        cluster.wait_converged()?;
        wait::pause(Duration::from_secs(1));
        traffic.finish_without_loss("a snapshot was restored")?;
        cluster.check_nobody_shares()
    })
}
