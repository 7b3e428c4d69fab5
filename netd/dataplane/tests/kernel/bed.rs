//! A host and its pods in network namespaces of their own. Needs root.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use netd_dataplane::{
    Attached, Dataplane, DataplaneError, Drift, FirewallState, Netns, Settings, namespace,
};
use netd_domain::{
    Bandwidth, BridgeWiring, EndpointKey, Mac, NetworkWiring, Route, Wiring, WiringDriver,
    wiring::{ROUTED_GATEWAY_V4, ROUTED_GATEWAY_V6, WiredAddress},
};
use tokio::sync::mpsc::UnboundedReceiver;

/// A network namespace that lives as long as this.
pub(crate) struct Space(pub Arc<OwnedFd>);

impl Space {
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("these tests need root: they make network namespaces");
            namespace::current().unwrap()
        });
        let space = Self(Arc::new(made.join().unwrap()));
        space.ip("link set lo up");
        space
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    pub(crate) fn open(&self) -> Arc<Netns> {
        Arc::new(Netns::open(&self.path()).unwrap())
    }

    /// Runs a program in it; its output, or its complaint.
    pub(crate) fn run(&self, program: &str, line: &str) -> Result<String, String> {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .arg(program)
            .args(line.split_whitespace())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Runs `ip`, which has to succeed.
    pub(crate) fn ip(&self, line: &str) -> String {
        let said = match line.split_once(" name ") {
            Some((set, name)) if set.starts_with("link set") => self.rename(set, name),
            _ => self.run("ip", line),
        };
        said.unwrap_or_else(|e| panic!("ip {line}: {e}"))
    }

    /// Before Linux 6.2 a device that is up keeps its name, so it goes down for that.
    fn rename(&self, set: &str, name: &str) -> Result<String, String> {
        let renamed = self.run("ip", &format!("{set} name {name}"));
        if !renamed.as_ref().is_err_and(|e| e.contains("busy")) {
            return renamed;
        }
        self.run("ip", &format!("{set} down"))?;
        self.run("ip", &format!("{set} name {name}"))?;
        self.run("ip", &format!("link set {name} up"))
    }

    pub(crate) fn inside<T>(&self, f: impl FnOnce() -> T) -> T {
        namespace::run_in(self.0.as_fd(), f).unwrap()
    }

    pub(crate) fn udp(&self, at: IpAddr) -> UdpSocket {
        let socket = self.inside(|| UdpSocket::bind(SocketAddr::new(at, 0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    }

    pub(crate) fn sysctl(&self, path: &str) -> String {
        let file = format!("/proc/sys/net/{path}");
        self.inside(|| std::fs::read_to_string(&file)).unwrap().trim().to_owned()
    }

    pub(crate) fn set_sysctl(&self, path: &str, value: &str) {
        let file = format!("/proc/sys/net/{path}");
        self.inside(|| std::fs::write(&file, value)).unwrap();
    }
}

/// Whether a datagram from `a` at `from` reaches `b` at `to`, and another one back.
pub(crate) fn reaches(a: &Space, from: IpAddr, b: &Space, to: IpAddr) -> bool {
    let (near, far) = (a.udp(from), b.udp(to));
    let mut buffer = [0; 64];
    // The first one may be lost while a bridge learns where everybody is.
    (0..5).any(|_| {
        near.send_to(b"to", far.local_addr().unwrap()).is_ok()
            && far.recv_from(&mut buffer).is_ok_and(|(_, back)| far.send_to(b"fro", back).is_ok())
            && near.recv_from(&mut buffer).is_ok()
    })
}

/// A host with a dataplane and two networks: `cni0`, and a routed one.
pub(crate) struct Bed {
    pub host: Space,
    pub dataplane: Arc<Dataplane>,
    pub drift: UnboundedReceiver<Drift>,
    pub bridged: Arc<NetworkWiring>,
    pub routed: Arc<NetworkWiring>,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let host = Space::new();
        let settings = Settings {
            host_netns: Some(host.0.clone()),
            kernel_hints: true,
            ..Settings::default()
        };
        let (dataplane, drift) = Dataplane::start(settings).unwrap();
        let (bridged, routed) = (Arc::new(network(true)), Arc::new(network(false)));
        for network in [&bridged, &routed] {
            dataplane.ensure_network(network.clone()).await.unwrap();
        }
        let networks = vec![bridged.clone(), routed.clone()];
        let state = FirewallState { networks, endpoints: Vec::new() };
        dataplane.replace_firewall(move || state).await.unwrap();
        Self { host, dataplane, drift, bridged, routed }
    }

    /// A second process's dataplane on the same host.
    pub(crate) fn another(&self) -> (Arc<Dataplane>, UnboundedReceiver<Drift>) {
        let settings = Settings {
            host_netns: Some(self.host.0.clone()),
            kernel_hints: true,
            ..Settings::default()
        };
        Dataplane::start(settings).unwrap()
    }

    /// The host's sysfs, for this thread and those that it starts from now on.
    pub(crate) fn mount_sysfs(&self) {
        use nix::{mount, sched};
        sched::unshare(sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = mount::MsFlags::MS_REC | mount::MsFlags::MS_PRIVATE;
        mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        self.host.run("mount", "-t sysfs sysfs /sys").unwrap();
    }

    pub(crate) async fn attach(&self, wiring: &Arc<Wiring>) -> Space {
        let pod = Space::new();
        self.try_attach(&pod, wiring).await.unwrap();
        pod
    }

    pub(crate) async fn try_attach(
        &self,
        pod: &Space,
        wiring: &Arc<Wiring>,
    ) -> Result<Attached, DataplaneError> {
        self.dataplane.attach(pod.open(), wiring.clone()).await
    }

    /// Nothing differs.
    pub(crate) async fn assert_right(&self, pod: &Space, wiring: &Arc<Wiring>) {
        let found = self.dataplane.check(pod.open(), wiring.clone()).await.unwrap();
        assert_eq!(found, Vec::<String>::new());
        let changed = self.dataplane.changes_inside(pod.open(), wiring.clone()).await.unwrap();
        assert_eq!(changed, Vec::<String>::new());
    }

    /// Waits for a drift event that `wanted` accepts, at most a second.
    pub(crate) async fn hears(&mut self, wanted: impl Fn(&Drift) -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(1);
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match tokio::time::timeout(left, self.drift.recv()).await {
                Ok(Some(drift)) if wanted(&drift) => return true,
                Ok(Some(_)) => {}
                _ => return false,
            }
        }
        false
    }

    /// Forgets the events so far.
    pub(crate) async fn quiet(&mut self) -> Vec<Drift> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // An address that came is a reason to look at host ports, no drift, whoever added it.
        let drift = std::iter::from_fn(|| self.drift.try_recv().ok());
        drift.filter(|drift| *drift != Drift::HostAddresses).collect()
    }
}

fn network(bridged: bool) -> NetworkWiring {
    let (v4, v6) =
        if bridged { ("10.88.0.0/16", "fd00:88::/64") } else { ("10.99.0.0/16", "fd00:99::/64") };
    let bridge = bridged.then(|| BridgeWiring {
        name: "cni0".parse().unwrap(),
        mac: Mac::derived(b"bridge"),
        addresses: vec!["10.88.0.1/16".parse().unwrap(), "fd00:88::1/64".parse().unwrap()],
    });
    NetworkWiring {
        name: if bridged { "default" } else { "routed" }.parse().unwrap(),
        bridge,
        mtu: 1400,
        subnets: vec![v4.parse().unwrap(), v6.parse().unwrap()],
        cluster: vec![],
        docker0: vec![],
        masquerade: false,
        internal: false,
        published_only: false,
    }
}

/// The `n`th endpoint of the bridge network, dual-stack.
pub(crate) fn on_bridge(n: u16) -> Wiring {
    let [high, low] = n.to_be_bytes();
    let routes = ["0.0.0.0/0 10.88.0.1", "::/0 fd00:88::1"];
    Wiring {
        driver: WiringDriver::Bridge("cni0".parse().unwrap()),
        addresses: vec![
            address(&format!("10.88.{high}.{low}/16"), "10.88.0.1"),
            address(&format!("fd00:88::{n:x}/64"), "fd00:88::1"),
        ],
        routes: routes.iter().map(|r| route(r)).collect(),
        ..wiring("default", n)
    }
}

/// The `n`th endpoint of the routed network, dual-stack.
pub(crate) fn on_route(n: u16) -> Wiring {
    let [high, low] = n.to_be_bytes();
    let routes = ["169.254.1.1/32", "0.0.0.0/0 169.254.1.1", "fe80::1/128", "::/0 fe80::1"];
    Wiring {
        driver: WiringDriver::Routed,
        addresses: vec![
            address(&format!("10.99.{high}.{low}/32"), &ROUTED_GATEWAY_V4.to_string()),
            address(&format!("fd00:99::{n:x}/128"), &ROUTED_GATEWAY_V6.to_string()),
        ],
        routes: routes.iter().map(|r| route(r)).collect(),
        ..wiring("routed", n)
    }
}

fn wiring(network: &str, n: u16) -> Wiring {
    let sandbox = format!("{network}-{n}").parse().unwrap();
    let key = EndpointKey { sandbox, ifname: "eth0".parse().unwrap() };
    Wiring {
        network: network.parse().unwrap(),
        driver: WiringDriver::Routed,
        host_ifname: key.host_ifname(),
        ifname: key.ifname.clone(),
        mac: Mac::derived(format!("{key} pod").as_bytes()),
        host_mac: Mac::derived(format!("{key} host").as_bytes()),
        mtu: 1400,
        addresses: Vec::new(),
        routes: Vec::new(),
        port_mappings: Vec::new(),
        bandwidth: Bandwidth::default(),
        pod_mac: None,
    }
}

fn address(net: &str, gateway: &str) -> WiredAddress {
    WiredAddress { address: net.parse().unwrap(), gateway: Some(gateway.parse().unwrap()) }
}

fn route(text: &str) -> Route {
    let mut parts = text.split(' ');
    let destination = parts.next().unwrap().parse().unwrap();
    Route { destination, gateway: parts.next().map(|via| via.parse().unwrap()) }
}

/// The address of a family: `v6` or IPv4.
pub(crate) fn ip(wiring: &Wiring, v6: bool) -> IpAddr {
    let mut all = wiring.addresses.iter().map(|a| a.address.addr());
    all.find(|ip| ip.is_ipv6() == v6).unwrap()
}
