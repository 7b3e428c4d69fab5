//! The cluster's truth from the Kubernetes API, in flannel's words: a second source beside etcd,
//! behind the same [`Membership`](netd_cluster::membership::Membership).
//!
//! Who owns what:
//! - the controller-manager: which podCIDR a Node has, in its `spec.podCIDRs`;
//! - net-conf.json, which an operator writes: the cluster's networks and the backend;
//! - each node: its annotations `flannel.alpha.coreos.com/...`, which say how to reach it, and its
//!   condition NetworkUnavailable;
//! - the disk: what was known last, so that a node goes on without the API.
//!
//! Beside that, and whatever the source, the API says who this Node's pods are ([`pods`]), and
//! tells a node with leases in etcd its Node's podCIDRs ([`node_subnets`]).
//!
//! [`node`], [`pod`], [`annotations`], [`condition`], [`events`] and [`reconciler`] are pure.
//! [`api`], [`list`], [`follow`], [`report_events`] and [`run`] do the I/O.

mod annotations;
mod api;
mod condition;
mod events;
mod follow;
mod followed;
mod list;
mod node;
mod node_event;
pub mod node_subnets;
mod options;
mod own_file;
mod pace;
mod peers_file;
mod pod;
pub mod pods;
mod reconciler;
mod report_events;
mod run;
#[cfg(test)]
mod tests;

pub use self::{
    annotations::AnnotationPrefix,
    events::Problems,
    options::{ApiAccess, KubernetesOptions},
    pod::PodFacts,
    run::start,
};
