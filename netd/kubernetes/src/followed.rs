//! What can be followed in the API, and what is told of it.

use std::fmt::Debug;

use kube::api::ListParams;
use serde::de::DeserializeOwned;

use crate::{
    annotations::AnnotationPrefix,
    node::{Node, NodeFacts},
    pod::{Pod, PodFacts},
};

/// Nodes in one answer, where they are listed page by page: some megabytes.
const PAGE: u32 = 500;

/// A kind of objects, or some of them.
pub(crate) trait Followed: Send + Sync + 'static {
    /// As the API sends it.
    type Object: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send;
    /// What counts of it.
    type Facts: Send;
    /// As they are called in messages.
    const PLURAL: &str;

    /// Which of them, as the API is asked; `None`: all.
    fn selector(&self) -> Option<String>;
    /// How they are listed.
    fn list_params(&self) -> ListParams;
    /// What tells one from all others that are there at the same time.
    fn key(facts: &Self::Facts) -> &str;
    /// `None`: an object that can't be used.
    fn facts(&self, object: Self::Object) -> Option<Self::Facts>;
}

/// What the API tells.
#[derive(Debug)]
pub(crate) enum News<Facts = NodeFacts> {
    /// All objects.
    Listed(Vec<Facts>),
    Changed(Box<Facts>),
    /// As it was last.
    Deleted(Box<Facts>),
    /// The API can't be followed; the reason.
    Failed(String),
    /// It can be again, without having told anything.
    Works,
}

/// All Nodes.
#[derive(Debug)]
pub(crate) struct Nodes(pub AnnotationPrefix);

impl Followed for Nodes {
    type Object = Node;
    type Facts = NodeFacts;
    const PLURAL: &str = "Nodes";

    fn selector(&self) -> Option<String> {
        None
    }
    fn list_params(&self) -> ListParams {
        ListParams::default().limit(PAGE)
    }
    fn key(facts: &NodeFacts) -> &str {
        &facts.name
    }
    fn facts(&self, node: Node) -> Option<NodeFacts> {
        NodeFacts::of(node, &self.0)
    }
}

/// The pods of the Node with this name.
#[derive(Debug)]
pub(crate) struct PodsOf(pub String);

impl Followed for PodsOf {
    type Object = Pod;
    type Facts = PodFacts;
    const PLURAL: &str = "pods of this Node";

    fn selector(&self) -> Option<String> {
        Some(format!("spec.nodeName={}", self.0))
    }
    /// From the API server's memory, which has an index of Nodes: etcd would have to read all pods
    /// of the cluster. What is old there is told by the watch.
    fn list_params(&self) -> ListParams {
        let all = ListParams::default().match_any();
        ListParams { field_selector: self.selector(), ..all }
    }
    fn key(facts: &PodFacts) -> &str {
        &facts.identity.uid
    }
    fn facts(&self, pod: Pod) -> Option<PodFacts> {
        PodFacts::of(pod)
    }
}
