//! The kernel's WireGuard and netd-tunnel's on one network, and a kernel that gets its module
//! while netd runs.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, Node, reach, traffic::AllPairs},
};

use super::backend;

/// Packets a second of each flow; the processor may be emulated.
const RATE: u32 = 20;

/// Keeps the module out until it is dropped.
struct Blocked;

const RULE: &str = "/etc/modprobe.d/netd-test.conf";

impl Blocked {
    fn new() -> Result<Self> {
        fs::write(RULE, "install wireguard /bin/false\n")?;
        Ok(Self)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let _ = fs::remove_file(RULE);
    }
}

fn of_the_kernel(node: &Node) -> Result<bool> {
    let links = node.host.net.sh("ip -o link show type wireguard")?;
    Ok(links.contains("flannel-wg"))
}

#[test]
fn nodes_with_and_without_the_kernels_wireguard_reach_each_other() -> Result<()> {
    // A module is everybody's: only a machine of the test's own may be kept from it.
    if std::env::var_os("NETD_TEST_OWN_MACHINE").is_none() {
        println!("skipped: it needs a machine of its own; `make test-machines` has one");
        return Ok(());
    }
    let loaded = Path::new("/sys/module/wireguard");
    ensure!(!loaded.exists(), "the module is loaded already");
    case(|bed| {
        let blocked = Blocked::new()?;
        let plan = Plan::new(Families::Dual, backend("wireguard")).nodes(2);
        let mut cluster = Cluster::start(bed, &plan)?;
        ensure!(!loaded.exists() && !of_the_kernel(&cluster.nodes[0])?, "the module came");
        reach::all_pairs(&cluster.pods()?, Families::Dual)?;

        drop(blocked);
        let newer = cluster.join(bed)?;
        ensure!(of_the_kernel(newer)?, "no device of the kernel's although it has the module");
        cluster.wait_converged()?;
        let pods = cluster.pods()?;
        reach::all_pairs(&pods, Families::Dual)?;
        reach::largest(&pods, 1420)?;

        // A netd that finds the module when it starts leaves the tunnel that works alone.
        let all: Vec<&Sandbox> = pods.iter().collect();
        let traffic = AllPairs::start(&all, RATE)?;
        cluster.nodes[0].netd.restart()?;
        cluster.wait_converged()?;
        ensure!(!of_the_kernel(&cluster.nodes[0])?, "the tunnel was torn down");
        traffic.finish_without_loss("netd restarted after the module came")
    })
}
