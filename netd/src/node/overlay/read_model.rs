//! What callers can read about the cluster: nodes, routes, counters.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    core::{ClusterModel, Overlay},
    local_node::LocalNode,
    watch_wireguard,
};
use crate::metrics::DeviceTraffic;
use crate::node::{clock::now_unix, error::Result};
use netd_cluster::{
    LeaseAttrs, Subnets,
    desired::{Desired, PeerState},
    flannel,
    published::Published,
};
use netd_dataplane::{KernelRoute, OverlaySubject};
use netd_domain::overlay::{Hop, OverlayObject};

/// A lease and whether this node can reach it.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The leased subnets.
    pub subnets: Subnets,
    /// The node's name; empty for a node that runs flannel.
    pub node: String,
    /// How the node is reached.
    pub attrs: LeaseAttrs,
    /// Whether it is this node's own lease.
    pub local: bool,
    /// Whether the key is not bound to a lease, so that it never expires.
    pub reservation: bool,
    /// When it was first seen, seconds since the Unix epoch; 0: not known.
    pub since: i64,
    /// Why the node can't be reached; `None`: the kernel has what leads there.
    pub problem: Option<String>,
}

/// The cluster as this node knows it.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// Sorted by subnet.
    pub nodes: Vec<NodeView>,
    /// Since when etcd or the API is out of reach (seconds since the Unix epoch), and why.
    pub behind: Option<(u64, String)>,
    /// The cluster's networks.
    pub networks: Vec<IpNet>,
    /// The backend's name; empty while it is not known.
    pub backend: &'static str,
}

/// The way to an address.
#[derive(Debug, Clone, Default)]
pub struct RouteView {
    /// The lease that contains the address.
    pub node: Option<NodeView>,
    /// The pod that has it, or why that is not known.
    pub endpoint: Option<Result<Published, String>>,
    /// The device that netd wants packets to leave by; empty: not known.
    pub device: String,
    /// The next hop that netd wants; empty: none.
    pub next_hop: String,
    /// Bytes; 0: not known.
    pub mtu: u32,
    /// The kernel's own answer.
    pub kernel: Option<KernelRoute>,
    /// In what the kernel's answer differs; `None`: it does not.
    pub difference: Option<String>,
}

impl Overlay {
    /// Every node that is known.
    pub async fn cluster(&self, node: &dyn LocalNode) -> ClusterView {
        let owners = self.membership.list().await.owners;
        let state = self.state.lock().await;
        let own = state.own.iter().map(|own| self.own_view(node, &state, own));
        let mut nodes: Vec<NodeView> = own.collect();
        for (key, peer) in &state.peers {
            nodes.push(NodeView {
                subnets: peer.lease.subnets,
                node: owners.get(key).map(|owner| owner.node.clone()).unwrap_or_default(),
                attrs: peer.lease.attrs.clone(),
                local: false,
                reservation: peer.lease.reservation,
                since: i64::try_from(peer.since).unwrap_or(0),
                problem: problem(&state, key),
            });
        }
        let unknown = state.unreadable.iter().filter(|(key, _)| !state.peers.contains_key(*key));
        nodes.extend(unknown.map(|(key, why)| unreadable(key, why)));
        nodes.sort_by_key(|n| n.subnets);
        let cluster = state.cluster.as_ref();
        ClusterView {
            nodes,
            behind: self.membership.status().behind,
            networks: cluster.iter().flat_map(|c| c.networks()).collect(),
            backend: cluster.map_or("", |c| c.backend.name()),
        }
    }

    fn own_view(
        &self,
        node: &dyn LocalNode,
        state: &ClusterModel,
        own: &netd_cluster::membership::OwnSubnets,
    ) -> NodeView {
        NodeView {
            subnets: own.subnets,
            node: node.config().node.clone(),
            attrs: state.desired.as_ref().map(|d| d.announce()).unwrap_or_default(),
            local: true,
            reservation: own.reservation,
            since: i64::try_from(own.since).unwrap_or(0),
            problem: node.health().problem("overlay"),
        }
    }

    /// The way to an address: which pod and node, what netd wants, what the kernel does.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn route(&self, node: &dyn LocalNode, ip: IpAddr) -> Result<RouteView> {
        let mut view = RouteView::default();
        let cluster = self.cluster(node).await;
        // Of leases that overlap the one in force is meant.
        let holds = |n: &NodeView| {
            let length = n.subnets.iter().find(|net| net.contains(&ip))?.prefix_len();
            Some((n.local, n.problem.is_none(), length))
        };
        view.node = cluster.nodes.into_iter().filter(|n| holds(n).is_some()).max_by_key(holds);
        if let Some(found) = &view.node {
            view.endpoint = self.published(&found.subnets, ip).await;
            if found.local {
                self.local_way(node, ip, &mut view);
            } else {
                self.remote_way(node, ip, &mut view).await;
            }
        }
        view.kernel = node.dataplane().route_to(ip).await?;
        view.difference = difference(&view).or(view.difference);
        Ok(view)
    }

    /// `None`: no pod has the address.
    async fn published(&self, subnets: &Subnets, ip: IpAddr) -> Option<Result<Published, String>> {
        let etcd = self.etcd.as_ref()?;
        let key = etcd.keys.endpoint_at(&flannel::key::name(subnets), ip);
        match etcd.store.get(&key).await {
            Ok(entry) => {
                let entry = entry?;
                let read = serde_json::from_slice(&entry.value);
                Some(read.map_err(|e| format!("{key} can't be read: {e}")))
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }

    fn local_way(&self, node: &dyn LocalNode, ip: IpAddr, view: &mut RouteView) {
        let endpoints = node.endpoints();
        let found = endpoints.iter().find(|e| e.ips().any(|own| own == ip));
        let Some(endpoint) = found else { return };
        view.mtu = endpoint.wiring.mtu;
        view.device = match &endpoint.wiring.driver {
            netd_domain::WiringDriver::Bridge(bridge) => bridge.to_string(),
            netd_domain::WiringDriver::Routed => endpoint.wiring.host_ifname.to_string(),
        };
    }

    async fn remote_way(&self, node: &dyn LocalNode, ip: IpAddr, view: &mut RouteView) {
        let state = self.state.lock().await;
        let Some(desired) = &state.desired else { return };
        view.difference = watch_wireguard::difference_to(node, desired, ip).await;
        view.mtu = desired.local_plan().mtu;
        let objects = objects_for(desired, ip);
        let routes = objects.iter().filter_map(|object| match object {
            OverlayObject::Route(route) if route.destination.contains(&ip) => Some(route),
            _ => None,
        });
        let narrowest = routes.max_by_key(|route| route.destination.prefix_len());
        match narrowest.map(|route| &route.hop) {
            Some(Hop::Device(device)) => view.device = device.to_string(),
            Some(Hop::Via { gateway, device, .. }) => {
                view.device = device.to_string();
                view.next_hop = gateway.to_string();
            }
            Some(Hop::Blackhole) | None => {}
        }
    }
}

/// A key whose value could never be read.
fn unreadable(key: &str, why: &str) -> NodeView {
    let nothing = Subnets { v4: None, v6: None };
    NodeView {
        subnets: flannel::key::parse(key).unwrap_or(nothing),
        node: String::new(),
        attrs: LeaseAttrs::default(),
        local: false,
        reservation: false,
        since: 0,
        problem: Some(format!("{key}: {why}")),
    }
}

/// Why a peer's subnets can't be reached; `None`: they can.
fn problem(state: &ClusterModel, key: &str) -> Option<String> {
    let Some(desired) = &state.desired else {
        return Some("waiting for a subnet of its own".into());
    };
    if let Some(why) = state.unreadable.get(key) {
        return Some(format!(
            "its key can no longer be read, the lease before it is in force: {why}"
        ));
    }
    if let Some(PeerState::Problem(problem)) = desired.peer(key).map(|peer| peer.state) {
        return Some(problem.to_string());
    }
    if state.refused.is_empty() {
        return state.tunnel_problem.clone();
    }
    let plan = desired.peer_plan(key).unwrap_or_default();
    let refused = |object| state.refused.get(&OverlaySubject::Object(object)).cloned();
    plan.objects.into_iter().find_map(refused).or_else(|| state.tunnel_problem.clone())
}

/// What leads to an address: its lease's objects, and those for the whole cluster.
fn objects_for(desired: &Desired, ip: IpAddr) -> Vec<OverlayObject> {
    let key = desired.lookup(ip).map(|(key, _)| key);
    let plan = key.and_then(|key| desired.peer_plan(key)).unwrap_or_default();
    plan.objects.into_iter().chain(desired.local_plan().objects.iter().cloned()).collect()
}

/// In what the kernel's answer differs from what netd wants.
fn difference(view: &RouteView) -> Option<String> {
    let node = view.node.as_ref()?;
    if let Some(problem) = node.problem.as_ref().filter(|_| !node.local) {
        return Some(problem.clone());
    }
    let Some(kernel) = &view.kernel else {
        return Some("the kernel has no route to it".to_owned());
    };
    let device = &kernel.device;
    if !view.device.is_empty() && *device != view.device {
        return Some(format!("the kernel sends it out by {device}, not {}", view.device));
    }
    let gateway = kernel.gateway.map(|ip| ip.to_string()).unwrap_or_default();
    if !view.next_hop.is_empty() && !gateway.is_empty() && gateway != view.next_hop {
        return Some(format!("the kernel's next hop is {gateway}, not {}", view.next_hop));
    }
    None
}

impl Overlay {
    /// Updates the metrics that are read rather than counted: the overlay devices' counters,
    /// the tunnels' losses, and for how long etcd has been out of reach.
    pub async fn measure(&self, node: &dyn LocalNode) {
        let behind = self.membership.status().behind;
        let now = u64::try_from(now_unix()).unwrap_or(0);
        let behind = behind.map_or(0, |(since, _)| now.saturating_sub(since).max(1));
        if self.etcd.is_some() {
            node.metrics().set_etcd_behind(behind);
        } else {
            node.metrics().set_kubernetes_behind(behind);
        }
        let (backend, names, tunnelled) = {
            let state = self.state.lock().await;
            let devices = state.desired.iter().flat_map(|d| &d.local_plan().devices);
            let names: Vec<_> = devices.map(|device| device.name.clone()).collect();
            let tunnelled =
                state.desired.as_ref().is_some_and(|d| !d.local_plan().tunnels.is_empty());
            (state.cluster.as_ref().map_or("", |c| c.backend.name()), names, tunnelled)
        };
        let losses = if tunnelled { self.losses().await } else { Vec::new() };
        node.metrics().external().set_tunnels(losses);
        match node.dataplane().device_counters(names).await {
            Ok(counters) => {
                let traffic = counters.into_iter().map(|c| DeviceTraffic {
                    device: c.device.to_string(),
                    bytes: [c.received_bytes, c.sent_bytes],
                    packets: [c.received_packets, c.sent_packets],
                });
                node.metrics().external().set_devices(backend, traffic.collect());
            }
            Err(error) => {
                tracing::debug!(%error, "the counters of the overlay's devices can't be read: {error}")
            }
        }
    }

    /// How many peers there are to be reached, and how many of them can't be.
    pub(super) fn programmed(&self, state: &ClusterModel) -> (usize, usize) {
        let failing = match (state.refused.is_empty(), &state.tunnel_problem) {
            (true, None) => state.desired.as_ref().map_or(0, |d| d.problems().count()),
            _ => state.peers.keys().filter(|key| problem(state, key).is_some()).count(),
        };
        (state.peers.len(), failing)
    }

    /// The cluster's store and where all nodes' endpoints are in it.
    ///
    /// # Errors
    /// [`crate::node::Error::NoEtcd`].
    pub fn endpoints(&self) -> Result<(Arc<dyn netd_store::Store>, String)> {
        let etcd = self.etcd()?;
        Ok((etcd.store.clone(), etcd.keys.endpoints()))
    }
}
