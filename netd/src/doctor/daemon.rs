//! Checks the running netd, and finds host interfaces that belong to no endpoint.

use std::{collections::HashSet, path::Path, time::Duration};

use netd_api::v1::{
    self, GetStatusRequest, GetStatusResponse, ListEndpointsRequest, ListNetworksRequest,
    endpoint_service_client::EndpointServiceClient, network_service_client::NetworkServiceClient,
    node_service_client::NodeServiceClient,
};
use tonic::Code;

use super::{finding::Finding, unit};
use crate::api::FORWARDING;
use crate::client::connect;
use crate::kernel_modules::BACKENDS;
use crate::terminal::Failure;
use netd_domain::{
    Network, Pool,
    network::{Leased, NetworkOptions},
};

const CHECK: &str = "netd";
const STALE: &str = "leftovers";

/// What the running netd answers.
#[derive(Debug)]
pub(super) struct DaemonReport {
    status: GetStatusResponse,
    /// Names of the host interfaces of all endpoints.
    host_links: HashSet<String>,
    networks: Vec<v1::Network>,
}

/// The networks that netd has, with the pools that it leased.
pub(super) fn networks(report: &DaemonReport) -> Vec<Network> {
    let pool =
        |pool: &v1::Pool| Pool::new(pool.subnet.parse().ok()?, None, (None, None), vec![]).ok();
    let read = |network: &v1::Network| {
        let options = NetworkOptions {
            bridge: network.bridge.parse().ok(),
            leased: Some(Leased::default()),
            ..NetworkOptions::default()
        };
        let pools = network.pools.iter().filter_map(pool).collect();
        Network::new(network.name.parse().ok()?, pools, options).ok()
    };
    report.networks.iter().filter_map(read).collect()
}

/// Asks netd; the error says why there is no answer.
pub(super) async fn ask(socket: &Path, timeout: Duration) -> Result<DaemonReport, String> {
    let asked = async {
        let channel = connect(socket, timeout).await?;
        let mut node = NodeServiceClient::new(channel.clone());
        let status = node.get_status(GetStatusRequest::default()).await?.into_inner();
        let mut networks = NetworkServiceClient::new(channel.clone());
        let networks = networks.list_networks(ListNetworksRequest {}).await?.into_inner().networks;
        let networks: Vec<_> = networks.into_iter().filter_map(|status| status.network).collect();
        let mut endpoints = EndpointServiceClient::new(channel);
        let mut request = ListEndpointsRequest { page_size: 5000, ..Default::default() };
        let mut host_links = HashSet::new();
        loop {
            let page = endpoints.list_endpoints(request.clone()).await?.into_inner();
            host_links.extend(page.endpoints.into_iter().map(|e| e.host_interface));
            if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
                return Ok(DaemonReport { status, host_links, networks });
            }
            request.page_token = page.next_page_token;
        }
    };
    let answer: Result<DaemonReport, Failure> = asked.await;
    answer.map_err(|failure| {
        let reason = match &failure {
            // Its socket may be systemd's, which takes calls while no netd does.
            Failure::Refused(status) if status.code() == Code::Cancelled => {
                format!("netd does not answer at {} within {timeout:?}", socket.display())
            }
            _ => {
                let lines = failure.lines();
                let first = lines.first().map(String::as_str).unwrap_or_default();
                first.trim_start_matches("error: ").to_owned()
            }
        };
        reason + &unit::says()
    })
}

pub(super) fn judge(netd: &Result<DaemonReport, String>) -> Vec<Finding> {
    let facts = match netd {
        Ok(facts) => facts,
        Err(reason) => {
            return vec![
                Finding::fail(CHECK, reason)
                    .breaks("pods can't be started or stopped; those that run keep their network")
                    .fix("systemctl restart netd; if that does not help: journalctl -u netd"),
            ];
        }
    };
    let unready = facts.status.components.iter().filter(|c| !c.ready);
    let mut found: Vec<_> = unready
        .map(|c| {
            let what = format!("{} is not ready: {}", c.name, c.reason);
            let fix = "do what the reason says; netd's log has more: journalctl -u netd";
            // If the node is ready all the same, pods do not need this part.
            match facts.status.ready {
                true => Finding::warn(CHECK, what).breaks("what the reason says").fix(fix),
                false => {
                    Finding::fail(CHECK, what).breaks("pods that need it can't be started").fix(fix)
                }
            }
        })
        .collect();
    // A backend that lacks something makes the overlay not ready, and says it there. What stops
    // forwarding is no matter of the kernel: the check of firewalls names it and its cure.
    let missed =
        |name: &str| name != FORWARDING && BACKENDS.iter().all(|backend| backend.name != name);
    let lacking = facts.status.capabilities.iter().filter(|c| !c.available && missed(&c.name));
    found.extend(lacking.map(|c| {
        Finding::warn(CHECK, format!("this kernel lacks {}: {}", c.name, c.detail))
            .breaks("what needs it; the finding says what")
            .fix("use a kernel that has it, if pods need it")
    }));
    if !facts.status.ready && found.is_empty() {
        found.push(
            Finding::fail(CHECK, "netd is not ready and does not say why")
                .breaks("pods can't be started")
                .fix("see its log: journalctl -u netd"),
        );
    }
    if found.is_empty() {
        let version = &facts.status.version;
        found.push(Finding::ok(CHECK, format!("version {version} runs and is ready")));
    }
    found
}

pub(super) fn host_links() -> Vec<String> {
    let all = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether it is `nd` and twelve hex digits, as [`netd_domain::EndpointKey::host_ifname`]
/// makes them.
fn is_host_ifname(name: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    name.strip_prefix("nd").is_some_and(|rest| rest.len() == 12 && rest.bytes().all(hex))
}

/// Devices with netd's names that no endpoint has. Only a running netd knows that.
pub(super) fn stale(netd: &Result<DaemonReport, String>, links: &[String]) -> Vec<Finding> {
    let Ok(facts) = netd else { return vec![] };
    let ours = links.iter().filter(|name| is_host_ifname(name));
    let left: Vec<_> = ours.filter(|n| !facts.host_links.contains(*n)).cloned().collect();
    if left.is_empty() {
        return vec![Finding::ok(STALE, "every device with a name of netd belongs to an endpoint")];
    }
    vec![
        Finding::warn(STALE, format!("no endpoint has {}", left.join(", ")))
            .breaks(
                "nothing now: netd removes those that lead nowhere; behind the others live pods \
                 that netd has no record of, and it gives their addresses to nobody",
            )
            .fix(
                "check again in a minute; `netd status` names the pods (foreign-pods): delete them",
            ),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use netd_api::v1::{Capability, Component};

    use super::*;
    use crate::doctor::finding::Severity;

    fn facts(status: GetStatusResponse, links: &[&str]) -> Result<DaemonReport, String> {
        Ok(DaemonReport {
            status,
            host_links: links.iter().map(|l| (*l).to_owned()).collect(),
            networks: vec![],
        })
    }

    #[test]
    fn what_is_not_ready_is_named() {
        let status = GetStatusResponse {
            components: vec![Component {
                name: "store".into(),
                reason: "disk full".into(),
                ..Default::default()
            }],
            capabilities: vec![Capability { name: "tbf".into(), ..Default::default() }],
            ..Default::default()
        };
        let found = judge(&facts(status, &[]));
        assert!(found[0].what.contains("disk full") && found[0].severity == Severity::Fail);
        assert_eq!(found[1].severity, Severity::Warn);
        assert_eq!(judge(&facts(GetStatusResponse::default(), &[]))[0].severity, Severity::Fail);
        let ready = GetStatusResponse { ready: true, ..Default::default() };
        assert_eq!(judge(&facts(ready, &[]))[0].severity, Severity::Ok);
    }

    #[test]
    fn only_own_devices_without_an_endpoint_are_stale() {
        let links = ["nd0123456789ab", "ndabcdefabcdef", "ndnot", "eth0"].map(str::to_owned);
        let netd = facts(GetStatusResponse::default(), &["nd0123456789ab"]);
        let found = stale(&netd, &links);
        assert_eq!(found[0].what, "no endpoint has ndabcdefabcdef");
        assert!(stale(&Err("gone".into()), &links).is_empty());
    }

    #[tokio::test]
    async fn a_netd_that_is_not_there_fails() {
        let netd = ask(Path::new("/nonexistent/s"), Duration::from_secs(1)).await;
        let found = judge(&netd);
        assert_eq!(found[0].severity, Severity::Fail);
        assert!(found[0].what.contains("/nonexistent/s"), "{found:?}");
    }
}
