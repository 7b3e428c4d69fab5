#![allow(clippy::unwrap_used)]

mod life;
mod pods;
mod streams;
mod words;

use std::time::{Duration, Instant};

use netd_cluster::{
    LeaseAttrs,
    membership::{Update, source::Now},
};
use serde_json::{Value, json};

use crate::{
    annotations::AnnotationPrefix,
    followed::News,
    node::{Node, NodeFacts},
    own_file::OwnFile,
    reconciler::{Reconciler, Settings},
};

const VXLAN: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// A node `n1` whose API is what a test says, and whose disk never fails.
struct World {
    reconciler: Reconciler,
    now: Now,
    /// What was told since the last look.
    told: Vec<Update>,
    /// What was patched.
    patches: Vec<Value>,
    disk: OwnFile,
}

impl World {
    fn new(file: OwnFile) -> Self {
        let settings = Settings {
            node: "n1".into(),
            prefix: AnnotationPrefix::default(),
            net_conf: "net-conf.json".into(),
            hold: Duration::from_secs(30),
        };
        let now = Now { mono: Instant::now(), unix: 1_700_000_000 };
        let reconciler = Reconciler::new(settings, file.clone(), [].into());
        Self { reconciler, now, told: vec![], patches: vec![], disk: file }
    }

    /// With net-conf.json and the Nodes, settled.
    fn with(file: OwnFile, nodes: &[Value]) -> Self {
        let mut world = Self::new(file);
        world.reconciler.net_conf(Ok(VXLAN.as_bytes()), world.now);
        world.list(nodes);
        world
    }

    fn list(&mut self, nodes: &[Value]) {
        self.hear(News::Listed(nodes.iter().map(facts).collect()));
    }

    fn hear(&mut self, news: News) {
        self.reconciler.ingest(news, self.now);
        self.settle();
    }

    fn announce(&mut self, attrs: LeaseAttrs) {
        self.reconciler.announce(attrs);
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix += time.as_secs();
        self.settle();
    }

    /// Does what is due now. A patch is noted, and answered by nothing: the watch will tell.
    fn settle(&mut self) {
        self.reconciler.tick(self.now);
        while let Some(file) = self.reconciler.next_save(self.now) {
            self.disk = file.clone();
            self.reconciler.saved(file, Ok(()));
        }
        self.patches.extend(self.reconciler.next_patch(self.now));
        while let Some(update) = self.reconciler.pending.take_next() {
            self.told.push(update);
        }
    }

    /// The subnets that were told last to be the node's.
    fn own(&self) -> Option<String> {
        let own = self.told.iter().rev().find_map(|update| match update {
            Update::Own(own) => Some(own),
            _ => None,
        });
        own?.first().map(|own| netd_cluster::flannel::key::name(&own.subnets))
    }

    fn told_text(&mut self) -> String {
        format!("{:?}", std::mem::take(&mut self.told))
    }
}

/// The news that a Node was deleted.
fn gone(name: &str) -> News {
    News::Deleted(Box::new(facts(&node(name, "", None))))
}

/// A Node's JSON; with flannel's annotations where it has a public address.
fn node(name: &str, pod_cidr: &str, public: Option<&str>) -> Value {
    let mut node = json!({
        "metadata": {
            "name": name, "uid": format!("uid-{name}"), "resourceVersion": "7",
            "creationTimestamp": "2026-11-30T12:00:00Z",
        },
        "spec": { "podCIDR": pod_cidr, "podCIDRs": [pod_cidr] },
        "status": { "conditions": [], "nodeInfo": { "machineID": "m" } },
    });
    if let Some(public) = public {
        let mac = r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}"#;
        node["metadata"]["annotations"] = json!({
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/backend-data": mac,
            "flannel.alpha.coreos.com/public-ip": public,
            "example.com/other": "x",
        });
    }
    node
}

fn facts(json: &Value) -> NodeFacts {
    let node: Node = serde_json::from_value(json.clone()).unwrap();
    NodeFacts::of(node, &AnnotationPrefix::default()).unwrap()
}

/// A lease's value as etcd has it.
fn attrs(value: &Value) -> LeaseAttrs {
    netd_cluster::flannel::value::parse(value.to_string().as_bytes()).unwrap()
}

fn vxlan_attrs() -> LeaseAttrs {
    attrs(&json!({
        "PublicIP": "192.0.2.1", "BackendType": "vxlan",
        "BackendData": { "VNI": 1, "VtepMAC": "02:00:00:00:00:01" },
    }))
}
