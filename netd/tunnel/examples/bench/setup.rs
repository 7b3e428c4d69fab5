//! Nodes, and the ways between them.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use boringtun::x25519::{PublicKey, StaticSecret};
use netd::tunnel::{PeerChange, Tunnel, TunnelClient, TunnelKind};
use netd_domain::overlay::{SecretKey, TunnelPeer, UdpPeer, WireguardPeer};
use testbed::{Namespace, block_on, service::Service, wait};

pub(crate) struct Bench {
    directory: PathBuf,
    seconds: u32,
    pub boringtun: Option<String>,
}

pub(crate) struct Node {
    number: u8,
    pub net: Namespace,
}

/// Processes of a mode.
#[derive(Default)]
pub(crate) struct Running {
    pub processes: Vec<Service>,
}

impl Node {
    pub(crate) fn outer(&self) -> String {
        format!("192.0.2.{}:8285", self.number)
    }

    pub(crate) fn until(&self, script: &str) -> Result<()> {
        wait::until(Duration::from_secs(10), script, || self.net.sh(script))?;
        Ok(())
    }

    /// Gives the device its addresses and the route.
    pub(crate) fn address(&self, mtu: u32) -> Result<()> {
        let n = self.number;
        self.net.sh(&format!(
            "ip link set flannel0 mtu {mtu} up
             ip address add 10.{n}.0.1/32 dev flannel0
             ip route replace 10.0.0.0/8 dev flannel0 src 10.{n}.0.1"
        ))?;
        Ok(())
    }

    fn private(&self) -> StaticSecret {
        StaticSecret::from([self.number; 32])
    }

    fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.private()).to_bytes()
    }
}

impl Bench {
    pub(crate) fn new(seconds: u32, boringtun: Option<String>) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("netd-tun-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory, seconds, boringtun })
    }

    /// Two on a cable of their own.
    pub(crate) fn nodes(&self) -> Result<(Node, Node)> {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let run = COUNTER.fetch_add(1, Ordering::Relaxed);
        let make = |number: u8| -> Result<Node> {
            let net = Namespace::create(self.directory.join(format!("ns{run}-{number}")))?;
            Ok(Node { number, net })
        };
        let (a, b) = (make(1)?, make(2)?);
        let peer = b.net.path().display();
        a.net.sh(&format!("ip link add eth0 type veth peer name eth0 netns {peer}"))?;
        for node in [&a, &b] {
            let n = node.number;
            node.net.sh(&format!("ip address add 192.0.2.{n}/24 dev eth0; ip link set eth0 up"))?;
        }
        Ok((a, b))
    }

    pub(crate) fn service(&self, name: &str, node: &Node, command: Command) -> Result<Service> {
        let log = self.directory.join(format!("{name}{}.log", node.number));
        Service::start(name, command, &log)
    }

    pub(crate) fn wait_for(&self, a: &Node, limit: Duration) -> Result<()> {
        wait::until(limit, "a ping", || a.net.sh("ping -n -c 1 -W 1 10.2.0.1"))?;
        Ok(())
    }

    /// Gb/s.
    pub(crate) fn iperf(&self, a: &Node, b: &Node, streams: u32) -> Result<f64> {
        let mut server = b.net.command("iperf3");
        server.args(["-s", "-1"]);
        let _server = self.service("iperf3", b, server)?;
        b.until("ss -ltn | grep -q :5201")?;
        let seconds = self.seconds;
        let printed =
            a.net.sh(&format!("iperf3 -c 10.2.0.1 -t {seconds} -O 1 -P {streams} -J -C cubic"))?;
        let value: serde_json::Value = serde_json::from_str(&printed)?;
        let bits = &value["end"]["sum_received"]["bits_per_second"];
        Ok(bits.as_f64().context("iperf3 said nothing")? / 1e9)
    }

    /// min/avg/max of small packets.
    pub(crate) fn ping(&self, a: &Node) -> Result<String> {
        let printed = a.net.sh("ping -n -q -c 500 -i 0.002 10.2.0.1")?;
        let line = printed.lines().last().unwrap_or_default();
        Ok(line.split(" = ").nth(1).unwrap_or(line).trim_end_matches(" ms").to_owned())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn bare(_: &Bench, a: &Node, b: &Node) -> Result<Running> {
    for (node, other) in [(a, b), (b, a)] {
        let (n, o) = (node.number, other.number);
        node.net.sh(&format!(
            "ip address add 10.{n}.0.1/32 dev lo
             ip route add 10.{o}.0.0/24 via 192.0.2.{o} src 10.{n}.0.1"
        ))?;
    }
    Ok(Running::default())
}

pub(crate) fn vxlan(_: &Bench, a: &Node, b: &Node) -> Result<Running> {
    for (node, other) in [(a, b), (b, a)] {
        let (n, o) = (node.number, other.number);
        node.net.sh(&format!(
            "ip link add flannel0 address 02:00:00:00:00:0{n} type vxlan id 1 dstport 8472 \
               local 192.0.2.{n} dev eth0 nolearning
             ip link set flannel0 mtu 1450 up
             ip address add 10.{n}.0.1/32 dev flannel0
             ip neighbour add 10.{o}.0.0 lladdr 02:00:00:00:00:0{o} dev flannel0 nud permanent
             bridge fdb add 02:00:00:00:00:0{o} dst 192.0.2.{o} dev flannel0
             ip route add 10.{o}.0.0/24 via 10.{o}.0.0 dev flannel0 onlink src 10.{n}.0.1"
        ))?;
    }
    Ok(Running::default())
}

pub(crate) fn udp(bench: &Bench, a: &Node, b: &Node) -> Result<Running> {
    let mut running = Running::default();
    for (node, other) in [(a, b), (b, a)] {
        let subnets = [format!("10.{}.0.0/24", other.number).parse()?].into();
        let peer = UdpPeer { endpoint: other.outer().parse()?, subnets };
        let peer = TunnelPeer::Udp("flannel0".parse()?, peer);
        running.processes.push(tunnel(bench, node, TunnelKind::Udp, peer)?);
        node.address(1472)?;
    }
    Ok(running)
}

pub(crate) fn wireguard(bench: &Bench, a: &Node, b: &Node) -> Result<Running> {
    let mut running = Running::default();
    for (node, other) in [(a, b), (b, a)] {
        let peer = WireguardPeer {
            public_key: other.public(),
            endpoint: other.outer().parse()?,
            allowed: [format!("10.{}.0.0/24", other.number).parse()?].into(),
            preshared_key: None,
            keepalive: 0,
        };
        let kind = TunnelKind::Wireguard(SecretKey(node.private().to_bytes()));
        let peer = TunnelPeer::Wireguard("flannel0".parse()?, peer);
        running.processes.push(tunnel(bench, node, kind, peer)?);
        node.address(1420)?;
    }
    Ok(running)
}

fn tunnel(bench: &Bench, node: &Node, kind: TunnelKind, peer: TunnelPeer) -> Result<Service> {
    // Beside this program's directory.
    let own = std::env::current_exe()?;
    let built = own.parent().and_then(|p| p.parent()).context("no directory")?;
    let socket = bench.directory.join(format!("tunnel{}.sock", node.number));
    let state = socket.with_extension("state");
    let _ = std::fs::remove_file(&state);
    let mut command = node.net.command(built.join("netd-tunnel"));
    command.arg("--socket").arg(&socket).arg("--state").arg(state);
    let process = bench.service("netd-tunnel", node, command)?;
    let client = TunnelClient::new(&socket);
    wait::until(Duration::from_secs(10), "netd-tunnel", || Ok(block_on(client.status())?))?;
    let device = "flannel0".parse()?;
    let tunnel = Tunnel {
        device,
        listen: vec![node.outer().parse()?],
        subnets: vec![format!("10.{}.0.0/24", node.number).parse()?],
        kind,
    };
    block_on(client.configure(&tunnel))?;
    let change = PeerChange { set: vec![peer], ..Default::default() };
    block_on(client.update_peers(&tunnel.device, &change))?;
    Ok(process)
}

/// boringtun's own command, by its configuration protocol.
pub(crate) fn boringtun(bench: &Bench, a: &Node, b: &Node) -> Result<Running> {
    let mut running = Running::default();
    let program = bench.boringtun.as_deref().context("no path")?;
    for (node, other) in [(a, b), (b, a)] {
        let device = format!("bt{}-{}", std::process::id() % 100_000, node.number);
        let mut command = node.net.command(program);
        command.args([
            "--foreground",
            "--disable-drop-privileges",
            "--verbosity",
            "error",
            &device,
        ]);
        running.processes.push(bench.service("boringtun", node, command)?);
        let path = format!("/var/run/wireguard/{device}.sock");
        let connect = || Ok(UnixStream::connect(&path)?);
        let (mut stream, _) = wait::until(Duration::from_secs(10), "boringtun", connect)?;
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        write!(
            stream,
            "set=1\nprivate_key={}\nlisten_port=8285\npublic_key={}\nendpoint={}\nallowed_ip=10.{}.0.0/24\n\n",
            hex(&node.private().to_bytes()),
            hex(&other.public()),
            other.outer(),
            other.number
        )?;
        let mut answer = [0; 100];
        let length = stream.read(&mut answer)?;
        ensure!(String::from_utf8_lossy(&answer[..length]).contains("errno=0"), "refused");
        node.net.sh(&format!("ip link set {device} down; ip link set {device} name flannel0"))?;
        node.address(1420)?;
    }
    Ok(running)
}
