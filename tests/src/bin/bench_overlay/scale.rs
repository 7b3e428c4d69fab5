//! One node of a large cluster: its start, a new lease, renewals, memory, requests.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::{
    Cluster, Namespace, Plan, case,
    cluster::{Families, Node},
    wait,
};

use crate::{store, usage};

/// New leases whose way to the kernel is timed.
const CHANGES: usize = 200;
/// Renewals whose cost is measured.
const RENEWALS: usize = 10_000;

fn plan() -> Plan {
    let mut plan = Plan::new(Families::V4, json!({"Type": "vxlan"})).nodes(0);
    plan.config["Network"] = json!("10.0.0.0/8");
    plan.config["SubnetMin"] = json!("10.200.0.0");
    plan.filter = "info";
    plan
}

/// Work that talks to etcd, on a thread in etcd's network.
fn with_etcd<T: Send>(
    cluster: &Cluster,
    work: impl AsyncFnOnce(&netd_store::etcd::EtcdStore) -> Result<T> + Send,
) -> Result<T> {
    let member = cluster.members.first().context("no member")?;
    let endpoint = cluster.etcd.endpoint(0);
    member.net.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let store = store::open(endpoint)?;
            work(&store).await
        })
    })
}

fn programmed(node: &Node) -> Result<f64> {
    node.metric("netd_overlay_peers{state=\"programmed\"")
}

/// Starts netd and waits until so many peers are programmed.
fn start(node: &mut Node, peers: usize) -> Result<Duration> {
    let begin = Instant::now();
    node.netd.respawn()?;
    #[allow(clippy::cast_precision_loss)] // some thousands
    let wanted = peers as f64;
    loop {
        if programmed(node).is_ok_and(|now| now >= wanted) {
            return Ok(begin.elapsed());
        }
        ensure!(begin.elapsed() < Duration::from_secs(60), "{:?} programmed", programmed(node));
        wait::pause(Duration::from_millis(3));
    }
}

/// Forgets what netd remembers of the others, and what its kernel has of them.
fn forget(node: &Node, device: bool) -> Result<()> {
    let state = node.host.directory().join("netd/state/overlay/overlay-peers.json");
    let _ = std::fs::remove_file(state);
    if device {
        node.host.net.sh("ip link delete flannel.1")?;
    }
    Ok(())
}

pub(crate) fn run(nodes: usize) -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::prepare(bed, &plan())?;
        println!("## A cluster of {nodes} nodes, vxlan, as one more node sees it\n");
        let start_of_fill = Instant::now();
        let (few, many) = (100.min(nodes), nodes);
        with_etcd(&cluster, async |store| store::fill(store, few).await)?;
        let node = cluster.add(bed)?;
        wait::until(Duration::from_secs(20), "the first start", || {
            ensure!(programmed(node)? >= 100.0);
            Ok(())
        })?;
        let small_requests = requests(&mut cluster, few)?;
        with_etcd(&cluster, async |store| store::fill(store, many).await)?;
        println!("(leases written in {:.1?})\n", start_of_fill.elapsed());
        println!("| | | to reach |\n|---|---|---|");
        starts(&mut cluster, nodes)?;
        let large_requests = requests(&mut cluster, many)?;
        println!("| etcd requests at start, {few} nodes | {small_requests} | |");
        println!(
            "| etcd requests at start, {many} nodes | {large_requests} | the same, pages aside |"
        );
        changes(&cluster, nodes)?;
        renewals(&cluster, nodes)?;
        let node = cluster.nodes.first().context("no node")?;
        println!(
            "| resident memory | {:.1} MB | 50 MB |\n",
            usage::resident(node.netd.pid())? as f64 / 1024.0
        );
        Ok(())
    })
}

/// From the process's start to all programmed: into an empty kernel, and into a full one.
fn starts(cluster: &mut Cluster, nodes: usize) -> Result<()> {
    let node = cluster.nodes.first_mut().context("no node")?;
    let (mut empty, mut full) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for (times, device) in [(&mut empty, true), (&mut full, false)] {
            node.netd.kill9()?;
            forget(node, device)?;
            let took = start(node, nodes)?;
            let routes = node.host.net.sh("ip -4 -o route show dev flannel.1 | wc -l")?;
            ensure!(routes.trim().parse::<usize>()? >= nodes, "{routes} routes");
            times.push((took, node.metric("netd_overlay_sync_seconds_sum")?));
        }
    }
    let goal = "1 s, of which netlink 0.2 s (flanneld 11.4 s)";
    for (times, kernel, goal) in [(&mut empty, "empty", goal), (&mut full, "full", "")] {
        times.sort_by_key(|(took, _)| *took);
        let (took, share) = times.get(times.len() / 2).copied().unwrap_or_default();
        println!(
            "| start to all {nodes} programmed, {kernel} kernel (median of 3) \
             | {took:.2?}, of which comparing with the kernel and changing it {share:.2} s | {goal} |"
        );
    }
    Ok(())
}

/// Requests of one start without memory.
fn requests(cluster: &mut Cluster, nodes: usize) -> Result<u64> {
    let node = cluster.nodes.first_mut().context("no node")?;
    node.netd.kill9()?;
    forget(node, true)?;
    start(node, nodes)?;
    // Its own keys and its endpoints are written behind that.
    wait::pause(Duration::from_secs(1));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
    Ok(node.metric("netd_etcd_requests_total")? as u64)
}

/// Routes as they appear in a namespace, with the time.
struct Monitor {
    child: Child,
    seen: mpsc::Receiver<(String, Instant)>,
}

impl Monitor {
    fn start(net: &Namespace) -> Result<Self> {
        let mut command: Command = net.command("ip");
        let mut child = command.args(["-4", "monitor", "route"]).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let (told, seen) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if told.send((line, Instant::now())).is_err() {
                    return;
                }
            }
        });
        wait::pause(Duration::from_millis(300));
        Ok(Self { child, seen })
    }

    fn wait_for(&self, net: &str) -> Result<Instant> {
        loop {
            let (line, at) = self.seen.recv_timeout(Duration::from_secs(5)).context("no route")?;
            if line.starts_with(net) {
                return Ok(at);
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From the acknowledgement of a new lease to its route.
fn changes(cluster: &Cluster, nodes: usize) -> Result<()> {
    let node = cluster.nodes.first().context("no node")?;
    let monitor = Monitor::start(&node.host.net)?;
    let mut times = with_etcd(cluster, async move |store| {
        use netd_store::LeaseStore as _;
        let lease = store.grant(Duration::from_secs(3600)).await?;
        let mut times = Vec::new();
        for n in nodes..nodes + CHANGES {
            let (asked, committed) = store::add(store, n, lease).await?;
            let name = store::lease(n)?.0.replace('-', "/");
            let routed = monitor.wait_for(&name)?;
            times.push((routed.saturating_duration_since(committed), routed.duration_since(asked)));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(times)
    })?;
    times.sort();
    let percentile = |p: usize| times.get(times.len() * p / 100).copied().unwrap_or_default();
    println!(
        "| a new lease's commit to its route, p50 / p99 of {CHANGES} | {:.1?} / {:.1?} | p99 10 ms |",
        percentile(50).0,
        percentile(99).0
    );
    let mut whole: Vec<Duration> = times.iter().map(|(_, whole)| *whole).collect();
    whole.sort();
    let percentile = |p: usize| whole.get(whole.len() * p / 100).copied().unwrap_or_default();
    println!(
        "| the same from before the commit was asked for | {:.1?} / {:.1?} | |",
        percentile(50),
        percentile(99)
    );
    Ok(())
}

/// What renewals cost a node that has nothing to do with them.
fn renewals(cluster: &Cluster, nodes: usize) -> Result<()> {
    let node = cluster.nodes.first().context("no node")?;
    let (pid, mut idle) = (node.netd.pid(), Duration::ZERO);
    let measured = |what: &mut dyn FnMut() -> Result<()>| -> Result<(Duration, Duration, f64)> {
        let requests = node.metric("netd_etcd_requests_total")?;
        let (before, begin) = (usage::cpu(pid)?, Instant::now());
        what()?;
        // What is under way arrives.
        wait::pause(Duration::from_millis(500));
        let (used, took) = (usage::cpu(pid)? - before, begin.elapsed());
        Ok((used, took, node.metric("netd_etcd_requests_total")? - requests))
    };
    let (used, took, _) = measured(&mut || {
        wait::pause(Duration::from_secs(10));
        Ok(())
    })?;
    idle += used;
    println!("| processor time, idle | {used:.1?} in {took:.1?} | |");
    let share = idle.as_secs_f64() / took.as_secs_f64();
    let (used, took, asked) = measured(&mut || {
        with_etcd(cluster, async |store| store::renew_as_flannel(store, nodes, RENEWALS).await)
    })?;
    let each = (used.as_secs_f64() - share * took.as_secs_f64()).max(0.0) / RENEWALS as f64;
    println!(
        "| {RENEWALS} renewals as flannel's (lease and same value) | {used:.1?} in {took:.1?}: \
         {:.0} us each; {asked} requests | |",
        each * 1e6
    );
    // flannel renews an hour before the end of 24.
    let hour = nodes as f64 / 23.0 * each;
    println!(
        "| an hour of {nodes} flannel nodes' renewals | {:.1} ms of processor time, {:.6} % of a core \
         | not measurable |",
        hour * 1e3,
        hour / 36.0
    );
    let (used, took, asked) = measured(&mut || {
        with_etcd(cluster, async |store| store::keep_alive(store, RENEWALS).await)
    })?;
    println!(
        "| {RENEWALS} renewals as netd's (keepalive) | {used:.1?} in {took:.1?}; {asked} requests \
         | no request |"
    );
    Ok(())
}
