//! A node with bridged, internal and routed pods, and a client outside:
//!
//! ```text
//! a b (cni0)   c (nbrred)   d e (nbrclosed)   r s (routed)   -- node -- up0 -- outside
//! ```

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::{
    samples::{bridged, endpoint, network},
    testbed::Netns,
};
use crate::{
    firewall::{Firewall, FirewallSettings, FirewallState},
    netlink::link_group::ENDPOINT_GROUP,
};
use netd_domain::{PortMapping, Wiring, WiringDriver};

const WAIT: Duration = Duration::from_millis(400);
/// Where the servers of every pod and of the outside listen, TCP and UDP.
pub(crate) const SERVED: u16 = 80;

pub(crate) struct Pod {
    pub netns: Netns,
    pub wiring: Wiring,
}

impl Pod {
    pub(crate) fn v4(&self) -> IpAddr {
        self.wiring.addresses[0].address.addr()
    }
    pub(crate) fn v6(&self) -> IpAddr {
        self.wiring.addresses[1].address.addr()
    }
}

pub(crate) struct Topology {
    pub firewall: Arc<Mutex<Firewall>>,
    pub node: Netns,
    pub outside: Netns,
    /// a b c d e r s
    pub pods: Vec<Pod>,
    pub state: FirewallState,
}

/// The node's addresses towards the outside, and the outside's.
pub(crate) const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(crate) const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

impl Topology {
    /// `bridge_calls`: whether bridged packets pass the inet hooks too (br_netfilter).
    pub(crate) fn new(bridge_calls: bool, ports: &[(usize, PortMapping)]) -> Self {
        let (node, outside) = (Netns::new(), Netns::new());
        node.sh(&format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
             echo {0} > /proc/sys/net/bridge/bridge-nf-call-iptables
             echo {0} > /proc/sys/net/bridge/bridge-nf-call-ip6tables
             ip link add up0 type veth peer name eth0 netns {1}
             ip addr add {2}/24 dev up0; ip addr add {3}/64 dev up0 nodad; ip link set up0 up",
            u8::from(bridge_calls),
            outside.id,
            NODE[0],
            NODE[1],
        ));
        // Routes into the pods' subnets: a neighbour may well try.
        outside.sh(&format!(
            "ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad; ip link set eth0 up
             ip route add 10.0.0.0/8 via {}; ip route add fd00::/16 via {}",
            OUTSIDE[0], OUTSIDE[1], NODE[0], NODE[1],
        ));
        let mut wirings = wirings();
        for (pod, mapping) in ports {
            wirings[*pod].port_mappings.push(mapping.clone());
        }
        for (name, net) in [("cni0", 88), ("nbrred", 90), ("nbrclosed", 92)] {
            node.sh(&format!(
                "ip link add {name} type bridge; ip link set {name} up
                 ip addr add 10.{net}.0.1/24 dev {name}; ip addr add fd00:{net}::1/64 dev {name} nodad"
            ));
        }
        let state = FirewallState {
            networks: networks(),
            endpoints: wirings.iter().cloned().map(Arc::new).collect(),
        };
        let firewall = node.run(|| Firewall::new(FirewallSettings::default()).unwrap());
        let firewall = Arc::new(Mutex::new(firewall));
        let (handle, empty) =
            (firewall.clone(), FirewallState { endpoints: vec![], ..state.clone() });
        node.run(move || handle.lock().unwrap().replace(&empty).unwrap());
        let pods: Vec<Pod> = wirings.into_iter().map(|wiring| attach(&node, wiring)).collect();
        for netns in pods.iter().map(|p| &p.netns).chain([&outside]) {
            serve(netns);
        }
        let topology = Self { firewall, node, outside, pods, state };
        topology.firewall(|firewall, state| {
            for endpoint in &state.endpoints {
                firewall.add_endpoint(endpoint).unwrap();
            }
        });
        topology.settle();
        topology
    }

    /// Waits until every link carries packets: the kernel takes up to a second for it
    /// when many come up at once.
    fn settle(&self) {
        const TRIES: usize = 20;
        let outside = OUTSIDE.map(|ip| ip.parse().unwrap());
        let pods = self.pods.iter().flat_map(|pod| [pod.v4(), pod.v6()]);
        for ip in pods.chain(outside) {
            let answers = |_| ask_udp(&self.node, None, at(ip, SERVED)).is_some();
            assert!((0..TRIES).any(answers), "{ip} does not answer");
        }
    }

    /// Does something with the firewall, in the node's namespace.
    pub(crate) fn firewall(
        &self,
        job: impl FnOnce(&mut Firewall, &FirewallState) + Send + 'static,
    ) {
        let (firewall, state) = (self.firewall.clone(), self.state.clone());
        self.node.run(move || job(&mut firewall.lock().unwrap(), &state));
    }
}

fn networks() -> Vec<Arc<netd_domain::NetworkWiring>> {
    let mut closed = network("closed", Some("nbrclosed"), &["10.92.0.0/24", "fd00:92::/64"]);
    closed.internal = true;
    let all = [
        network("blue", Some("cni0"), &["10.88.0.0/24", "fd00:88::/64"]),
        network("red", Some("nbrred"), &["10.90.0.0/24", "fd00:90::/64"]),
        closed,
        network("plain", None, &["10.91.0.0/24", "fd00:91::/64"]),
    ];
    all.into_iter().map(Arc::new).collect()
}

fn wirings() -> Vec<Wiring> {
    let bridge = |n, bridge: &str, net: u8, host: u8| {
        let addresses = [format!("10.{net}.0.{host}/24"), format!("fd00:{net}::{host}/64")];
        bridged(n, bridge, &[&addresses[0], &addresses[1]])
    };
    let routed = |n, host: u8| {
        let addresses = [format!("10.91.0.{host}/32"), format!("fd00:91::{host}/128")];
        endpoint(n, WiringDriver::Routed, &[&addresses[0], &addresses[1]])
    };
    vec![
        bridge(1, "cni0", 88, 5),
        bridge(2, "cni0", 88, 6),
        bridge(3, "nbrred", 90, 5),
        bridge(4, "nbrclosed", 92, 5),
        bridge(5, "nbrclosed", 92, 6),
        routed(6, 5),
        routed(7, 6),
    ]
}

/// Makes the pod and its link as the dataplane does.
fn attach(node: &Netns, wiring: Wiring) -> Pod {
    let netns = Netns::new();
    let (host, mac, host_mac) = (&wiring.host_ifname, wiring.mac, wiring.host_mac);
    let (a4, a6) = (wiring.addresses[0].address, wiring.addresses[1].address);
    node.sh(&format!(
        "ip link add {host} group {ENDPOINT_GROUP} address {host_mac} type veth peer name eth0 address {mac} netns {}",
        netns.id
    ));
    netns.sh(&format!(
        "ip link set eth0 addrgenmode none
         ip addr add {a4} dev eth0; ip addr add {a6} dev eth0 nodad; ip link set eth0 up"
    ));
    if let WiringDriver::Bridge(bridge) = &wiring.driver {
        let net = a4.to_string().split('.').nth(1).unwrap().to_owned();
        node.sh(&format!(
            "ip link set {host} addrgenmode none; ip link set {host} master {bridge}
             ip link set {host} type bridge_slave hairpin on; ip link set {host} up"
        ));
        netns.sh(&format!(
            "ip route add default via 10.{net}.0.1; ip route add default via fd00:{net}::1"
        ));
    } else {
        node.sh(&format!(
            "ip link set {host} addrgenmode none; ip link set {host} up
             ip route add {a4} dev {host}; ip route add {a6} dev {host}
             ip neigh add {} lladdr {mac} dev {host} nud permanent
             ip neigh add {} lladdr {mac} dev {host} nud permanent",
            a4.addr(),
            a6.addr()
        ));
        netns.sh(&format!(
            "ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1
             ip route add fe80::1 dev eth0; ip route add default via fe80::1 dev eth0
             ip neigh add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent
             ip neigh add fe80::1 lladdr {host_mac} dev eth0 nud permanent"
        ));
    }
    Pod { netns, wiring }
}

/// Answers with the address that the question came from, until the tests end.
fn serve(netns: &Netns) {
    netns.run(|| {
        let udp = UdpSocket::bind(("::", SERVED)).unwrap();
        let tcp = TcpListener::bind(("::", SERVED)).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(from.ip().to_canonical().to_string().as_bytes(), from);
            }
        });
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let from = stream.peer_addr().map(|a| a.ip().to_canonical().to_string());
                let _ = stream.write_all(from.unwrap_or_default().as_bytes());
            }
        });
    });
}

/// Asks by UDP who we are; `None`: no answer.
pub(crate) fn ask_udp(netns: &Netns, from: Option<IpAddr>, to: SocketAddr) -> Option<IpAddr> {
    netns.run(move || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((from.unwrap_or(any), 0)).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket.send_to(b"who am I?", to).ok()?;
        let mut buffer = [0; 64];
        let (n, peer) = socket.recv_from(&mut buffer).ok()?;
        assert_eq!(peer, to, "the answer came from another address");
        std::str::from_utf8(&buffer[..n]).unwrap().parse().ok()
    })
}

/// Asks by TCP who we are; `None`: no connection.
pub(crate) fn ask_tcp(netns: &Netns, to: SocketAddr) -> Option<IpAddr> {
    netns.run(move || {
        let mut stream = TcpStream::connect_timeout(&to, WAIT).ok()?;
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.parse().ok()
    })
}

pub(crate) fn at(ip: impl ToString, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_string().parse().unwrap(), port)
}
