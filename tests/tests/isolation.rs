//! Who can't reach whom, and who can't pretend to be another pod.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Bed, Daemon, DaemonConfig, Host, Sandbox, case,
    net::{
        probe::{self, Mirror},
        raw::{self, Mac, Raw},
    },
};

/// Long enough for a frame to cross two veths many times over.
const SOON: Duration = Duration::from_millis(400);
const PORT: u16 = 9000;

/// A pod that sends frames, one that looks for them, and one that is impersonated.
struct Trio {
    mallory: Sandbox,
    alice: Sandbox,
    bob: Sandbox,
    /// Where mallory has to send what is for bob.
    next_hop: Mac,
    wire: Raw,
    ear: Raw,
    _netd: Daemon,
    host: Host,
}

impl Trio {
    fn start(bed: &Bed, driver: &str) -> Result<Self> {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, &DaemonConfig::with_driver(driver))?;
        let mallory = Sandbox::attached(&host, "mallory")?;
        let alice = Sandbox::attached(&host, "alice")?;
        let bob = Sandbox::attached(&host, "bob")?;
        let endpoints = netd.endpoints()?;
        let own = endpoints.iter().find(|endpoint| endpoint.sandbox_id == mallory.id);
        let next_hop = match driver {
            "routed" => raw::parse_mac(&own.context("mallory's endpoint")?.host_mac)?,
            _ => raw::mac_of(&bob.net, "eth0")?,
        };
        let (wire, ear) = (Raw::open(&mallory.net, "eth0")?, Raw::open(&bob.net, "eth0")?);
        Ok(Self { mallory, alice, bob, next_hop, wire, ear, _netd: netd, host })
    }

    /// Whether a datagram from mallory with this source reaches bob.
    fn arrives(&self, mac: Mac, from: IpAddr) -> Result<bool> {
        let payload = format!("from {from} {mac:?}");
        let macs = (mac, self.next_hop);
        let frame = match (from, self.bob.v4()?, self.bob.v6()?) {
            (IpAddr::V4(from), IpAddr::V4(to), _) => {
                raw::udp4(macs, (from, to), PORT, payload.as_bytes())
            }
            (IpAddr::V6(from), _, IpAddr::V6(to)) => {
                raw::udp6(macs, (from, to), PORT, payload.as_bytes())
            }
            _ => anyhow::bail!("families are mixed up"),
        };
        self.wire.send(&frame)?;
        Ok(self.ear.receive(SOON, |frame| contains(frame, payload.as_bytes())).is_some())
    }
}

fn contains(frame: &[u8], part: &[u8]) -> bool {
    frame.windows(part.len()).any(|window| window == part)
}

fn nobody_sends_with_a_source_that_is_not_its_own(driver: &str) -> Result<()> {
    case(|bed| {
        let trio = Trio::start(bed, driver)?;
        let own = raw::mac_of(&trio.mallory.net, "eth0")?;
        for honest in [trio.mallory.v4()?, trio.mallory.v6()?] {
            ensure!(trio.arrives(own, honest)?, "an honest packet from {honest} must arrive");
        }
        let others: [IpAddr; 5] = [
            trio.alice.v4()?,
            trio.alice.v6()?,
            IpAddr::from(trio.host.v4),
            Ipv4Addr::new(10, 88, 200, 200).into(),
            Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 0xbeef).into(),
        ];
        for other in others {
            ensure!(!trio.arrives(own, other)?, "a packet with the source {other} got through");
        }
        let alice = raw::mac_of(&trio.alice.net, "eth0")?;
        for (mac, ip) in [(alice, trio.mallory.v4()?), (alice, trio.mallory.v6()?)] {
            ensure!(!trio.arrives(mac, ip)?, "a frame with another's MAC got through ({ip})");
        }
        ensure!(trio.arrives(own, trio.mallory.v4()?)?, "the honest one is still heard");
        Ok(())
    })
}

#[test]
fn nobody_on_a_bridge_sends_with_a_source_that_is_not_its_own() -> Result<()> {
    nobody_sends_with_a_source_that_is_not_its_own("bridge")
}

#[test]
fn no_routed_pod_sends_with_a_source_that_is_not_its_own() -> Result<()> {
    nobody_sends_with_a_source_that_is_not_its_own("routed")
}

/// Claims another's address to everybody, and looks whether anybody hears it.
#[test]
fn nobody_claims_the_gateway_or_a_neighbour() -> Result<()> {
    case(|bed| {
        let trio = Trio::start(bed, "bridge")?;
        let own = raw::mac_of(&trio.mallory.net, "eth0")?;
        let gateways = (Ipv4Addr::new(10, 88, 0, 1), Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 1));
        let IpAddr::V4(alice) = trio.alice.v4()? else { anyhow::bail!("no v4") };
        let IpAddr::V6(alice6) = trio.alice.v6()? else { anyhow::bail!("no v6") };
        let claims = [
            raw::arp_claim(own, own, gateways.0),
            raw::arp_claim(own, own, alice),
            raw::nd_claim(own, own, gateways.1),
            raw::nd_claim(own, own, alice6),
        ];
        let IpAddr::V4(mallory) = trio.mallory.v4()? else { anyhow::bail!("no v4") };
        let honest = raw::arp_claim(own, own, mallory);
        trio.wire.send(&honest)?;
        ensure!(trio.ear.receive(SOON, |frame| frame == honest).is_some(), "an honest claim");
        for (number, claim) in claims.iter().enumerate() {
            trio.wire.send(claim)?;
            let heard = trio.ear.receive(SOON, |frame| frame == claim.as_slice());
            ensure!(heard.is_none(), "bob heard claim {number}");
        }
        // The host hasn't believed any either.
        let known = trio.host.net.sh("ip neigh show dev cni0")?;
        let mallorys = known.lines().filter(|line| line.contains(&shown(own)));
        for line in mallorys {
            let own = [trio.mallory.v4()?.to_string(), trio.mallory.v6()?.to_string()];
            let first = line.split(' ').next().unwrap_or_default();
            ensure!(own.iter().any(|ip| ip == first) || first.starts_with("fe80"), "{line}");
        }
        probe::ping(&trio.bob.net, trio.alice.v4()?)?;
        probe::ping(&trio.bob.net, gateways.0.into())
    })
}

fn shown(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn networks_are_isolated_from_each_other_in_both_families() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let config = DaemonConfig::default()
            .and_network("blue", "bridge", &["10.77.0.0/24", "fd00:77::/64"])
            .and_network("green", "routed", &["10.66.0.0/24", "fd00:66::/64"]);
        let _netd = Daemon::start(&host, &config)?;
        let mut pods = Vec::new();
        for network in ["default", "blue", "green"] {
            for number in 0..2 {
                let name = format!("{network}{number}");
                pods.push((network, Sandbox::attached_to(&host, &name, network)?));
            }
        }
        let mirrors: Vec<Mirror> =
            pods.iter().map(|(_, pod)| Mirror::serve(&pod.net, PORT)).collect::<Result<_>>()?;
        for (from_network, from) in &pods {
            for (to_network, to) in pods.iter().filter(|(_, to)| to.id != from.id) {
                for address in [to.v4()?, to.v6()?] {
                    // A UDP probe that is dropped costs its whole timeout: one of each is enough.
                    let reached = probe::ping(&from.net, address).is_ok();
                    let expected = from_network == to_network;
                    ensure!(reached == expected, "{} to {} {address}: {reached}", from.id, to.id);
                }
            }
        }
        let (one, two) = (&pods[0].1, &pods[1].1);
        probe::tcp(&one.net, two.v4()?, PORT)?;
        ensure!(probe::tcp(&one.net, pods[2].1.v4()?, PORT).is_err(), "TCP crossed networks");
        ensure!(probe::udp(&one.net, pods[4].1.v6()?, PORT).is_err(), "UDP crossed networks");
        drop(mirrors);
        Ok(())
    })
}

fn pods_go_out_behind_their_node(driver: &str) -> Result<()> {
    case(|bed| {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        let _netd = Daemon::start(&host, &DaemonConfig::with_driver(driver))?;
        let (one, two) = (Sandbox::attached(&host, "one")?, Sandbox::attached(&host, "two")?);
        let _mirrors = [
            Mirror::serve(&outside.net, PORT)?,
            Mirror::serve(&two.net, PORT)?,
            Mirror::serve(&host.net, PORT)?,
        ];
        for (to, node) in
            [(IpAddr::from(outside.v4), IpAddr::from(host.v4)), (outside.v6.into(), host.v6.into())]
        {
            ensure!(probe::tcp(&one.net, to, PORT)? == node, "outside sees the node");
            ensure!(probe::udp(&one.net, to, PORT)? == node, "outside sees the node");
        }
        for (to, own) in [(two.v4()?, one.v4()?), (two.v6()?, one.v6()?)] {
            ensure!(probe::tcp(&one.net, to, PORT)? == own, "inside, the pod is itself");
        }
        for (to, own) in [(IpAddr::from(host.v4), one.v4()?), (host.v6.into(), one.v6()?)] {
            ensure!(probe::tcp(&one.net, to, PORT)? == own, "its host sees the pod itself");
        }
        Ok(())
    })
}

#[test]
fn pods_on_a_bridge_go_out_behind_their_node() -> Result<()> {
    pods_go_out_behind_their_node("bridge")
}

#[test]
fn routed_pods_go_out_behind_their_node() -> Result<()> {
    pods_go_out_behind_their_node("routed")
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() -> Result<()> {
    case(|bed| {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        let mut config = DaemonConfig::default();
        config.networks += "[[network]]\nname = \"closed\"\ninternal = true\npod_namespaces = [\"*\"]\n\
                            [[network.pool]]\nsubnet = \"10.55.0.0/24\"\n";
        let _netd = Daemon::start(&host, &config)?;
        let one = Sandbox::attached_to(&host, "one", "closed")?;
        let two = Sandbox::attached_to(&host, "two", "closed")?;
        let other = Sandbox::attached(&host, "other")?;
        probe::ping(&one.net, two.v4()?)?;
        // Even with a route of its own making.
        one.net.sh("ip route add default via 10.55.0.1 || true")?;
        outside.net.sh(&format!("ip route add 10.55.0.0/24 via {}", host.v4))?;
        ensure!(probe::ping(&one.net, outside.v4.into()).is_err(), "it got out");
        ensure!(probe::ping(&outside.net, one.v4()?).is_err(), "a client outside got in");
        ensure!(probe::ping(&other.net, one.v4()?).is_err(), "another network got in");
        Ok(())
    })
}

/// Devices of others whose names begin as those of endpoints do.
#[test]
fn a_device_of_another_program_is_not_taken_for_an_endpoint() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let dmz = Sandbox::bare(&host, "dmz")?;
        let path = dmz.net.path().display();
        host.net.sh(&format!(
            "ip link add ndmz0 type veth peer name eth0 netns {path}
             ip address add 198.51.100.1/24 dev ndmz0
             ip address add 2001:db8:7::1/64 dev ndmz0 nodad; ip link set ndmz0 up"
        ))?;
        dmz.net.sh("ip address add 198.51.100.2/24 dev eth0
             ip address add 2001:db8:7::2/64 dev eth0 nodad; ip link set eth0 up
             ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:7::1")?;
        let _netd = Daemon::start(&host, &DaemonConfig::default())?;
        let pod = Sandbox::attached(&host, "pod")?;
        let near: [IpAddr; 2] = ["198.51.100.1".parse()?, "2001:db8:7::1".parse()?];
        for to in near.into_iter().chain([pod.v4()?, pod.v6()?]) {
            probe::ping(&dmz.net, to).with_context(|| format!("from ndmz0 to {to}"))?;
        }
        // A machine's tap on the bridge, with a name of the very length.
        let guest = Sandbox::bare(&host, "guest")?;
        let path = guest.net.path().display();
        host.net.sh(&format!(
            "ip link add ndaaaaaaaaaaaa type veth peer name eth0 netns {path}
             ip link set ndaaaaaaaaaaaa master cni0 up"
        ))?;
        guest.net.sh("ip address add 10.88.99.2/16 dev eth0; ip link set eth0 up")?;
        probe::ping(&guest.net, pod.v4()?).context("from a foreign port of the bridge")
    })
}

/// Docker's bridge networks have it.
#[test]
fn a_network_can_be_closed_to_all_but_host_ports() -> Result<()> {
    case(|bed| {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        let mut config = DaemonConfig::default();
        config.networks += "[[network]]\nname = \"shut\"\npublished_only = true\npod_namespaces = [\"*\"]\n\
                            [[network.pool]]\nsubnet = \"10.55.0.0/24\"\n\
                            [[network.pool]]\nsubnet = \"fd00:55::/64\"\n";
        let _netd = Daemon::start(&host, &config)?;
        let mut pod = Sandbox::bare(&host, "pod")?;
        pod.config["network"] = serde_json::json!("shut");
        pod.config["runtimeConfig"] = serde_json::json!({"portMappings": [
            {"hostPort": 8080, "containerPort": PORT, "protocol": "tcp"}]});
        pod.add(&host)?;
        let neighbour = Sandbox::attached_to(&host, "neighbour", "shut")?;
        let open = Sandbox::attached(&host, "open")?;
        let _mirrors = [
            Mirror::serve(&pod.net, PORT)?,
            Mirror::serve(&open.net, PORT)?,
            Mirror::serve(&outside.net, PORT)?,
        ];
        outside.net.sh(&format!(
            "ip route add 10.55.0.0/24 via {0}; ip -6 route add fd00:55::/64 via {1}
             ip route add 10.88.0.0/16 via {0}; ip -6 route add fd00:88::/64 via {1}",
            host.v4, host.v6
        ))?;
        for (ip, node) in [(pod.v4()?, IpAddr::from(host.v4)), (pod.v6()?, host.v6.into())] {
            ensure!(probe::tcp(&outside.net, ip, PORT).is_err(), "{ip} from the LAN, TCP");
            ensure!(probe::udp(&outside.net, ip, PORT).is_err(), "{ip} from the LAN, UDP");
            ensure!(probe::ping(&outside.net, ip).is_err(), "{ip} from the LAN, ICMP");
            probe::tcp(&outside.net, node, 8080).context("by its host port")?;
            probe::tcp(&neighbour.net, ip, PORT).context("from its own network")?;
            probe::tcp(&host.net, ip, PORT).context("from the node")?;
        }
        for ip in [IpAddr::from(outside.v4), outside.v6.into()] {
            probe::tcp(&pod.net, ip, PORT).context("outwards")?;
        }
        for ip in [open.v4()?, open.v6()?] {
            probe::tcp(&outside.net, ip, PORT).context("other networks are open as before")?;
        }
        Ok(())
    })
}

/// The firewall knows endpoints' links by their group, in which those of netd 0.1 are not.
#[test]
fn links_that_an_earlier_version_made_are_guarded_after_an_upgrade() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut netd = Daemon::start(&host, &DaemonConfig::default())?;
        let pod = Sandbox::attached(&host, "pod")?;
        let link = netd.endpoints()?[0].host_interface.clone();
        let group = |host: &Host| host.net.sh(&format!("ip -o link show dev {link}"));
        ensure!(group(&host)?.contains("group 1852047616"), "{}", group(&host)?);
        netd.kill9()?;
        host.net.sh(&format!("ip link set {link} group default"))?;
        netd.respawn()?;
        netd.wait_ready()?;
        ensure!(group(&host)?.contains("group 1852047616"), "{}", group(&host)?);
        // Not made again: the pod would have noticed.
        probe::ping(&pod.net, Ipv4Addr::new(10, 88, 0, 1).into())?;
        ensure!(!netd.logged().contains("make the veth pair"), "{}", netd.logged());
        Ok(())
    })
}
