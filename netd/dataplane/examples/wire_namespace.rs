//! Wires a network namespace as netd wires a pod's, shows its address, and unwires it.
//!
//! Needs root and `nft`: `cargo run -p netd-dataplane --example wire_namespace`. The host's
//! side is a namespace of its own too, so nothing of this machine changes.

use std::{
    error::Error,
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    sync::Arc,
};

use netd_dataplane::{Dataplane, FirewallState, Netns, Settings, namespace};
use netd_domain::{
    Bandwidth, BridgeWiring, EndpointKey, Mac, NetworkWiring, Route, Wiring, WiringDriver,
    wiring::WiredAddress,
};

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let (host, sandbox) = (Arc::new(new_namespace()?), new_namespace()?);
    let settings = Settings { host_netns: Some(host.clone()), ..Settings::default() };
    let (dataplane, _drift) = Dataplane::start(settings)?;

    let network = Arc::new(network()?);
    dataplane.ensure_network(network.clone()).await?;
    let state = FirewallState { networks: vec![network.clone()], endpoints: vec![] };
    dataplane.replace_firewall(move || state).await?;

    let wiring = Arc::new(endpoint()?);
    let path = format!("/proc/{}/fd/{}", std::process::id(), sandbox.as_raw_fd());
    let netns = Arc::new(Netns::open(path.as_ref())?);
    let times = dataplane.attach(netns.clone(), wiring.clone()).await?;
    println!("attached in {:?}; in the sandbox:", times.kernel);
    print!("{}", ip(&sandbox, "-brief address")?);
    print!("{}", ip(&sandbox, "route")?);
    let differences = dataplane.check(netns, wiring.clone()).await?;
    println!("differences from the wiring: {differences:?}");

    // What happens to its links from here on is no drift.
    dataplane.forget(&wiring.host_ifname).await?;
    dataplane.remove_stray(&wiring.host_ifname).await?;
    println!("detached; on the host:");
    print!("{}", ip(&host, "-brief link")?);
    dataplane.remove_network(network).await?;
    Ok(())
}

/// A bridge `cni0` with the gateway's address.
fn network() -> Result<NetworkWiring, AnyError> {
    let bridge = BridgeWiring {
        name: "cni0".parse()?,
        mac: Mac::derived(b"the bridge"),
        addresses: vec!["10.88.0.1/16".parse()?],
    };
    Ok(NetworkWiring {
        name: "default".parse()?,
        bridge: Some(bridge),
        mtu: 1500,
        subnets: vec!["10.88.0.0/16".parse()?],
        cluster: vec![],
        docker0: vec![],
        masquerade: true,
        internal: false,
        published_only: false,
    })
}

/// An endpoint on that bridge. Which address and MACs it has is the caller's choice.
fn endpoint() -> Result<Wiring, AnyError> {
    let key = EndpointKey { sandbox: "example".parse()?, ifname: "eth0".parse()? };
    let gateway = Some("10.88.0.1".parse()?);
    Ok(Wiring {
        network: "default".parse()?,
        driver: WiringDriver::Bridge("cni0".parse()?),
        host_ifname: key.host_ifname(),
        ifname: key.ifname.clone(),
        mac: Mac::derived(b"the sandbox's side"),
        host_mac: Mac::derived(b"the host's side"),
        mtu: 1500,
        addresses: vec![WiredAddress { address: "10.88.0.2/16".parse()?, gateway }],
        routes: vec![Route { destination: "0.0.0.0/0".parse()?, gateway }],
        port_mappings: vec![],
        bandwidth: Bandwidth::default(),
        pod_mac: None,
    })
}

/// A network namespace that lives as long as its descriptor.
fn new_namespace() -> Result<OwnedFd, AnyError> {
    let made = std::thread::spawn(|| -> std::io::Result<OwnedFd> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        namespace::current()
    });
    Ok(made.join().map_err(|_| "the thread that makes a namespace died")??)
}

/// What `ip` says in a namespace.
fn ip(at: &OwnedFd, line: &str) -> Result<String, AnyError> {
    let run = || Command::new("ip").args(line.split_whitespace()).output();
    let output = namespace::run_in(at, run)??;
    Ok(String::from_utf8(output.stdout)?)
}
