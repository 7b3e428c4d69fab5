//! netd's metrics and their HTTP server for Prometheus.
//!
//! Names begin with `netd_`; times are in seconds. Recording does no I/O and can't fail.

mod external;
mod http;
mod labels;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ipnet::IpNet;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

pub use external::ExternalCounters;
pub(crate) use external::{DeviceTraffic, TunnelLosses};
pub(crate) use http::Probes;
pub(crate) use http::serve_metrics;
pub(crate) use labels::code_name;
use labels::{KindLabel, OperationLabels, PoolLabels, StateLabel, StepLabels};
pub use labels::{Step, Verb};
use netd_domain::NetworkName;

/// 50 us to about 1.6 s, each bound twice the one before: an attach takes hundreds of
/// microseconds, and one that waits for a lock takes seconds.
const BUCKETS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.025_6,
    0.051_2, 0.102_4, 0.204_8, 0.409_6, 0.819_2, 1.638_4,
];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

type Amount = Gauge<f64, AtomicU64>;

/// All of netd's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    operations: Family<OperationLabels, Counter>,
    endpoints: Family<StateLabel, Gauge>,
    pool_size: Family<PoolLabels, Amount>,
    pool_used: Family<PoolLabels, Amount>,
    drift: Family<KindLabel, Counter>,
    pod_changes: Family<KindLabel, Counter>,
    collected: Counter,
    reaper_queue: Gauge,
    store_commit: Histogram,
    overlay_peers: Family<StateLabel, Gauge>,
    overlay_convergence: Histogram,
    overlay_sync: Histogram,
    etcd_behind: Gauge,
    kubernetes_behind: Gauge,
    external: Arc<ExternalCounters>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that are all zero.
    pub fn new() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("netd"),
            steps: Family::new_with_constructor(histogram as fn() -> Histogram),
            operations: Family::default(),
            endpoints: Family::default(),
            pool_size: Family::default(),
            pool_used: Family::default(),
            drift: Family::default(),
            pod_changes: Family::default(),
            collected: Counter::default(),
            reaper_queue: Gauge::default(),
            store_commit: histogram(),
            overlay_peers: Family::default(),
            overlay_convergence: histogram(),
            overlay_sync: histogram(),
            etcd_behind: Gauge::default(),
            kubernetes_behind: Gauge::default(),
            external: Arc::default(),
        };
        all.register();
        all
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "This netd", build);
        let text = "Time of an operation's steps, in seconds; step total is the whole";
        r.register("operation_step_seconds", text, self.steps.clone());
        let text = "Operations done, by gRPC code";
        r.register("operations", text, self.operations.clone());
        r.register("endpoints", "Endpoints, by state", self.endpoints.clone());
        let text = "Addresses a pool can give out";
        r.register("pool_addresses", text, self.pool_size.clone());
        let text = "Addresses of a pool that are given out or held back";
        r.register("pool_addresses_used", text, self.pool_used.clone());
        let text = "Kernel objects that others changed and netd put back";
        r.register("drift_repaired", text, self.drift.clone());
        let text = "Changes inside pods to what netd made there, left as they are";
        r.register("pod_changes", text, self.pod_changes.clone());
        let text = "Endpoints removed because their sandbox was gone";
        r.register("gc_collected", text, self.collected.clone());
        let text = "Links waiting for the kernel to remove them";
        r.register("reaper_queue", text, self.reaper_queue.clone());
        let text = "Time of a store's commit, in seconds";
        r.register("store_commit_seconds", text, self.store_commit.clone());
        let text = "Peers of the overlay, by state: desired, programmed, failed";
        r.register("overlay_peers", text, self.overlay_peers.clone());
        let text = "From news of peers to the kernel holding what they take, in seconds";
        r.register("overlay_convergence_seconds", text, self.overlay_convergence.clone());
        let text = "Comparisons of the whole overlay with the kernel and their repairs, in seconds";
        r.register("overlay_sync_seconds", text, self.overlay_sync.clone());
        let text =
            "For how long the cluster's store has been out of reach, in seconds; 0: it isn't";
        r.register("etcd_behind_seconds", text, self.etcd_behind.clone());
        let text = "For how long the Kubernetes API has been out of reach, in seconds; 0: it isn't";
        r.register("kubernetes_behind_seconds", text, self.kubernetes_behind.clone());
        r.register_collector(Box::new(external::Collected(self.external.clone())));
    }

    /// Records that one step of an operation took `time`.
    pub fn step(&self, verb: Verb, step: Step, time: Duration) {
        self.steps.get_or_create(&StepLabels { verb, step }).observe(time.as_secs_f64());
    }

    /// Counts an operation that ended with this gRPC code.
    pub fn operation(&self, verb: Verb, code: tonic::Code) {
        self.operations.get_or_create(&OperationLabels { verb, code: code.into() }).inc();
    }

    /// Sets how many endpoints are in `state`: "attaching", "attached", "detaching".
    pub(crate) fn set_endpoints(&self, state: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.endpoints.get_or_create(&StateLabel { state }).set(count);
    }

    /// Sets how many addresses a pool has and how many of them are used.
    pub(crate) fn set_pool(&self, network: &NetworkName, subnet: IpNet, size: u64, used: u64) {
        let labels = PoolLabels::new(network, subnet);
        // Floats, because a /64 has more addresses than an i64 can count. They are rounded.
        self.pool_size.get_or_create(&labels).set(size as f64);
        self.pool_used.get_or_create(&labels).set(used as f64);
    }

    /// Removes the series of a pool whose network was deleted.
    pub(crate) fn remove_pool(&self, network: &NetworkName, subnet: IpNet) {
        let labels = PoolLabels::new(network, subnet);
        self.pool_size.remove(&labels);
        self.pool_used.remove(&labels);
    }

    /// Counts `count` repaired kernel objects of `kind`: see `netd_dataplane::RepairKind`.
    pub(crate) fn drift_repaired(&self, kind: &'static str, count: u64) {
        self.drift.get_or_create(&KindLabel { kind }).inc_by(count);
    }

    /// Counts a change inside a pod that is left as it is; `kind` as of repairs.
    pub(crate) fn pod_changed(&self, kind: &'static str) {
        self.pod_changes.get_or_create(&KindLabel { kind }).inc();
    }

    /// How many kernel objects of `kind` were repaired since netd started.
    pub fn drift(&self, kind: &'static str) -> u64 {
        self.drift.get(&KindLabel { kind }).map_or(0, |c| c.get())
    }

    /// Counts `count` endpoints that garbage collection removed.
    pub fn collected(&self, count: u64) {
        self.collected.inc_by(count);
    }

    /// How many endpoints garbage collection removed since netd started.
    pub fn collected_total(&self) -> u64 {
        self.collected.get()
    }

    /// Sets how many links wait for the kernel to remove them.
    pub(crate) fn set_reaper_queue(&self, length: usize) {
        self.reaper_queue.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// Records that a commit of the store took `time`.
    pub(crate) fn store_commit(&self, time: Duration) {
        self.store_commit.observe(time.as_secs_f64());
    }

    /// Records that a change of peers was in the kernel after `time`.
    pub(crate) fn overlay_converged(&self, time: Duration) {
        self.overlay_convergence.observe(time.as_secs_f64());
    }

    /// Records that comparing the whole overlay with the kernel, repairs included, took `time`.
    pub(crate) fn overlay_synced(&self, time: Duration) {
        self.overlay_sync.observe(time.as_secs_f64());
    }

    /// Sets how many peers the overlay has, and how many of them are not in the kernel.
    pub(crate) fn set_overlay_peers(&self, desired: usize, failed: usize) {
        let states = [
            ("desired", desired),
            ("programmed", desired.saturating_sub(failed)),
            ("failed", failed),
        ];
        for (state, count) in states {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.overlay_peers.get_or_create(&StateLabel { state }).set(count);
        }
    }

    /// Sets for how many seconds etcd has been out of reach; 0: it is in reach.
    pub(crate) fn set_etcd_behind(&self, seconds: u64) {
        self.etcd_behind.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Sets for how many seconds the Kubernetes API has been out of reach; 0: it is in reach.
    pub(crate) fn set_kubernetes_behind(&self, seconds: u64) {
        self.kubernetes_behind.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Counters that etcd's client, the kernel and netd-tunnel keep.
    pub fn external(&self) -> &ExternalCounters {
        &self.external
    }

    /// All metrics in OpenMetrics text format 1.0.
    pub(crate) fn exposition(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => "# EOF\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
