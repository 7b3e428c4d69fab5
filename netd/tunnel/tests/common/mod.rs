//! Two nodes on a cable, a netd-tunnel on each.

#![allow(dead_code)] // each test binary uses its own part

pub(crate) mod stream;
pub(crate) mod wire;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use netd::tunnel::{PeerChange, Tunnel, TunnelClient, TunnelKind};
use netd_api::tunnel::v1 as pb;
use netd_domain::{
    IfName,
    overlay::{SecretKey, TunnelPeer, UdpPeer, WireguardPeer},
};
use testbed::{Namespace, block_on, service::Service, wait};

pub(crate) const SOON: Duration = Duration::from_secs(10);
pub(crate) const DEVICE: &str = "flannel0";

/// Which backend a test is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Udp,
    Wireguard,
}

/// One node: number 1 or 2. It has 192.0.2.N and 2001:db8::N, and in the tunnel
/// 10.N.0.1/24 and fd00:N::1/64.
pub(crate) struct Node {
    pub number: u8,
    pub net: Namespace,
    pub socket: PathBuf,
    pub client: TunnelClient,
    pub process: Service,
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Node {
    fn new(directory: PathBuf, number: u8, arguments: &[&str]) -> Result<Self> {
        let net = Namespace::create(directory.join(format!("ns{number}")))?;
        let socket = directory.join(format!("tunnel{number}.sock"));
        let client = TunnelClient::new(&socket);
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let process = start(&directory, number, &net, &arguments)?;
        let mut node = Self { number, net, socket, client, process, directory, arguments };
        node.ready()?;
        Ok(node)
    }

    fn ready(&mut self) -> Result<()> {
        wait::until(SOON, "netd-tunnel answers", || {
            self.process.check_alive()?;
            Ok(block_on(self.client.status())?)
        })?;
        Ok(())
    }

    /// SIGKILL, then a new process.
    pub(crate) fn kill_and_start(&mut self) -> Result<()> {
        self.process.kill9()?;
        self.start_again()
    }

    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.process = start(&self.directory, self.number, &self.net, &self.arguments)?;
        self.ready()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join(format!("tunnel{}.state", self.number))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Result<pb::TunnelStatus> {
        let status = block_on(self.client.status())?;
        let mut all = status.tunnels.into_iter();
        all.find(|t| t.tunnel.as_ref().is_some_and(|t| t.device == DEVICE)).context("no tunnel")
    }

    pub(crate) fn counters(&self) -> Result<pb::Counters> {
        self.status()?.counters.context("no counters")
    }

    /// Waits until a count has changed by what is said.
    pub(crate) fn until_count(
        &self,
        what: &str,
        holds: impl Fn(&pb::Counters) -> bool,
    ) -> Result<()> {
        wait::until(SOON, what, || {
            let counters = self.counters()?;
            ensure!(holds(&counters), "{counters:?}");
            Ok(())
        })?;
        Ok(())
    }

    pub(crate) fn update(&self, change: &PeerChange) -> Result<()> {
        Ok(block_on(self.client.update_peers(&device(), change))?)
    }

    pub(crate) fn configure(&self, tunnel: &Tunnel) -> Result<()> {
        Ok(block_on(self.client.configure(tunnel))?)
    }
}

fn start(
    directory: &std::path::Path,
    number: u8,
    net: &Namespace,
    arguments: &[String],
) -> Result<Service> {
    // As systemd starts it, so that every test shows that these capabilities are enough.
    let mut command = net.command("setpriv");
    command.args(testbed::unit::setpriv("netd-tunnel.service")?);
    command.arg(env!("CARGO_BIN_EXE_netd-tunnel"));
    command.arg("--socket").arg(directory.join(format!("tunnel{number}.sock")));
    command.arg("--state").arg(directory.join(format!("tunnel{number}.state")));
    command.args(["--log", "debug,h2=off,tonic=off,hyper=off,tower=off"]).args(arguments);
    Service::start("netd-tunnel", command, &directory.join(format!("tunnel{number}.log")))
}

pub(crate) fn device() -> IfName {
    DEVICE.parse().unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

pub(crate) fn endpoint(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Two nodes with a cable between them.
pub(crate) struct Pair {
    pub backend: Backend,
    /// IPv6 outside.
    pub outer_v6: bool,
    pub a: Node,
    pub b: Node,
    // Last: it can be removed when processes and namespaces are gone.
    _directory: Directory,
}

/// Removed when dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A private key of a node's, and the public one.
pub(crate) fn keys(number: u8) -> (SecretKey, [u8; 32]) {
    let private = boringtun::x25519::StaticSecret::from([number + 0x40; 32]);
    let public = boringtun::x25519::PublicKey::from(&private);
    (SecretKey(private.to_bytes()), public.to_bytes())
}

impl Pair {
    /// Processes that have no tunnel yet.
    pub(crate) fn bare(backend: Backend, outer_v6: bool, arguments: &[&str]) -> Result<Self> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("netd-tun-{}-{counter}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory)?;
        let removed = Directory(directory.clone());
        let a = Node::new(directory.clone(), 1, arguments)?;
        let b = Node::new(directory.clone(), 2, arguments)?;
        for node in [&a, &b] {
            // Link-local addresses that are waited for would hold up the first packets.
            node.net.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")?;
        }
        let peer = b.net.path().display();
        a.net.sh(&format!("ip link add eth0 type veth peer name eth0 netns {peer}"))?;
        for node in [&a, &b] {
            let n = node.number;
            node.net.sh(&format!(
                "ip address add 192.0.2.{n}/24 dev eth0
                 ip address add 2001:db8::{n}/64 dev eth0 nodad
                 ip link set eth0 up"
            ))?;
        }
        // Neighbour discovery begins when both ends have a carrier, in its own time.
        wait::until(SOON, "the cable works", || {
            a.net.sh("ping -n -c 1 -W 1 192.0.2.2 && ping -n -c 1 -W 1 2001:db8::2")
        })?;
        Ok(Self { backend, outer_v6, a, b, _directory: removed })
    }

    /// Tunnels that know each other, with addresses.
    pub(crate) fn new(backend: Backend, outer_v6: bool) -> Result<Self> {
        let pair = Self::bare(backend, outer_v6, &["--queues", "2"])?;
        for (node, other) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            node.configure(&pair.tunnel(node.number))?;
            node.update(&PeerChange { set: vec![pair.peer(other.number)], ..Default::default() })?;
            pair.address(node)?;
        }
        Ok(pair)
    }

    pub(crate) fn mtu(&self) -> u32 {
        let outer = if self.outer_v6 { 48 } else { 28 };
        1500 - outer - if self.backend == Backend::Wireguard { 32 } else { 0 }
    }

    pub(crate) fn address(&self, node: &Node) -> Result<()> {
        // The queue has room for what comes while a busy machine does something else.
        let (n, mtu) = (node.number, self.mtu());
        node.net.sh(&format!(
            "ip link set {DEVICE} mtu {mtu} txqueuelen 5000 up
             ip address add 10.{n}.0.1/24 dev {DEVICE}
             ip address add fd00:{n}::1/64 dev {DEVICE} nodad
             ip route add 10.0.0.0/8 dev {DEVICE} src 10.{n}.0.1
             ip route add fd00::/16 dev {DEVICE} src fd00:{n}::1"
        ))?;
        Ok(())
    }

    pub(crate) fn outer(&self, number: u8) -> SocketAddr {
        let port = 8284 + u16::from(number);
        match self.outer_v6 {
            false => endpoint(&format!("192.0.2.{number}:{port}")),
            true => endpoint(&format!("[2001:db8::{number}]:{port}")),
        }
    }

    pub(crate) fn tunnel(&self, number: u8) -> Tunnel {
        Tunnel {
            device: device(),
            listen: vec![self.outer(number)],
            subnets: vec![net(&format!("10.{number}.0.0/24")), net(&format!("fd00:{number}::/64"))],
            kind: match self.backend {
                Backend::Udp => TunnelKind::Udp,
                Backend::Wireguard => TunnelKind::Wireguard(keys(number).0),
            },
        }
    }

    pub(crate) fn peer(&self, number: u8) -> TunnelPeer {
        let subnets =
            [net(&format!("10.{number}.0.0/24")), net(&format!("fd00:{number}::/64"))].into();
        let endpoint = self.outer(number);
        match self.backend {
            Backend::Udp => TunnelPeer::Udp(device(), UdpPeer { endpoint, subnets }),
            Backend::Wireguard => TunnelPeer::Wireguard(
                device(),
                WireguardPeer {
                    public_key: keys(number).1,
                    endpoint,
                    allowed: subnets,
                    preshared_key: Some(SecretKey([9; 32])),
                    keepalive: 0,
                },
            ),
        }
    }

    /// From node 1 to node 2 in the tunnel, both families.
    pub(crate) fn ping(&self) -> Result<()> {
        for target in ["10.2.0.1", "fd00:2::1"] {
            self.a.net.sh(&format!("ping -n -c 3 -i 0.05 -W 2 {target}"))?;
        }
        Ok(())
    }

    /// As above, but not within some time.
    pub(crate) fn silent(&self) -> Result<()> {
        let pinged = self.a.net.sh("ping -n -c 3 -i 0.1 -W 1 10.2.0.1");
        ensure!(pinged.is_err(), "it answers");
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in [&self.a, &self.b] {
                eprintln!("--- netd-tunnel {}\n{}", node.number, node.log());
            }
        }
    }
}

/// Shows the logs if the test fails.
pub(crate) fn case(pair: Pair, test: impl FnOnce(&mut Pair) -> Result<()>) -> Result<()> {
    let mut pair = pair;
    let outcome = test(&mut pair);
    if outcome.is_err() {
        for node in [&pair.a, &pair.b] {
            let log = node.log();
            let end: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("--- netd-tunnel {}", node.number);
            end.iter().rev().for_each(|line| eprintln!("{line}"));
            eprintln!("{:?}", node.status());
        }
    }
    outcome
}
