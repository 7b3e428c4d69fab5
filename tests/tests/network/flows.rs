//! Host ports and addresses that change their owner while clients go on sending: conntrack
//! decides at a flow's first packet where it goes, and these clients never begin a new one.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use netd_api::v1::{CreateEndpointRequest, JoinRequest, PortMapping, Protocol, PublishRequest};
use serde_json::json;
use testbed::{DaemonConfig, Host, Namespace, Sandbox, block_on, case, wait};

use crate::node::Node;

const HOST_PORT: u16 = 8080;
const POD_PORT: u16 = 7000;
/// A client that is still not answered after this long is stuck.
const SOON: Duration = Duration::from_secs(3);
const UDP: [(u16, u16, &str, &str); 1] = [(HOST_PORT, POD_PORT, "udp", "")];

/// Answers every datagram with its own name, until dropped.
struct Named {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Named {
    fn serve(net: &Namespace, port: u16, name: &'static str) -> Result<Self> {
        let socket = net.run(|| {
            let socket = UdpSocket::bind(("::", port)).context("bind UDP")?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(name.as_bytes(), peer);
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client with one socket and port that never stops sending.
struct Client {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Client {
    fn new(net: &Namespace, to: IpAddr) -> Result<Self> {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        // A socket of IPv6 takes the port of IPv4 too.
        let port = if to.is_ipv4() { 5555 } else { 5556 };
        let socket = net.run(|| Ok(UdpSocket::bind((any, port))?))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self { socket, to: SocketAddr::new(to, HOST_PORT) })
    }

    /// Sends once; who answered.
    fn ask(&self) -> Option<String> {
        let mut buffer = [0; 64];
        // A refusal of an earlier datagram (ICMP) is reported here.
        let _ = self.socket.send_to(b"?", self.to);
        let (length, _) = self.socket.recv_from(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(buffer.get(..length)?).into_owned())
    }

    /// Sends until `name` answers.
    fn reaches(&self, name: &str) -> Result<()> {
        let start = Instant::now();
        let mut others = Vec::new();
        while start.elapsed() < SOON {
            match self.ask() {
                Some(who) if who == name => return Ok(()),
                Some(who) => others.push(who),
                None => {}
            }
        }
        bail!("{} is not answered by {name}, but by {:?}", self.to, others.last())
    }

    /// Sends for a while; nobody may answer.
    fn reaches_nobody(&self) -> Result<()> {
        let start = Instant::now();
        // What was on its way may still arrive.
        while start.elapsed() < Duration::from_millis(200) {
            self.ask();
        }
        while start.elapsed() < Duration::from_secs(1) {
            if let Some(who) = self.ask() {
                bail!("{} is answered by {who}", self.to);
            }
        }
        Ok(())
    }
}

/// From outside by both families, and from the host itself.
fn clients(node: &Node, outside: &Host) -> Result<Vec<Client>> {
    Ok(vec![
        Client::new(&outside.net, node.host.v4.into())?,
        Client::new(&outside.net, node.host.v6.into())?,
        Client::new(&node.host.net, Ipv4Addr::LOCALHOST.into())?,
    ])
}

/// The conntrack entries that name an address.
fn entries(node: &Node, address: IpAddr) -> Result<String> {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let all = node.host.net.sh(&format!("conntrack -L -f {family} 2>/dev/null || true"))?;
    let words = |line: &&str| line.split([' ', '=']).any(|word| word == address.to_string());
    Ok(all.lines().filter(words).collect::<Vec<_>>().join("\n"))
}

fn a_client_that_was_there_first(driver: &str) -> Result<()> {
    case(|bed| {
        let outside = bed.host("outside")?;
        let node = Node::start_with(bed, &DaemonConfig::with_driver(driver))?;
        let clients = clients(&node, &outside)?;
        for client in &clients {
            client.reaches_nobody()?;
        }
        let pod = Sandbox::with_ports(&node.host, "pod", &UDP)?;
        let _pod = Named::serve(&pod.net, POD_PORT, "pod")?;
        for client in &clients {
            client.reaches("pod")?;
        }
        Ok(())
    })
}

#[test]
fn a_client_that_sent_before_the_bridged_pod_came_reaches_it() -> Result<()> {
    a_client_that_was_there_first("bridge")
}

#[test]
fn a_client_that_sent_before_the_routed_pod_came_reaches_it() -> Result<()> {
    a_client_that_was_there_first("routed")
}

#[test]
fn a_client_that_sent_before_a_port_of_one_host_address_was_mapped_reaches_it() -> Result<()> {
    case(|bed| {
        let outside = bed.host("outside")?;
        let node = Node::start(bed)?;
        node.host.net.sh("ip address add 192.0.2.200/24 dev eth0")?;
        let bound = Client::new(&outside.net, Ipv4Addr::new(192, 0, 2, 200).into())?;
        bound.reaches_nobody()?;
        let ports = [(HOST_PORT, POD_PORT, "udp", "192.0.2.200")];
        let pod = Sandbox::with_ports(&node.host, "pod", &ports)?;
        let _pod = Named::serve(&pod.net, POD_PORT, "pod")?;
        bound.reaches("pod")
    })
}

/// Pod, pod, a process of the host, and a pod again.
#[test]
fn a_port_leads_to_whoever_has_it_now() -> Result<()> {
    case(|bed| {
        let outside = bed.host("outside")?;
        let node = Node::start(bed)?;
        let clients = clients(&node, &outside)?;
        let first = Sandbox::with_ports(&node.host, "first", &UDP)?;
        let _first = Named::serve(&first.net, POD_PORT, "first")?;
        for client in &clients {
            client.reaches("first")?;
        }
        first.del(&node.host)?;
        let second = Sandbox::with_ports(&node.host, "second", &UDP)?;
        let _second = Named::serve(&second.net, POD_PORT, "second")?;
        for client in &clients {
            client.reaches("second")?;
        }
        second.del(&node.host)?;
        let process = Named::serve(&node.host.net, HOST_PORT, "process")?;
        for client in &clients {
            client.reaches("process")?;
        }
        drop(process);
        let third = Sandbox::with_ports(&node.host, "third", &UDP)?;
        let _third = Named::serve(&third.net, POD_PORT, "third")?;
        for client in &clients {
            client.reaches("third")?;
        }
        Ok(())
    })
}

/// The kernel keeps a flow to the address, whoever has it.
#[test]
fn a_stranger_with_a_dead_pods_address_is_not_reached_by_its_clients() -> Result<()> {
    case(|bed| {
        let outside = bed.host("outside")?;
        let node = Node::start(bed)?;
        let clients = clients(&node, &outside)?;
        let dead = Sandbox::with_ports(&node.host, "dead", &UDP)?;
        let served = Named::serve(&dead.net, POD_PORT, "dead")?;
        for client in &clients {
            client.reaches("dead")?;
        }
        dead.del(&node.host)?;
        drop(served);
        let mut stranger = node.bare("stranger")?;
        let ips: Vec<String> = dead.ips.iter().map(ToString::to_string).collect();
        stranger.config["runtimeConfig"] = json!({"ips": ips});
        wait::until(SOON, "the dead pod's addresses", || stranger.add(&node.host).map(drop))?;
        ensure!(stranger.ips == dead.ips);
        let _stranger = Named::serve(&stranger.net, POD_PORT, "stranger")?;
        for client in &clients {
            client.reaches_nobody()?;
        }
        Ok(())
    })
}

/// Connections of every kind to and from a pod end with its address.
#[test]
fn nothing_is_left_of_an_address_when_it_is_free() -> Result<()> {
    case(|bed| {
        let outside = bed.host("outside")?;
        let node = Node::start(bed)?;
        let ports = [UDP[0], (HOST_PORT, POD_PORT, "tcp", "")];
        let pod = Sandbox::with_ports(&node.host, "pod", &ports)?;
        let _pod = Named::serve(&pod.net, POD_PORT, "pod")?;
        let listener = pod.net.run(|| Ok(TcpListener::bind(("::", POD_PORT))?))?;
        let mut open = Vec::new();
        for to in [IpAddr::from(node.host.v4), node.host.v6.into()] {
            Client::new(&outside.net, to)?.reaches("pod")?;
            let to = SocketAddr::new(to, HOST_PORT);
            let mut inwards = outside.net.run(|| Ok(TcpStream::connect_timeout(&to, SOON)?))?;
            let (mut accepted, _) = listener.accept()?;
            accepted.write_all(b"!")?;
            inwards.read_exact(&mut [0])?;
            open.push((inwards, accepted));
        }
        // Outwards too, behind the node's address.
        testbed::net::probe::ping(&pod.net, outside.v4.into())?;
        for ip in &pod.ips {
            ensure!(entries(&node, *ip)?.contains("tcp"), "the test sees no entry of {ip}");
        }
        pod.del(&node.host)?;
        for ip in &pod.ips {
            wait::until(SOON, "no entry is left", || {
                let left = entries(&node, *ip)?;
                ensure!(left.is_empty(), "{left}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn flows_of_other_ports_and_of_other_nodes_are_left_alone() -> Result<()> {
    case(|bed| {
        let outside = bed.host("outside")?;
        let node = Node::start(bed)?;
        let _outside = Named::serve(&outside.net, HOST_PORT, "outside")?;
        let _process = Named::serve(&node.host.net, 8181, "process")?;
        let other = node.attached("other")?;
        // A pod's flow to the same port elsewhere, and one to another port of the host.
        let away = Client::new(&other.net, outside.v4.into())?;
        away.reaches("outside")?;
        let mut near = Client::new(&outside.net, node.host.v4.into())?;
        near.to.set_port(8181);
        near.reaches("process")?;
        let ids = || {
            let all = node.host.net.sh("conntrack -L -p udp -o id 2>/dev/null")?;
            let ids = all.lines().filter(|l| l.contains("sport=5555")).map(|line| {
                line.split(' ').find(|word| word.starts_with("id=")).map(str::to_owned)
            });
            let mut ids: Vec<_> = ids.collect();
            ids.sort();
            anyhow::Ok(ids)
        };
        let before = ids()?;
        ensure!(before.len() >= 2, "{before:?}");
        let pod = Sandbox::with_ports(&node.host, "pod", &UDP)?;
        pod.del(&node.host)?;
        ensure!(ids()? == before, "{before:?} {:?}", ids()?);
        Ok(())
    })
}

/// Joins an endpoint to a sandbox and moves its link there, as dockerd does.
fn join(node: &Node, sandbox: &Sandbox) -> Result<()> {
    let mut service = node.netd.endpoint_service()?;
    let endpoint_id = sandbox.id.clone();
    let create = CreateEndpointRequest {
        endpoint_id: endpoint_id.clone(),
        network: "default".into(),
        ..CreateEndpointRequest::default()
    };
    block_on(service.create_endpoint(create))?;
    let netns_path = sandbox.net.path().display().to_string();
    let join = JoinRequest { endpoint_id, netns_path, ..JoinRequest::default() };
    let joined = block_on(service.join(join))?.into_inner().endpoint.context("no endpoint")?;
    let (link, path) = (&joined.sandbox_interface, sandbox.net.path().display());
    node.host.net.sh(&format!("ip link set {link} netns {path}"))?;
    sandbox.net.sh(&format!("ip link set {link} name eth0"))?;
    for address in &joined.addresses {
        sandbox.net.sh(&format!("ip address add {} dev eth0 nodad", address.address))?;
    }
    // netd takes it for placed when it is up.
    sandbox.net.sh("ip link set eth0 up")?;
    for address in &joined.addresses {
        sandbox.net.sh(&format!("ip route replace default via {}", address.gateway))?;
    }
    Ok(())
}

fn publish(node: &Node, sandbox: &Sandbox, container_ports: &[u32]) -> Result<()> {
    let mapping = |port: &u32| PortMapping {
        host_port: HOST_PORT.into(),
        container_port: *port,
        protocol: Protocol::Udp.into(),
        ..PortMapping::default()
    };
    let publish = PublishRequest {
        endpoint_id: sandbox.id.clone(),
        port_mappings: container_ports.iter().map(mapping).collect(),
        leads_out: true,
        ..PublishRequest::default()
    };
    let mut service = node.netd.endpoint_service()?;
    block_on(service.publish(publish)).map(drop).context("publish")
}

/// The containers live on; only their ports change.
#[test]
fn published_ports_that_change_take_their_clients_along() -> Result<()> {
    case(|bed| {
        let outside = bed.host("outside")?;
        let node = Node::start(bed)?;
        let clients = clients(&node, &outside)?;
        let (one, two) = (node.bare("one")?, node.bare("two")?);
        for sandbox in [&one, &two] {
            join(&node, sandbox)?;
        }
        let _one = Named::serve(&one.net, POD_PORT, "one")?;
        let _again = Named::serve(&one.net, POD_PORT + 1, "one again")?;
        let _two = Named::serve(&two.net, POD_PORT, "two")?;
        for client in &clients {
            client.reaches_nobody()?;
        }
        let port = u32::from(POD_PORT);
        let reach = |name: &str| clients.iter().try_for_each(|client| client.reaches(name));
        publish(&node, &one, &[port])?;
        reach("one")?;
        publish(&node, &one, &[port + 1])?;
        reach("one again")?;
        publish(&node, &one, &[])?;
        for client in &clients {
            client.reaches_nobody()?;
        }
        publish(&node, &two, &[port])?;
        reach("two")
    })
}

/// `-p 7000-7999/udp`: the kernel's whole table is looked through once, not once a port.
#[test]
fn a_thousand_ports_cost_one_look_at_the_table() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let ports: Vec<_> = (7000..8000).map(|port| (port, port, "udp", "")).collect();
        let start = Instant::now();
        let pod = Sandbox::with_ports(&node.host, "pod", &ports)?;
        let added = start.elapsed();
        pod.del(&node.host)?;
        let both = start.elapsed();
        ensure!(added < Duration::from_secs(2), "ADD took {added:?}");
        ensure!(both < Duration::from_secs(4), "ADD and DEL took {both:?}");
        Ok(())
    })
}
