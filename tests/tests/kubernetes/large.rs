//! 10,000 Nodes: requests and memory.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use netd_store::{
    Change, Store as _, Txn,
    etcd::{EtcdOptions, EtcdStore},
};
use serde_json::{Value, json};
use testbed::{ApiServer, Plan, case, cluster::Families, wait};

use super::{SOON, backend, launch};

const NODES: usize = 10_000;
/// Nodes in an answer.
const PAGE: usize = 500;

/// A Node of flannel's, as the API server has it in etcd.
fn node(n: usize) -> Change {
    let name = format!("m{n}");
    let cidr = format!("10.{}.{}.0/24", 100 + n / 256, n % 256);
    let mac = format!("02:00:00:00:{:02x}:{:02x}", n / 256, n % 256);
    let value = json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {
            "name": name, "uid": format!("uid-{n}"), "creationTimestamp": "2026-11-30T12:00:00Z",
            "labels": { "kubernetes.io/hostname": name },
            "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/backend-data": format!("{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}"),
                "flannel.alpha.coreos.com/public-ip": format!("172.16.{}.{}", n / 256, n % 256),
            },
        },
        "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
        "status": {},
    });
    Change::Put {
        key: format!("/registry/minions/{name}"),
        value: value.to_string().into(),
        lease: 0,
    }
}

/// Writes them past the API server, which would take minutes.
fn write_all(api: &ApiServer) -> Result<()> {
    api.host.net.run(|| {
        // On this thread, which is on the API server's machine.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let etcd = EtcdStore::open(EtcdOptions::new(api.etcd.endpoints()))?;
            let all: Vec<Change> = (0..NODES).map(node).collect();
            for changes in all.chunks(100) {
                etcd.commit(Txn { compares: vec![], changes: changes.to_vec() }).await?;
            }
            anyhow::Ok(())
        })
    })
}

/// Requests about Nodes that the API server has answered, by verb.
fn requests(api: &ApiServer, verb: &str) -> Result<usize> {
    let metrics = api.kubectl(&["get", "--raw", "/metrics"])?;
    let lines = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"nodes\"")
            && line.contains(&format!("verb=\"{verb}\""))
    });
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(counts.sum::<f64>() as usize)
}

fn kilobytes(pid: u32, name: &str) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}

/// When a line of netd's log that says this was written, of the last such line.
fn logged_at(log: &str, says: &str) -> Result<SystemTime> {
    let line = log.lines().rfind(|line| line.contains(says));
    let line: Value = serde_json::from_str(line.with_context(|| format!("no {says:?}"))?)?;
    let text = line["timestamp"].as_str().context("no timestamp")?;
    Ok(humantime::parse_rfc3339(text)?)
}

#[test]
fn ten_thousand_nodes_cost_few_requests_and_little_memory() -> Result<()> {
    case(|bed| {
        let mut api = ApiServer::start(bed)?;
        write_all(&api)?;
        // It knows of nothing that others wrote while it ran.
        api.kill()?;
        api.run()?;
        let plan = Plan::new(Families::V4, backend("vxlan")).set("Network", json!("10.0.0.0/8"));
        let mut node = launch(bed, &api, &plan, 1)?;
        wait::until(SOON * 6, "all are programmed", || {
            let count = node.metric("netd_overlay_peers{state=\"programmed\"")?;
            ensure!(count as usize == NODES, "{count}");
            Ok(())
        })?;
        node.wait_ready()?;
        let pid = node.netd.pid();
        // Without the pages of the program's file, which a debug build has five times as many of.
        let (own, most) = (kilobytes(pid, "RssAnon:")?, kilobytes(pid, "VmHWM:")?);
        let (lists, patches) = (requests(&api, "LIST")?, requests(&api, "PATCH")?);
        println!("{lists} lists, {patches} patches; {own} KB of its own, {most} KB at most");
        let log = node.netd.logged();
        let listed = logged_at(&log, &format!("listed {} Nodes", NODES + 1))?;
        let made = logged_at(&log, "objects of the overlay")?;
        println!("programmed {:?} after they were listed", made.duration_since(listed)?);
        // netd's pages, and what the API server's own cache asks.
        ensure!(lists <= NODES / PAGE + 10, "{lists} lists");
        ensure!(patches <= 3, "{patches} patches");
        ensure!(own < 60 * 1024, "{own} KB");
        // Another node's heartbeats cost no request: all that are counted are kubectl's own.
        let before = requests(&api, "LIST")?;
        for beat in 0..10 {
            let beat = json!({ "metadata": { "labels": { "beat": beat.to_string() } } });
            api.kubectl(&["patch", "node", "m7", "--type=merge", "-p", &beat.to_string()])?;
        }
        wait::pause(Duration::from_secs(1));
        let after = requests(&api, "LIST")?;
        ensure!(after == before, "{} lists for 10 heartbeats", after - before);
        Ok(())
    })
}
