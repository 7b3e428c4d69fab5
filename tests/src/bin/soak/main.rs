//! `make soak`: attaches and detaches by the hundred thousand while netd is killed, the
//! runtime and etcd go and come, the rules are flushed and the disk is full. Nothing may
//! leak, no address may have two owners, and every call has to be answered.
//!
//! `NETD_SOAK_PODS` (100,000) and `NETD_SOAK_KILLS` (1,000) scale it, `NETD_SOAK_MINUTES`
//! (120) ends it. What was done is kept in `.testbed/soak.json`: a run that was ended early
//! is continued by the next one.

mod faults;
mod pods;
mod progress;

use std::{
    fs,
    process::ExitCode,
    sync::Arc,
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{
    Bed, Cluster, Containerd, Plan, Version, case,
    cluster::{Families, Node},
    cri::Cri,
    inventory, joined, stack, wait,
};

use crate::{
    faults::Faults,
    pods::{Pods, by_plugin, by_runtime},
    progress::Progress,
};

/// Threads that execute the plugin themselves.
const WORKERS: usize = 8;
/// netd's whole state directory, which can thus be filled.
const DISK: &str = "24m";

fn main() -> ExitCode {
    match Progress::begin().map(Arc::new).and_then(|progress| {
        case(|bed| run(bed, &progress))?;
        Ok(progress)
    }) {
        Ok(progress) => {
            println!("{}", progress.totals());
            if progress.is_done() {
                progress.forget();
                return ExitCode::SUCCESS;
            }
            println!("the time is over: another `make soak` goes on from here");
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A node on etcd with a containerd beside it.
struct Scene {
    cluster: Cluster,
    node: Node,
    containerd: Containerd,
    cri: Cri,
    before: String,
}

impl Scene {
    fn start(bed: &Bed) -> Result<Self> {
        // What an ADD and a DEL of containerd's that both failed left is collected while we watch.
        let mut plan = Plan::new(Families::Dual, json!({"Type": "vxlan"})).nodes(1);
        for line in ["[gc]", "grace = \"2s\"", "interval = \"1s\"", "unsafe_short_grace = true"] {
            plan = plan.overlay(line);
        }
        plan.filter = "warn";
        let cluster = Cluster::prepare(bed, &plan)?;
        let host = bed.host("n0")?;
        let state = host.directory().join("netd/state");
        fs::create_dir_all(&state)?;
        host.net.sh(&format!("mount -t tmpfs -o size={DISK} tmpfs {}", state.display()))?;
        let mut node = Node::launch_on(host, &plan, &cluster.etcd)?;
        node.wait_ready()?;
        let (containerd, cri) = Containerd::with_hook(&node.host, Version::V2_1)?;
        let before = inventory::of(&node.host)?;
        Ok(Self { cluster, node, containerd, cri, before })
    }

    /// An error unless everything is as before the first pod.
    fn check_nothing_left(&mut self, pods: &Pods) -> Result<()> {
        self.cluster.etcd.wait_healthy()?;
        self.node.wait_ready()?;
        // Those whose RunPodSandbox failed halfway, as kubelet would find them.
        for id in self.cri.pods()? {
            pods.end(&self.cri, &id)?;
        }
        stack::check_nothing_left(&self.node.host, &self.node.netd, &self.before)?;
        let leases = self.cluster.check_no_subnet_twice()?;
        ensure!(leases == 1, "{leases} leases of one node");
        Ok(())
    }
}

fn run(bed: &Bed, progress: &Arc<Progress>) -> Result<()> {
    let mut scene = Scene::start(bed)?;
    let pods = Pods::new(progress);
    side_by_side(&mut scene, &pods, &Faults::new(progress))?;
    scene.check_nothing_left(&pods)?;
    progress.save()
}

fn side_by_side(scene: &mut Scene, pods: &Pods, faults: &Faults) -> Result<()> {
    let Scene { cluster: Cluster { etcd, .. }, node, containerd, cri, .. } = scene;
    let (netd, host, cri) = (&mut node.netd, &node.host, &*cri);
    let progress = pods.progress();
    let watched = |work: Result<()>| {
        if work.is_err() {
            progress.stop();
        }
        work
    };
    thread::scope(|scope| {
        let disturbers = [
            scope.spawn(move || watched(faults.kill(netd))),
            scope.spawn(move || watched(faults.others(etcd, host, containerd))),
        ];
        let mut workers: Vec<_> = (0..WORKERS)
            .map(|number| scope.spawn(move || watched(by_plugin(pods, host, number))))
            .collect();
        workers.push(scope.spawn(move || watched(by_runtime(pods, cri, faults))));
        while !workers.iter().all(ScopedJoinHandle::is_finished) {
            wait::pause(Duration::from_secs(1));
            progress.report()?;
        }
        progress.stop();
        workers.into_iter().chain(disturbers).try_for_each(joined)
    })
}
