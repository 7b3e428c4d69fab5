//! What an attach costs beside the kernel's floor, in network namespaces of its own.
//! Needs root: `cargo run --release -p netd-tests --bin netd-attach-cost -- [pods]`.

use std::{
    error::Error,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use netd_dataplane::{
    Dataplane, FirewallState, Netns, Settings, namespace,
    netlink::{Protocol, Socket},
};
use netd_domain::{
    Bandwidth, BridgeWiring, EndpointKey, Mac, NetworkWiring, Route, Wiring, WiringDriver,
    wiring::WiredAddress,
};
use testbed::raw_netlink;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let pods: u16 = std::env::args().nth(1).map_or(Ok(200), |n| n.parse())?;
    println!("{pods} pods, IPv4 only, one at a time; us");
    println!("{:44} {:>7} {:>7} {:>7}", "", "p50", "p90", "p99");
    for bridged in [false, true] {
        for ipv6 in [false, true] {
            let mode = if bridged { "bridge" } else { "routed" };
            let off = if ipv6 { "" } else { ", IPv6 off by default" };
            let took = std::thread::spawn(move || floor_of(bridged, ipv6, pods)).join();
            print(&format!("floor  {mode}{off}"), took.map_err(|_| "a thread died")??);
        }
        let mode = if bridged { "bridge" } else { "routed" };
        dataplane_of(bridged, mode, pods).await?;
    }
    Ok(())
}

fn print(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_micros();
    println!("{what:44} {:>7} {:>7} {:>7}", at(50), at(90), at(99));
}

fn floor_of(bridged: bool, ipv6: bool, pods: u16) -> Outcome<Vec<Duration>> {
    const BRIDGE_INDEX: u32 = 999;
    const FIRST_INDEX: u32 = 1000;
    let home = space(ipv6)?;
    namespace::enter_for_good(&home)?;
    let mut socket = Socket::open(Protocol::Route)?;
    let bridge = network(bridged)?.bridge;
    if let Some(bridge) = &bridge {
        raw_netlink::bridge(&mut socket, bridge, 1500, BRIDGE_INDEX)?;
    }
    let bridge = bridge.map(|_| BRIDGE_INDEX);
    let mut took = Vec::new();
    let mut sandboxes = Vec::new();
    for n in 2..pods + 2 {
        let (sandbox, wiring) = (space(ipv6)?, wiring(bridged, n)?);
        let start = Instant::now();
        raw_netlink::attach(&mut socket, &sandbox, &wiring, FIRST_INDEX + u32::from(n), bridge)?;
        took.push(start.elapsed());
        sandboxes.push(sandbox);
    }
    Ok(took)
}

async fn dataplane_of(bridged: bool, mode: &str, pods: u16) -> Outcome<()> {
    let host = Arc::new(space(true)?);
    let settings = Settings { host_netns: Some(host), kernel_hints: true, ..Settings::default() };
    let (dataplane, _drift) = Dataplane::start(settings)?;
    let network = Arc::new(network(bridged)?);
    dataplane.ensure_network(network.clone()).await?;
    let state = FirewallState { networks: vec![network], endpoints: Vec::new() };
    dataplane.replace_firewall(move || state).await?;
    let (mut whole, mut kernel, mut firewall, mut parks) = (vec![], vec![], vec![], vec![]);
    let mut all = Vec::new();
    for n in 2..pods + 2 {
        let (sandbox, wiring) = (space(true)?, Arc::new(wiring(bridged, n)?));
        let path = PathBuf::from(format!("/proc/self/fd/{}", sandbox.as_raw_fd()));
        let start = Instant::now();
        let netns = Arc::new(Netns::open(&path)?);
        let times = dataplane.attach(netns, wiring.clone()).await?;
        whole.push(start.elapsed());
        kernel.push(times.kernel);
        firewall.push(times.firewall);
        all.push((sandbox, wiring));
    }
    print(&format!("attach {mode}, whole call"), whole);
    print(&format!("attach {mode}, links"), kernel);
    print(&format!("attach {mode}, firewall at the same time"), firewall);
    for (_, wiring) in &all {
        let start = Instant::now();
        dataplane.detach_link(wiring.clone()).await?;
        parks.push(start.elapsed());
    }
    print(&format!("park   {mode}"), parks);
    let start = Instant::now();
    let reaping = dataplane.clone();
    let reaped =
        tokio::spawn(async move { reaping.delete_detached().await.map(|()| start.elapsed()) });
    let mut meanwhile = Vec::new();
    let mut n = pods + 2;
    while !reaped.is_finished() {
        let (sandbox, wiring) = (space(true)?, Arc::new(wiring(bridged, n)?));
        let path = PathBuf::from(format!("/proc/self/fd/{}", sandbox.as_raw_fd()));
        let start = Instant::now();
        let netns = Arc::new(Netns::open(&path)?);
        dataplane.attach(netns, wiring.clone()).await?;
        meanwhile.push(start.elapsed());
        all.push((sandbox, wiring));
        n += 1;
    }
    let worst = meanwhile.iter().max().copied().unwrap_or_default();
    print(&format!("attach {mode}, while {pods} are reaped"), meanwhile);
    print("    the slowest of them", vec![worst]);
    print(&format!("reap   {mode}, a pod"), vec![reaped.await?? / u32::from(pods)]);
    Ok(())
}

fn space(ipv6: bool) -> Outcome<OwnedFd> {
    let make = move || -> Outcome<OwnedFd> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        if !ipv6 {
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        Ok(namespace::current()?)
    };
    std::thread::spawn(make).join().map_err(|_| "a thread died")?
}

fn network(bridged: bool) -> Outcome<NetworkWiring> {
    let bridge = BridgeWiring {
        name: "cni0".parse()?,
        mac: Mac::derived(b"bridge"),
        addresses: vec!["10.88.0.1/16".parse()?],
    };
    Ok(NetworkWiring {
        name: "default".parse()?,
        bridge: bridged.then_some(bridge),
        mtu: 1500,
        subnets: vec!["10.88.0.0/16".parse()?],
        cluster: vec![],
        docker0: vec![],
        masquerade: true,
        internal: false,
        published_only: false,
    })
}

fn wiring(bridged: bool, n: u16) -> Outcome<Wiring> {
    let key = EndpointKey { sandbox: format!("pod-{n}").parse()?, ifname: "eth0".parse()? };
    let [high, low] = n.to_be_bytes();
    let (prefix, gateway) = if bridged { (16, "10.88.0.1") } else { (32, "169.254.1.1") };
    let gateway = gateway.parse()?;
    let mut routes = vec![Route { destination: "0.0.0.0/0".parse()?, gateway: Some(gateway) }];
    if !bridged {
        routes.insert(0, Route { destination: gateway.into(), gateway: None });
    }
    let driver = if bridged { WiringDriver::Bridge("cni0".parse()?) } else { WiringDriver::Routed };
    Ok(Wiring {
        network: "default".parse()?,
        driver,
        host_ifname: key.host_ifname(),
        ifname: key.ifname.clone(),
        mac: Mac::derived(format!("{key} pod").as_bytes()),
        host_mac: Mac::derived(format!("{key} host").as_bytes()),
        mtu: 1500,
        addresses: vec![WiredAddress {
            address: format!("10.88.{high}.{low}/{prefix}").parse()?,
            gateway: Some(gateway),
        }],
        routes,
        port_mappings: Vec::new(),
        bandwidth: Bandwidth::default(),
        pod_mac: None,
    })
}
