//! Services by the rules of kube-proxy's nftables mode, written by hand as Kubernetes 1.33 writes
//! them: the Kubernetes that the tests run has only the older modes.

use std::{net::IpAddr, thread};

use anyhow::{Result, anyhow, ensure};
use testbed::{
    ApiServer, Plan, Sandbox, case,
    cluster::Families,
    net::probe::{self, Mirror},
};

use super::{backend, cluster};

const SERVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 80));
const PORT: u16 = 80;
const NODE_PORT: u16 = 30080;
/// Of each pod's server.
const TARGET: u16 = 7000;
/// Connections of one client: that one of three endpoints gets none happens once in 190,000 runs.
const CONNECTIONS: usize = 30;

/// kube-proxy's table on a node, for one Service.
fn rules(node_ip: IpAddr, endpoints: &[IpAddr]) -> String {
    let numbered = || endpoints.iter().enumerate();
    let chosen: Vec<_> = numbered().map(|(n, _)| format!("{n} : goto endpoint-{n}")).collect();
    let chains: String = numbered()
        .map(|(n, ip)| {
            format!(
                "chain endpoint-{n} {{ ip saddr {ip} jump mark-for-masquerade\n\
                 meta l4proto tcp dnat to {ip}:{TARGET}; }}\n"
            )
        })
        .collect();
    format!(
        "table ip kube-proxy {{
            set cluster-ips {{ type ipv4_addr; elements = {{ {SERVICE} }}; }}
            set nodeport-ips {{ type ipv4_addr; elements = {{ {node_ip} }}; }}
            chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}
            chain masquerading {{
                meta mark and 0x4000 == 0 return
                meta mark set meta mark xor 0x4000
                masquerade fully-random
            }}
            {chains}
            chain service-web {{
                ip daddr {SERVICE} tcp dport {PORT} ip saddr != 10.5.0.0/16 jump mark-for-masquerade
                numgen random mod {} vmap {{ {} }}
            }}
            chain external-web {{ jump mark-for-masquerade; goto service-web; }}
            map service-ips {{
                type ipv4_addr . inet_proto . inet_service : verdict
                elements = {{ {SERVICE} . tcp . {PORT} : goto service-web }}
            }}
            map service-nodeports {{
                type inet_proto . inet_service : verdict
                elements = {{ tcp . {NODE_PORT} : goto external-web }}
            }}
            chain services {{
                ip daddr . meta l4proto . th dport vmap @service-ips
                ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
            }}
            chain cluster-ips-check {{ ip daddr @cluster-ips reject; ip daddr 10.96.0.0/16 drop; }}
            chain filter-forward {{
                type filter hook forward priority -110
                ct state new jump cluster-ips-check
            }}
            chain filter-output-post-dnat {{
                type filter hook output priority -90
                ct state new jump cluster-ips-check
            }}
            chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
            chain nat-output {{ type nat hook output priority -100; jump services; }}
            chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
        }}",
        endpoints.len(),
        chosen.join(", ")
    )
}

/// Every connection of a pod to the Service is answered. An endpoint sees who asks, but itself,
/// which sees its node.
fn from_pod(pod: &Sandbox) -> Result<()> {
    let own = pod.v4()?;
    let mut as_itself = 0;
    for n in 0..CONNECTIONS {
        let seen = probe::tcp(&pod.net, SERVICE, PORT)
            .map_err(|error| error.context(format!("connection {n} of {}", pod.id)))?;
        as_itself += usize::from(seen == own);
    }
    ensure!((1..CONNECTIONS).contains(&as_itself), "{as_itself} of {CONNECTIONS} as {own}");
    Ok(())
}

fn services(driver: &'static str) -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(2);
        let plan = Plan { driver, ..plan };
        let nodes = cluster(bed, &api, &plan)?;
        // Two on one node, so that a Service is also reached without leaving it.
        let places = [(&nodes[0], "a"), (&nodes[0], "b"), (&nodes[1], "c")];
        let pods: Vec<Sandbox> = places
            .iter()
            .map(|(node, name)| Sandbox::attached(&node.host, name))
            .collect::<Result<_>>()?;
        let endpoints: Vec<IpAddr> = pods.iter().map(Sandbox::v4).collect::<Result<_>>()?;
        let _mirrors =
            pods.iter().map(|pod| Mirror::serve(&pod.net, TARGET)).collect::<Result<Vec<_>>>()?;
        for node in &nodes {
            let file = node.host.directory().join("kube-proxy.nft");
            std::fs::write(&file, rules(node.host.v4.into(), &endpoints))?;
            node.host.net.sh(&format!("nft -f {}", file.display()))?;
        }
        thread::scope(|scope| {
            let clients: Vec<_> = pods.iter().map(|pod| scope.spawn(|| from_pod(pod))).collect();
            clients.into_iter().try_for_each(|c| c.join().map_err(|_| anyhow!("panicked"))?)
        })?;
        let client = bed.host("client")?;
        for node in &nodes {
            for _ in 0..CONNECTIONS {
                let seen = probe::tcp(&client.net, node.host.v4.into(), NODE_PORT)?;
                ensure!(seen != IpAddr::from(client.v4), "not masqueraded");
                // The node itself reaches the Service, too.
                probe::tcp(&node.host.net, SERVICE, PORT)?;
            }
        }
        Ok(())
    })
}

#[test]
fn services_answer_on_the_bridge_driver() -> Result<()> {
    services("bridge")
}

#[test]
fn services_answer_on_the_routed_driver() -> Result<()> {
    services("routed")
}
