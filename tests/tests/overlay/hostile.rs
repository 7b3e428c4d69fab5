//! What anybody may write into etcd: named with words, nobody else disturbed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Bed, Cluster, Plan, Sandbox, case,
    cluster::{
        Families,
        flannel::{self, FlannelNode},
        traffic::AllPairs,
    },
    net::probe,
    wait,
};

use super::{SOON, backend};

/// Keys and values that no node can make anything of, and a word of what is said.
fn nonsense(mac: &str) -> Vec<(&'static str, String, &'static str)> {
    let value =
        |ip: &str, rest: &str| format!("{{\"PublicIP\":\"{ip}\",\"BackendType\":\"vxlan\"{rest}}}");
    let vtep = |mac: &str| format!(",\"BackendData\":{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}");
    let good = vtep("02:00:00:00:77:01");
    vec![
        ("10.5.100.0-24", "{\"PublicIP\":\"192.0.2.7\",\"Back".into(), "JSON"),
        ("10.5.101.0-24", String::new(), "JSON"),
        ("10.5.102.0-24", "x".repeat(500_000), "bytes"),
        ("10.5.103.0-24", "[".repeat(50_000), "JSON"),
        ("10.5.104.0-24", "[1]".into(), "object"),
        ("10.5.105.0-24", value("300.1.1.1", &good), "PublicIP"),
        ("10.5.106.0-24", value("127.0.0.1", &good), "PublicIP"),
        ("10.5.107.0-24", value("224.0.0.1", &good), "PublicIP"),
        ("10.5.108.0-24", value("192.0.2.7", ",\"BackendData\":7"), "BackendData"),
        ("10.5.109.0-24", value("192.0.2.7", &vtep("02:00")), "VtepMAC"),
        ("10.5.110.0-24", value("192.0.2.7", ""), "BackendData"),
        ("10.5.111.0-24", value("192.0.2.7", &good.replace("VNI\":1", "VNI\":\"x\"")), "VNI"),
        ("10.5.112.0-24", value("192.0.2.7", &good).replace("vxlan", "magic"), "BackendType"),
        ("10.9.1.0-24", value("192.0.2.7", &good), "outside"),
        ("10.5.0.0-16", value("192.0.2.7", &good), "overlaps"),
        ("10.5.113.1-24", value("192.0.2.7", &good), "host bits"),
        ("10.5.114.0-99", value("192.0.2.7", &good), "10.5.114.0-99"),
        ("nonsense", value("192.0.2.7", &good), "nonsense"),
        ("10.5.115.0-24", value("192.0.2.7", &vtep(mac)), "VtepMAC"),
    ]
}

fn started(bed: &Bed) -> Result<(Cluster, Vec<Sandbox>)> {
    let cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")).nodes(2))?;
    let pods = cluster.pods()?;
    Ok((cluster, pods))
}

#[test]
fn each_bad_lease_is_named_and_disturbs_nobody() -> Result<()> {
    case(|bed| {
        let (cluster, pods) = started(bed)?;
        let traffic = AllPairs::start(&pods.iter().collect::<Vec<_>>(), 100)?;
        let other = flannel::mac_of(&cluster.nodes[1].host)?;
        let node = &cluster.nodes[0];
        let before = node.routes()?;
        for (name, value, word) in nonsense(&other) {
            put(&cluster, name, &value)?;
            wait::until(SOON, "it is named", || {
                let said = node.problem("overlay/leases")?;
                ensure!(
                    said.contains(name) && said.contains(word),
                    "{name}: no {word} in `{said}`"
                );
                Ok(())
            })?;
            ensure!(node.netd.status()?.ready, "{name} made it not ready");
            cluster.etcd.ctl(&["del", &flannel::lease_key(name)])?;
            wait::until(SOON, "it is forgotten", || {
                let said = node.problem("overlay/leases")?;
                ensure!(said.is_empty(), "{name}: {said}");
                Ok(())
            })?;
        }
        ensure!(node.routes()? == before, "routes changed:\n{before}\n{}", node.routes()?);
        // All at once, and a good one among them.
        let good = FlannelNode::vxlan(bed, "good", "10.5.77.0/24")?;
        for (name, value, _) in nonsense(&other) {
            put(&cluster, name, &value)?;
        }
        good.lease(&cluster.etcd)?;
        for (name, _, _) in nonsense(&other) {
            cluster.nodes[0].knows(name)?;
        }
        ensure!(good.follow_netd(&cluster)? == 2, "netd's own leases were changed");
        wait::until(SOON, "the good one is reached", || probe::ping(&pods[0].net, good.pod_ip))?;
        let table = node.netd.cli(&["node", "list"])?;
        for (name, _, _) in nonsense(&other) {
            let shown = name.replace('-', "/");
            ensure!(table.contains(name) || table.contains(&shown), "no {name} in\n{table}");
        }
        traffic.finish_without_loss("bad leases came and went")
    })
}

/// Too long for an argument of a program.
fn put(cluster: &Cluster, name: &str, value: &str) -> Result<()> {
    let key = flannel::lease_key(name);
    if value.len() < 100_000 {
        return cluster.etcd.ctl(&["put", &key, value]).map(drop);
    }
    cluster.etcd.put_long(&key, value)
}

#[test]
fn what_was_known_stays_when_a_good_lease_turns_bad() -> Result<()> {
    case(|bed| {
        let (cluster, pods) = started(bed)?;
        let peer = FlannelNode::vxlan(bed, "flannel", "10.5.77.0/24")?;
        peer.lease(&cluster.etcd)?;
        peer.follow(&cluster)?;
        wait::until(SOON, "it is reached", || probe::ping(&pods[0].net, peer.pod_ip))?;
        let key = flannel::lease_key("10.5.77.0-24");
        cluster.etcd.ctl(&["put", &key, "{\"PublicIP\":"])?;
        let node = &cluster.nodes[0];
        wait::until(SOON, "it is said", || {
            let known = node.knows("10.5.77.0/24")?.context("not listed")?;
            ensure!(known.problem.contains("can no longer be read"), "{known:?}");
            Ok(())
        })?;
        wait::pause(Duration::from_millis(500));
        probe::ping(&pods[0].net, peer.pod_ip).context("the lease before it is in force")?;
        peer.lease(&cluster.etcd)?;
        wait::until(SOON, "all is well again", || {
            let known = node.knows("10.5.77.0/24")?.context("not listed")?;
            ensure!(known.programmed, "{known:?}");
            Ok(())
        })?;
        Ok(())
    })
}

/// The older claim counts, and the node that lost takes another subnet, without an end.
#[test]
fn a_subnet_that_another_program_writes_over_is_given_up_for_another() -> Result<()> {
    case(|bed| {
        let (cluster, pods) = started(bed)?;
        let [one, two] = &cluster.nodes[..] else { return Ok(()) };
        let subnet = one.subnets()?.first().context("no subnet")?.clone();
        let name = subnet.replace('/', "-");
        let value = flannel::vxlan_value("192.0.2.77".parse()?, "02:00:00:00:77:01");
        flannel::put_lease(&cluster.etcd, &name, &value, 3600)?;
        wait::until(Duration::from_secs(20), "it takes another", || {
            let own = one.own()?;
            ensure!(own.iter().any(|o| o.subnets != [subnet.clone()]), "{own:?}");
            ensure!(
                one.problem("overlay/lost")?.contains(&subnet),
                "{}",
                one.problem("overlay/lost")?
            );
            Ok(())
        })?;
        let lease = cluster.leases()?.into_iter().find(|(key, _)| *key == name);
        ensure!(lease.is_some_and(|(_, now)| now == value), "it was written over again");
        let fresh = Sandbox::attached(&one.host, "fresh")?;
        wait::until(SOON, "new pods are reached", || super::pings(&pods[1], &fresh))?;
        let known = two.knows(&subnet)?.context("not listed")?;
        ensure!(known.public_ip == "192.0.2.77", "{known:?}");
        cluster.check_no_subnet_twice().map(drop)
    })
}

/// A lease that is deleted by hand under a living node is written again.
#[test]
fn a_lease_that_is_deleted_by_hand_comes_back() -> Result<()> {
    case(|bed| {
        let (cluster, pods) = started(bed)?;
        let before = cluster.leases()?;
        let traffic = AllPairs::start(&pods.iter().collect::<Vec<_>>(), 100)?;
        cluster.etcd.ctl(&["del", "--prefix", "/coreos.com/network/subnets/"])?;
        wait::until(SOON, "all leases are back", || {
            ensure!(cluster.leases()? == before, "{:?}", cluster.leases()?);
            Ok(())
        })?;
        wait::pause(Duration::from_millis(500));
        traffic.finish_without_loss("all leases were deleted by hand")
    })
}
