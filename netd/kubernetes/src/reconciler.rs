//! Decides what happens in which order: Nodes in, actions and pending updates out. Pure;
//! [`crate::run`] carries the actions out.

mod announce;
mod ingest;
mod own;
mod status;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use netd_cluster::{
    LeaseAttrs, flannel,
    membership::{
        IdentityUpdate, OwnSubnets,
        source::{ConfigInForce, Known, Now, Peers, PendingUpdates},
    },
};
use serde_json::Value;

use crate::{annotations::AnnotationPrefix, node::NodeFacts, own_file::OwnFile, pace::Pace};

/// Fixed settings of a node.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub node: String,
    pub prefix: AnnotationPrefix,
    /// Where net-conf.json is, for messages.
    pub net_conf: String,
    pub hold: Duration,
}

/// This machine's Node in the API.
#[derive(Debug)]
enum OwnNode {
    /// The API was not listed yet.
    Unknown,
    Missing,
    There(Box<NodeFacts>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reconciler {
    settings: Settings,
    pub config: ConfigInForce,
    pub peers: Peers,
    pub pending: PendingUpdates,
    own: OwnNode,
    /// The subnets that the node has, since when (seconds since the epoch).
    held: Option<(netd_cluster::Subnets, u64)>,
    own_problem: Option<String>,
    /// What the node's annotations are to say; told since the start, or remembered.
    attrs: Option<LeaseAttrs>,
    announced: bool,
    annotation_problem: Option<String>,
    /// The node's own addresses as an operator wrote them on its Node.
    wished_addresses: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// `None`: the condition is not this node's business.
    readiness: Option<Result<(), String>>,
    not_ready_since: Option<Instant>,
    /// What is on disk.
    saved: OwnFile,
    /// The subnets and what is wrong with them, as they were told.
    told: Option<(Vec<OwnSubnets>, Option<String>)>,
    save_pace: Pace,
    save_problem: Option<String>,
    patch_pace: Pace,
    patch_problem: Option<(u64, String)>,
    failing: Option<(u64, String)>,
    /// What was told of being behind.
    told_behind: Option<(u64, String)>,
}

impl Reconciler {
    /// A node that knows what it remembers.
    pub(crate) fn new(settings: Settings, file: OwnFile, known: BTreeMap<String, Known>) -> Self {
        let renamed = !file.node.is_empty() && file.node != settings.node;
        let mut known = known;
        known.remove(&settings.node);
        let mut reconciler = Self {
            config: ConfigInForce::default(),
            peers: Peers::new(known, settings.hold),
            pending: PendingUpdates::default(),
            own: OwnNode::Unknown,
            held: file.held.filter(|_| !renamed),
            own_problem: None,
            attrs: file.attrs.clone().filter(|_| !renamed),
            announced: false,
            annotation_problem: None,
            wished_addresses: (None, None),
            readiness: None,
            not_ready_since: None,
            told: None,
            save_pace: Pace::new(Duration::from_millis(200), Duration::from_secs(15)),
            save_problem: None,
            patch_pace: Pace::new(Duration::from_millis(500), Duration::from_secs(30)),
            patch_problem: None,
            failing: None,
            told_behind: None,
            saved: file,
            settings,
        };
        if renamed {
            let from = reconciler.saved.node.clone();
            let to = reconciler.settings.node.clone();
            tracing::warn!("this machine's Node was {from} and is {to}: it was renamed, or copied");
            reconciler.pending.identity(IdentityUpdate::Renamed { from, to });
            if let Some((lost, _)) = reconciler.saved.held {
                reconciler.pending.lost(lost);
            }
        }
        if let Some(text) = reconciler.saved.config.clone() {
            let place = reconciler.settings.net_conf.clone();
            reconciler.config.take(&place, Ok(text.as_bytes()), &mut reconciler.pending);
        }
        reconciler.tell_own();
        let all = reconciler.peers.all();
        reconciler.pending.peers(all);
        reconciler
    }

    /// net-conf.json as it is now, or why it can't be read.
    pub(crate) fn net_conf(&mut self, bytes: Result<&[u8], String>, now: Now) {
        let place = self.settings.net_conf.clone();
        if self.config.take(&place, bytes, &mut self.pending) {
            self.judge_own(now);
        }
    }

    /// Whether the node is ready, or why not.
    pub(crate) fn readiness(&mut self, readiness: Result<(), String>, now: Now) {
        let since = self.not_ready_since.unwrap_or(now.mono);
        self.not_ready_since = readiness.is_err().then_some(since);
        self.readiness = Some(readiness);
    }

    /// Drops what was held long enough.
    pub(crate) fn tick(&mut self, now: Now) {
        let updates = self.peers.tick(now);
        self.pending.peers(updates);
    }

    /// What is to be written durably now.
    pub(crate) fn next_save(&mut self, now: Now) -> Option<OwnFile> {
        let file = self.file();
        if file == self.saved || !self.save_pace.is_due(now.mono) {
            return None;
        }
        self.save_pace.attempted(now.mono, fastrand::f64());
        Some(file)
    }

    /// What the status of the own Node is to be patched with now (a strategic merge patch).
    pub(crate) fn next_patch(&mut self, now: Now) -> Option<Value> {
        let Some(patch) = self.patch(now) else {
            // What failed is no longer wanted, or was done all the same.
            if self.patch_problem.take().is_some() {
                self.tell_behind();
            }
            return None;
        };
        if !self.patch_pace.is_due(now.mono) || self.failing.is_some() {
            return None;
        }
        self.patch_pace.attempted(now.mono, fastrand::f64());
        Some(patch)
    }

    /// When there may be something to do without an event.
    pub(crate) fn wake_at(&self, now: Now) -> Option<Instant> {
        let graced = self.not_ready_since.map(|since| since + crate::condition::GRACE);
        let times = [self.peers.wake_at(), self.save_pace.next(), self.patch_pace.next(), graced];
        times.into_iter().flatten().filter(|at| *at > now.mono).min()
    }

    /// A file was written, or why not.
    pub(crate) fn saved(&mut self, file: OwnFile, result: Result<(), String>) {
        self.save_problem = result.err();
        if self.save_problem.is_none() {
            self.saved = file;
            self.save_pace.reset();
            self.tell_own();
        }
    }

    /// The own Node as it is after a patch, or why it was not patched.
    pub(crate) fn patched(&mut self, result: Result<NodeFacts, String>, now: Now) {
        match result {
            Ok(node) => {
                self.patch_problem = None;
                self.own_was(node, now);
            }
            Err(why) => {
                let since = self.patch_problem.as_ref().map_or(now.unix, |(since, _)| *since);
                self.patch_problem = Some((since, why));
            }
        }
        self.tell_behind();
    }

    fn failed(&mut self, why: String, now: Now) {
        let since = self.failing.as_ref().map_or(now.unix, |(since, _)| *since);
        self.failing = Some((since, why));
        self.tell_behind();
    }

    fn tell_behind(&mut self) {
        let behind = self.behind().cloned();
        if behind != self.told_behind {
            self.told_behind.clone_from(&behind);
            self.pending.behind(behind);
        }
    }

    /// Since when it is behind, and why.
    pub(crate) fn behind(&self) -> Option<&(u64, String)> {
        self.failing.as_ref().or(self.patch_problem.as_ref())
    }

    /// As it will be read back.
    pub(crate) fn announce(&mut self, attrs: LeaseAttrs) {
        let text = flannel::value::format(&attrs);
        self.attrs = Some(flannel::value::parse(text.as_bytes()).unwrap_or(attrs));
        self.announced = true;
    }
}
