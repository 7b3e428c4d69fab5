//! Host ports: every protocol, family and side that they can be reached from.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::GetEndpointRequest;
use testbed::{
    Bed, Daemon, DaemonConfig, Host, Namespace, Sandbox, block_on, case, inventory,
    net::probe::{self, Mirror},
    stack::check_nothing_left,
    wait,
};

const POD_PORT: u16 = 7000;
const HOST_PORT: u16 = 8080;
const BOTH: [(u16, u16, &str, &str); 2] =
    [(HOST_PORT, POD_PORT, "tcp", ""), (HOST_PORT, POD_PORT, "udp", "")];

struct Node {
    _mirror: Mirror,
    pod: Sandbox,
    other: Sandbox,
    _netd: Daemon,
    outside: Host,
    host: Host,
}

impl Node {
    fn start(bed: &Bed, driver: &str) -> Result<Self> {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        let netd = Daemon::start(&host, &DaemonConfig::with_driver(driver))?;
        let pod = Sandbox::with_ports(&host, "pod", &BOTH)?;
        let other = Sandbox::attached(&host, "other")?;
        let mirror = Mirror::serve(&pod.net, POD_PORT)?;
        Ok(Self { _mirror: mirror, pod, other, _netd: netd, outside, host })
    }

    fn addresses(&self) -> [IpAddr; 2] {
        [self.host.v4.into(), self.host.v6.into()]
    }
}

fn both(from: &testbed::Namespace, to: IpAddr) -> Result<[IpAddr; 2]> {
    Ok([probe::tcp(from, to, HOST_PORT)?, probe::udp(from, to, HOST_PORT)?])
}

fn reachable_from_everywhere(driver: &str) -> Result<()> {
    case(|bed| {
        let node = Node::start(bed, driver)?;
        for (address, client) in node
            .addresses()
            .into_iter()
            .zip([IpAddr::from(node.outside.v4), node.outside.v6.into()])
        {
            let seen = both(&node.outside.net, address).context("from outside")?;
            ensure!(seen == [client; 2], "the pod sees the client itself, not {seen:?}");
            both(&node.host.net, address).context("from the host's own address")?;
            both(&node.other.net, address).context("from another pod")?;
            both(&node.pod.net, address).context("from the pod itself")?;
        }
        both(&node.host.net, Ipv4Addr::LOCALHOST.into()).context("from the host over 127.0.0.1")?;
        Ok(())
    })
}

#[test]
fn a_host_port_on_a_bridge_is_reachable_from_everywhere() -> Result<()> {
    reachable_from_everywhere("bridge")
}

#[test]
fn a_host_port_of_a_routed_pod_is_reachable_from_everywhere() -> Result<()> {
    reachable_from_everywhere("routed")
}

#[test]
fn a_host_port_with_a_host_ip_is_on_that_address_only() -> Result<()> {
    case(|bed| {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        host.net.sh("ip address add 192.0.2.200/24 dev eth0")?;
        let _netd = Daemon::start(&host, &DaemonConfig::default())?;
        let ports = [(HOST_PORT, POD_PORT, "tcp", "192.0.2.200")];
        let pod = Sandbox::with_ports(&host, "pod", &ports)?;
        let _mirror = Mirror::serve(&pod.net, POD_PORT)?;
        let bound = Ipv4Addr::new(192, 0, 2, 200).into();
        probe::tcp(&outside.net, bound, HOST_PORT)?;
        for elsewhere in [IpAddr::from(host.v4), host.v6.into()] {
            ensure!(probe::tcp(&outside.net, elsewhere, HOST_PORT).is_err(), "{elsewhere}");
        }
        Ok(())
    })
}

#[test]
fn a_port_that_is_taken_is_refused_and_nothing_is_half_made() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, &DaemonConfig::default())?;
        let before = inventory::of(&host)?;
        let first = Sandbox::with_ports(&host, "first", &BOTH)?;
        let mut second = Sandbox::bare(&host, "second")?;
        second.config["runtimeConfig"] = first.config["runtimeConfig"].clone();
        let refused = second.call("ADD").execute(&host)?;
        ensure!(!refused.success && refused.json.to_string().contains("8080"), "{refused:?}");
        ensure!(netd.endpoints()?.len() == 1);
        let links = second.net.sh("ip -o link")?;
        ensure!(links.lines().count() == 1, "only lo: {links}");
        first.del(&host)?;
        // With the first gone, the port is free.
        second.add(&host)?;
        second.del(&host)?;
        check_nothing_left(&host, &netd, &before)
    })
}

/// A socket of a process on the host, on one address.
fn listen(net: &Namespace, ip: &str, port: u16) -> Result<TcpListener> {
    let ip: IpAddr = ip.parse()?;
    net.run(|| TcpListener::bind((ip, port)).with_context(|| format!("bind {ip}:{port}")))
}

/// Whether the process is reached at its own address from its own host.
fn is_reached(net: &Namespace, listener: &TcpListener) -> Result<bool> {
    listener.set_nonblocking(true)?;
    let to = listener.local_addr()?;
    let _client = net.run(|| Ok(std::net::TcpStream::connect_timeout(&to, SOON)))?;
    Ok(listener.accept().is_ok())
}

const SOON: Duration = Duration::from_secs(2);

/// Services' addresses on dummy devices (kube-proxy's ipvs, NodeLocal DNS) and resolvers' on
/// 127/8 go on to whoever serves them.
#[test]
fn a_host_port_takes_nothing_away_from_services_on_the_node() -> Result<()> {
    case(|bed| {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        // The kernel here may have no dummy devices: the names count too.
        host.net.sh("for name in kube-ipvs0 nodelocaldns; do
                 ip link add $name type dummy || ip link add $name type bridge
             done
             ip address add 10.96.0.1/32 dev kube-ipvs0
             ip address add fd00:96::1/128 dev kube-ipvs0 nodad
             ip address add 169.254.20.10/32 dev nodelocaldns
             ip address add 198.51.100.9/32 dev lo")?;
        let services = ["10.96.0.1", "fd00:96::1", "169.254.20.10", "198.51.100.9", "127.0.0.53"];
        let sockets: Vec<TcpListener> =
            services.iter().map(|ip| listen(&host.net, ip, 443)).collect::<Result<_>>()?;
        let _netd = Daemon::start(&host, &DaemonConfig::default())?;
        let pod = Sandbox::with_ports(&host, "pod", &[(443, POD_PORT, "tcp", "")])?;
        let _mirror = Mirror::serve(&pod.net, POD_PORT)?;
        for socket in &sockets {
            ensure!(is_reached(&host.net, socket)?, "{} was hijacked", socket.local_addr()?);
        }
        probe::tcp(&outside.net, host.v4.into(), 443).context("the pod, from outside")?;
        probe::tcp(&host.net, Ipv4Addr::LOCALHOST.into(), 443).context("the pod, on 127.0.0.1")?;
        probe::tcp(&host.net, Ipv4Addr::new(10, 88, 0, 1).into(), 443).context("by the gateway")?;
        Ok(())
    })
}

#[test]
fn host_ports_follow_the_nodes_addresses() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed, "bridge")?;
        for (add, address) in
            [("192.0.2.201/24", "192.0.2.201"), ("2001:db8::201/64", "2001:db8::201")]
        {
            let ip: IpAddr = address.parse()?;
            for _ in 0..2 {
                node.host.net.sh(&format!("ip address add {add} dev eth0 nodad"))?;
                wait::until(SOON, "the new address", || both(&node.outside.net, ip))?;
                node.host.net.sh(&format!("ip address del {add} dev eth0"))?;
            }
            wait::until(SOON, "the address is forgotten", || {
                let sets = node
                    .host
                    .net
                    .sh("nft list set inet netd node4; nft list set inet netd node6")?;
                ensure!(!sets.contains(address), "{sets}");
                Ok(())
            })?;
        }
        // A device that comes with an address, and goes with it.
        node.host.net.sh("ip link add lan1 type veth peer name other
             ip address add 192.0.2.202/32 dev lan1; ip link set lan1 up; ip link set other up")?;
        let third = Ipv4Addr::new(192, 0, 2, 202).into();
        node.outside.net.sh(&format!("ip route add 192.0.2.202 via {}", node.host.v4))?;
        wait::until(SOON, "an address of a new device", || both(&node.outside.net, third))?;
        both(&node.outside.net, node.host.v4.into())?;
        Ok(())
    })
}

#[test]
fn a_port_on_which_a_process_of_the_host_listens_is_refused() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, &DaemonConfig::default())?;
        let before = inventory::of(&host)?;
        let udp = |ip: &str, port: u16| {
            let ip: IpAddr = ip.parse()?;
            host.net.run(|| Ok(UdpSocket::bind((ip, port))?))
        };
        let _sockets = (
            listen(&host.net, "0.0.0.0", 8081)?,
            listen(&host.net, "::", 8082)?,
            listen(&host.net, "127.0.0.1", 8083)?,
            listen(&host.net, &host.v6.to_string(), 8084)?,
            udp("0.0.0.0", 8085)?,
            listen(&host.net, "127.0.0.53", 8086)?,
        );
        let v4 = host.v4.to_string();
        for (port, protocol, ip) in [
            (8081, "tcp", ""),
            (8081, "tcp", v4.as_str()),
            (8082, "tcp", ""),
            (8083, "tcp", ""),
            (8084, "tcp", ""),
            (8085, "udp", ""),
        ] {
            let mut pod = Sandbox::bare(&host, "refused")?;
            pod.config["runtimeConfig"] = serde_json::json!({"portMappings": [
                {"hostPort": port, "containerPort": 80, "protocol": protocol, "hostIP": ip}]});
            let answer = pod.call("ADD").execute(&host)?;
            let said = answer.json.to_string();
            ensure!(!answer.success, "{port}/{protocol} on {ip:?} was taken");
            for word in [port.to_string().as_str(), protocol, "listens on", "another host port"] {
                ensure!(said.contains(word), "does not say {word}: {said}");
            }
        }
        // Another protocol, another address, and one that is not the node's.
        let fine = [(8081, 80, "udp", ""), (8083, 80, "tcp", v4.as_str()), (8086, 80, "tcp", "")];
        let pod = Sandbox::with_ports(&host, "fine", &fine)?;
        pod.del(&host)?;
        check_nothing_left(&host, &netd, &before)
    })
}

#[test]
fn a_process_that_listens_on_a_pods_port_later_is_told() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed, "bridge")?;
        let conflicts = || {
            let request =
                GetEndpointRequest { sandbox_id: node.pod.id.clone(), ..Default::default() };
            let mut service = node._netd.endpoint_service()?;
            let answer = block_on(service.get_endpoint(request))?.into_inner();
            anyhow::Ok(answer.endpoint.context("an endpoint")?.host_port_conflicts)
        };
        ensure!(conflicts()?.is_empty());
        let _late = listen(&node.host.net, "0.0.0.0", HOST_PORT)?;
        let found = conflicts()?;
        ensure!(found.len() == 1 && found[0].contains("8080/tcp"), "{found:?}");
        let shown = node._netd.cli(&["endpoint", "inspect", &node.pod.id])?;
        ensure!(shown.contains("conflicts") && shown.contains("0.0.0.0:8080"), "{shown}");
        Ok(())
    })
}

#[test]
fn every_address_of_ipv4_and_every_one_of_ipv6_are_two_ports() -> Result<()> {
    case(|bed| {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        let _netd = Daemon::start(&host, &DaemonConfig::default())?;
        let (v4, v6) = (IpAddr::from(host.v4), IpAddr::from(host.v6));
        let one = Sandbox::with_ports(&host, "one", &[(HOST_PORT, POD_PORT, "tcp", "0.0.0.0")])?;
        let _one = Mirror::serve(&one.net, POD_PORT)?;
        probe::tcp(&outside.net, v4, HOST_PORT).context("0.0.0.0 over IPv4")?;
        ensure!(probe::tcp(&outside.net, v6, HOST_PORT).is_err(), "0.0.0.0 over IPv6");
        // The other family is still free.
        let two = Sandbox::with_ports(&host, "two", &[(HOST_PORT, POD_PORT + 1, "tcp", "::")])?;
        let _two = Mirror::serve(&two.net, POD_PORT + 1)?;
        probe::tcp(&outside.net, v6, HOST_PORT).context(":: over IPv6")?;
        probe::tcp(&outside.net, v4, HOST_PORT).context("still the first over IPv4")?;
        // Both together, as Docker and Kubernetes send them, and mapped ones.
        let pair = [(8090, POD_PORT, "tcp", "0.0.0.0"), (8090, POD_PORT, "tcp", "::")];
        let three = Sandbox::with_ports(&host, "three", &pair)?;
        let _three = Mirror::serve(&three.net, POD_PORT)?;
        for address in [v4, v6] {
            probe::tcp(&outside.net, address, 8090).context("the pair")?;
        }
        let mapped = format!("::ffff:{}", host.v4);
        let ports = [(8091, POD_PORT, "tcp", mapped.as_str())];
        let four = Sandbox::with_ports(&host, "four", &ports)?;
        let _four = Mirror::serve(&four.net, POD_PORT)?;
        probe::tcp(&outside.net, v4, 8091).context("a mapped address")?;
        ensure!(probe::tcp(&host.net, Ipv4Addr::LOCALHOST.into(), 8091).is_err(), "only there");
        Ok(())
    })
}
