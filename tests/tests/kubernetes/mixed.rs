//! One cluster and one overlay with flannel's nodes: their annotations, written by hand as
//! flannel writes them, and what flannel's nodes read of netd's.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use testbed::{
    ApiServer, Plan, case,
    cluster::{
        Families, Node,
        flannel::{self, FlannelNode, annotations},
    },
    net::probe::{self, Mirror},
    service::Service,
    wait,
};

use super::{SOON, backend, cluster, pods};

/// flannel's annotations of a vxlan node.
pub(crate) fn vxlan(node: &FlannelNode) -> Value {
    annotations(
        "vxlan",
        &format!("{{\"VNI\":1,\"VtepMAC\":\"{}\"}}", node.mac),
        &node.host.v4.to_string(),
    )
}

/// What flannel reads of one of netd's Nodes, whatever the backend: its podCIDR and its address.
fn subnet_and_address(
    api: &ApiServer,
    node: &Node,
    said: &Map<String, Value>,
) -> Result<(String, String)> {
    let cidr = api.node(&node.host.name)?["spec"]["podCIDR"].clone();
    let both = cidr.as_str().zip(said["public-ip"].as_str());
    let (cidr, ip) = both.context("no podCIDR or public-ip")?;
    Ok((cidr.to_owned(), ip.to_owned()))
}

#[test]
fn pods_of_flannels_nodes_and_netds_reach_each_other() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(2);
        let nodes = cluster(bed, &api, &plan)?;
        let pods = pods(&nodes)?;
        let old = FlannelNode::vxlan(bed, "old", "10.5.77.0/24")?;
        // flannel reads of netd's nodes what their annotations say.
        for node in &nodes {
            let said = api.annotations(&node.host.name)?;
            let data: Value = serde_json::from_str(said["backend-data"].as_str().context("data")?)?;
            let (cidr, ip) = subnet_and_address(&api, node, &said)?;
            old.program_one(&cidr, &ip, data["VtepMAC"].as_str().context("no MAC")?)?;
        }
        api.add_node("old", &["10.5.77.0/24"], &vxlan(&old))?;
        let mirrors = [Mirror::serve(&old.pod, 7000)?, Mirror::serve(&pods[0].net, 7000)?];
        wait::until(SOON, "netd's pods reach flannel's", || {
            pods.iter().try_for_each(|pod| probe::ping(&pod.net, old.pod_ip))
        })?;
        ensure!(probe::tcp(&pods[0].net, old.pod_ip, 7000)? == pods[0].v4()?);
        ensure!(probe::tcp(&old.pod, pods[0].v4()?, 7000)? == old.pod_ip);
        drop(mirrors);
        let known = nodes[0].knows("10.5.77.0/24")?.context("not listed")?;
        ensure!(known.programmed && known.node == "old", "{known:?}");
        // A heartbeat of its kubelet is no news.
        let before = nodes[0].metric("netd_overlay_convergence_seconds_count")?;
        for beat in 0..5 {
            let beat = json!({ "metadata": { "labels": { "beat": beat.to_string() } } });
            api.patch_node("old", &beat)?;
        }
        wait::pause(std::time::Duration::from_secs(1));
        let after = nodes[0].metric("netd_overlay_convergence_seconds_count")?;
        ensure!(after - before < 1.0, "programmed {} times", after - before);
        // A deleted Node goes at once.
        api.kubectl(&["delete", "node", "old"])?;
        wait::until(SOON, "its route is gone", || {
            let routes = nodes[0].routes()?;
            ensure!(!routes.contains("10.5.77.0/24"), "{routes}");
            Ok(())
        })?;
        Ok(())
    })
}

/// A node of flannel's with the backend host-gw, which has routes and nothing else.
#[test]
fn pods_of_flannels_nodes_and_netds_reach_each_other_over_host_gw() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("host-gw")).nodes(2);
        let nodes = cluster(bed, &api, &plan)?;
        let pods = pods(&nodes)?;
        let old = FlannelNode::vxlan(bed, "old", "10.5.77.0/24")?;
        old.host.net.sh("ip link delete flannel.1")?;
        for node in &nodes {
            let said = api.annotations(&node.host.name)?;
            ensure!(said["backend-type"] == "host-gw" && said["backend-data"] == "null");
            let (cidr, via) = subnet_and_address(&api, node, &said)?;
            old.host.net.sh(&format!("ip route add {cidr} via {via} dev eth0"))?;
        }
        let said = annotations("host-gw", "null", &old.host.v4.to_string());
        api.add_node("old", &["10.5.77.0/24"], &said)?;
        wait::until(SOON, "netd's pods reach flannel's", || {
            pods.iter().try_for_each(|pod| probe::ping(&pod.net, old.pod_ip))
        })?;
        let mirror = Mirror::serve(&old.pod, 7000)?;
        ensure!(probe::tcp(&pods[0].net, old.pod_ip, 7000)? == pods[0].v4()?);
        drop(mirror);
        let routes = nodes[0].routes()?;
        let via = format!("10.5.77.0/24 via {} dev eth0", old.host.v4);
        ensure!(routes.contains(&via), "{routes}");
        Ok(())
    })
}

/// A WireGuard device of flannel's, by the one program that needs no module of the kernel: it lives as
/// long as what is returned. With it, the device's name and its public key.
fn wireguard(old: &FlannelNode) -> Result<(Service, String, String)> {
    // The socket of its settings has the device's name, in a directory of the whole machine.
    let device = format!("fwg{}", std::process::id());
    let here = old.host.directory();
    let mut command = old.host.net.command("wireguard-go");
    command.args(["-f", &device]);
    let service = Service::start("wireguard-go", command, &here.join("wireguard-go.log"))?;
    let socket = format!("/var/run/wireguard/{device}.sock");
    wait::until(SOON, "wireguard-go listens", || Ok(std::fs::metadata(&socket).map(drop)?))?;
    let key = here.join("wireguard.key");
    let key = key.display();
    let public = old.host.net.sh(&format!(
        "umask 077; wg genkey >{key}; wg set {device} listen-port 51820 private-key {key}
         ip address add {}/32 dev {device}; ip link set {device} mtu 1420 up
         ip route add 10.5.0.0/16 dev {device} scope link
         wg pubkey <{key}",
        old.subnet.network()
    ))?;
    Ok((service, device, public.trim().to_owned()))
}

/// A node of flannel's with the backend wireguard: what it reads of netd's annotations is enough for
/// its peers, and netd takes its own.
#[test]
fn pods_of_flannels_nodes_and_netds_reach_each_other_over_wireguard() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("wireguard")).nodes(2);
        let nodes = cluster(bed, &api, &plan)?;
        let pods = pods(&nodes)?;
        let old = FlannelNode::vxlan(bed, "old", "10.5.77.0/24")?;
        old.host.net.sh("ip link delete flannel.1")?;
        let (_service, device, public) = wireguard(&old)?;
        for node in &nodes {
            let said = api.annotations(&node.host.name)?;
            ensure!(said["backend-type"] == "wireguard", "{said:?}");
            let data: Value = serde_json::from_str(said["backend-data"].as_str().context("data")?)?;
            let key = data["PublicKey"].as_str().context("no PublicKey")?;
            let (cidr, ip) = subnet_and_address(&api, node, &said)?;
            let peer = format!("wg set {device} peer {key} allowed-ips {cidr} endpoint {ip}:51820");
            old.host.net.sh(&peer)?;
        }
        let data = json!({ "PublicKey": public }).to_string();
        let said = annotations("wireguard", &data, &old.host.v4.to_string());
        api.add_node("old", &["10.5.77.0/24"], &said)?;
        let mirrors = [Mirror::serve(&old.pod, 7000)?, Mirror::serve(&pods[0].net, 7000)?];
        wait::until(SOON, "netd's pods reach flannel's", || {
            pods.iter().try_for_each(|pod| probe::ping(&pod.net, old.pod_ip))
        })?;
        ensure!(probe::tcp(&pods[0].net, old.pod_ip, 7000)? == pods[0].v4()?);
        ensure!(probe::tcp(&old.pod, pods[0].v4()?, 7000)? == old.pod_ip);
        drop(mirrors);
        Ok(())
    })
}

/// What flannel makes for IPv6 on a node that has IPv4: a device, and the pod's other address.
fn add_ipv6(old: &FlannelNode) -> Result<()> {
    old.host.net.sh(&format!(
        "sysctl -qw net.ipv6.conf.all.forwarding=1
         ip link add flannel-v6.1 mtu 1430 type vxlan id 1 dev eth0 local {} dstport 8472 nolearning
         ip address add fd00:5:0:77::/128 dev flannel-v6.1 nodad; ip link set flannel-v6.1 up
         ip address add fd00:5:0:77::1/64 dev cni0 nodad",
        old.host.v6
    ))?;
    let pod = "ip address add fd00:5:0:77::2/64 dev eth0 nodad
        ip -6 route add default via fd00:5:0:77::1";
    old.pod.sh(pod).map(drop)
}

/// What flannel programs of one of netd's nodes, by what its annotations say.
fn program_both(old: &FlannelNode, said: &Map<String, Value>, cidrs: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    let mac = |key: &str| {
        let data: Value = serde_json::from_str(&text(&said[key])?)?;
        text(&data["VtepMAC"])
    };
    let (v4, v6) = (text(&cidrs[0])?, text(&cidrs[1])?);
    old.program_one(&v4, &text(&said["public-ip"])?, &mac("backend-data")?)?;
    let (public, mac) = (text(&said["public-ipv6"])?, mac("backend-v6-data")?);
    flannel::program(&old.host, "flannel-v6.1", &v6, &public, &mac)
}

#[test]
fn pods_of_flannels_nodes_and_netds_reach_each_other_over_both_families() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::Dual, backend("vxlan")).nodes(2);
        let nodes = cluster(bed, &api, &plan)?;
        let pods = pods(&nodes)?;
        let old = FlannelNode::vxlan(bed, "old", "10.5.77.0/24")?;
        add_ipv6(&old)?;
        for node in &nodes {
            let cidrs = api.node(&node.host.name)?["spec"]["podCIDRs"].clone();
            program_both(&old, &api.annotations(&node.host.name)?, &cidrs)?;
        }
        let mac = flannel::mac_of_device(&old.host, "flannel-v6.1")?;
        let mut said = vxlan(&old);
        let data = json!({"VNI": 1, "VtepMAC": mac}).to_string();
        said["flannel.alpha.coreos.com/backend-v6-data"] = data.into();
        said["flannel.alpha.coreos.com/public-ipv6"] = old.host.v6.to_string().into();
        api.add_node("old", &["10.5.77.0/24", "fd00:5:0:77::/64"], &said)?;
        let v6: IpAddr = "fd00:5:0:77::2".parse()?;
        let mirror = Mirror::serve(&old.pod, 7000)?;
        for pod in &pods {
            wait::until(SOON, "netd's pods reach flannel's", || {
                probe::ping(&pod.net, old.pod_ip)?;
                probe::ping(&pod.net, v6)
            })?;
            let seen = probe::tcp(&pod.net, v6, 7000)?;
            ensure!(pod.ips.contains(&seen), "seen as {seen}, not one of {:?}", pod.ips);
        }
        drop(mirror);
        let neighbours = nodes[0].host.net.sh("ip -6 neigh show dev flannel-v6.1")?;
        ensure!(neighbours.contains(&mac), "{neighbours}");
        let entries = nodes[0].host.net.sh("bridge fdb show dev flannel-v6.1")?;
        ensure!(entries.contains(&format!("{mac} dst {}", old.host.v6)), "{entries}");
        Ok(())
    })
}

/// netd takes the place of a kube-flannel that is no longer there: the VTEP's MAC stays, so other
/// nodes' entries stay right.
#[test]
fn the_mac_that_flannel_announced_is_taken_over() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(1);
        let host = bed.host("n1")?;
        flannel::device(&host, "10.5.1.0".parse()?)?;
        let mac = flannel::mac_of(&host)?;
        let said = annotations(
            "vxlan",
            &format!("{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}"),
            &host.v4.to_string(),
        );
        api.add_node("n1", &["10.5.1.0/24"], &said)?;
        let before = api.annotations("n1")?;
        let mut node = Node::launch_in_kubernetes(host, &plan, &api)?;
        node.wait_ready()?;
        ensure!(flannel::mac_of(&node.host)? == mac, "another MAC than flannel's");
        wait::pause(std::time::Duration::from_secs(2));
        let after = api.annotations("n1")?;
        ensure!(before == after, "{before:?}, then {after:?}");
        Ok(())
    })
}

/// Annotations are other nodes' words: what can't be is named, and disturbs nobody else.
#[test]
fn hostile_nodes_are_named_and_disturb_nobody() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(2);
        let nodes = cluster(bed, &api, &plan)?;
        let pods = pods(&nodes)?;
        let data = |mac: &str| format!("{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}");
        let good = data("02:00:00:00:00:77");
        let huge = format!("\"{}\"", "x".repeat(100_000));
        let bad = [
            ("garbage", "10.5.70.0/24", annotations("vxlan", "{{", "192.0.2.70"), "backend-data"),
            ("huge", "10.5.71.0/24", annotations("vxlan", &huge, "192.0.2.71"), "backend-data"),
            ("nowhere", "10.5.72.0/24", annotations("vxlan", &good, "here"), "public-ip"),
            ("six", "10.5.73.0/24", annotations("vxlan", &good, "2001:db8::1"), "public-ip"),
            ("outside", "10.99.0.0/24", annotations("vxlan", &good, "192.0.2.74"), "outside"),
            ("other", "10.5.75.0/24", annotations("host-gw", "null", "192.0.2.75"), "vxlan"),
            ("twice", "10.5.1.0/24", annotations("vxlan", &good, "192.0.2.76"), "own subnet"),
        ];
        for (name, cidr, said, _) in &bad {
            api.add_node(name, &[cidr], said)?;
        }
        wait::until(SOON, "each is named", || {
            let listed = nodes[0].listed()?;
            for (name, _, _, says) in &bad {
                let shown = format!("{:?}", listed.nodes);
                let found =
                    listed.nodes.iter().find(|n| n.node == *name || n.problem.contains(name));
                let found = found.with_context(|| format!("{name} is not listed: {shown}"))?;
                ensure!(!found.programmed && found.problem.contains(says), "{found:?}");
            }
            Ok(())
        })?;
        super::all_reach_each_other(&pods)?;
        // A Node without a pod network is nobody's peer.
        api.add_node("plain", &["10.5.90.0/24"], &json!({}))?;
        wait::pause(std::time::Duration::from_secs(1));
        ensure!(nodes[0].knows("10.5.90.0/24")?.is_none());
        Ok(())
    })
}
