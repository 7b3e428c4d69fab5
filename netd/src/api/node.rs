//! The service `netd.v1.NodeService`.

use netd_api::v1::{self, node_service_server::NodeService};
use tonic::{Request, Response, Status};

use super::Api;
use crate::node::{Error, now_unix};
use netd_domain::Invalid;

/// Kinds of drift, as in [`netd_dataplane::RepairKind`].
const KINDS: [&str; 10] = [
    "link",
    "address",
    "route",
    "neighbour",
    "firewall",
    "sysctl",
    "qdisc",
    "overlay_device",
    "fdb",
    "peer",
];

#[tonic::async_trait]
impl NodeService for Api {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let network = request.into_inner().network;
        let obstacle = self.obstacle(&network)?;
        let counts = self.node.counts();
        let parts = self.node.health().parts();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let metrics = self.node.metrics();
        let drift = KINDS
            .iter()
            .map(|kind| v1::DriftCount { kind: (*kind).to_owned(), repaired: metrics.drift(kind) });
        let capabilities =
            self.info.capabilities.get().into_iter().flatten().map(|c| v1::Capability {
                name: c.name.clone(),
                available: c.available,
                detail: c.detail.clone(),
            });
        let drops = self.node.foreign_forward_drops().await;
        let forwarding = drops.map(|drops| forwarding(&drops));
        Ok(Response::new(v1::GetStatusResponse {
            ready: *self.node.health().watch().borrow() && obstacle.is_none(),
            components: parts
                .into_iter()
                .map(|part| v1::Component {
                    name: part.name,
                    ready: part.problem.is_none(),
                    reason: part.problem.unwrap_or_default(),
                    since: part.since,
                })
                .chain(obstacle.map(|reason| v1::Component {
                    name: format!("attach/{network}"),
                    ready: false,
                    reason,
                    since: now_unix(),
                }))
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.info.started_at,
            node: self.node.config().node.clone(),
            kernel: self.info.kernel.clone(),
            capabilities: capabilities.chain(forwarding).collect(),
            networks: number(counts.networks),
            endpoints: number(counts.endpoints),
            attaching: number(counts.attaching),
            detaching: number(counts.detaching),
            drift: drift.collect(),
            collected: metrics.collected_total(),
            store: self.node.store().kind().to_owned(),
        }))
    }
}

impl Api {
    /// Why no endpoint can be attached to the network; `None`: one can, or none was asked about.
    fn obstacle(&self, network: &str) -> Result<Option<String>, Status> {
        if network.is_empty() {
            return Ok(None);
        }
        let name = network.parse().map_err(|e| Error::from(Invalid::field("network", e)))?;
        Ok(self.node.obstacle(&name).map(|error| error.to_string()))
    }
}

/// The name of a capability that other programs' rules take, not the kernel.
pub(crate) const FORWARDING: &str = "forwarding";

/// Whether the forward chains of other programs let pods' packets pass, judged by their
/// policies. A drop in one nftables table is final, so netd's own rules can't undo it.
fn forwarding(drops: &[String]) -> v1::Capability {
    let detail = match drops {
        [] => String::new(),
        chains => format!(
            "{}: pods reach nothing outside their bridge, and routed pods nobody, unless rules \
             there accept it: see `netd doctor`",
            chains.join(", ")
        ),
    };
    v1::Capability { name: FORWARDING.to_owned(), available: drops.is_empty(), detail }
}
