//! What it costs to load and to check a large overlay, in a network namespace of its own.
//! Needs root: `cargo run --release -p netd-dataplane --example overlay_load -- [peers]`.

use std::{
    error::Error,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use netd_dataplane::{Dataplane, DataplaneError, OverlayReport, Settings, namespace};
use netd_domain::{
    IfName, Mac,
    overlay::{
        DeviceKind, Hop, OverlayChange, OverlayDevice, OverlayObject, OverlayRoute, OverlayState,
        VxlanDevice,
    },
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let peers: u32 = std::env::args().nth(1).map_or(Ok(10_000), |n| n.parse())?;
    println!("{peers} peers by vxlan: a neighbour, a forwarding entry and a route each; ms");
    let host = Arc::new(space()?);
    let settings = Settings { host_netns: Some(host), ..Settings::default() };
    let (dataplane, mut drift) = Dataplane::start(settings.clone())?;
    let mut state = state()?;
    let make = |state: &OverlayState| dataplane.sync_overlay(Arc::new(state.clone()));
    timed("the device alone", 2, make(&state)).await?;
    state.objects = objects(0..peers)?.into_iter().collect();
    timed("load", 3 * peers as usize, make(&state)).await?;
    for _ in 0..3 {
        timed("unchanged", 0, make(&state)).await?;
    }
    let peer = objects(peers..peers + 1)?;
    let add = OverlayChange { add: peer.clone(), ..OverlayChange::default() };
    timed("one peer more", 3, dataplane.change_overlay(add)).await?;
    let remove = OverlayChange { remove: peer, ..OverlayChange::default() };
    timed("and one less", 3, dataplane.change_overlay(remove)).await?;
    let (another, _drift) = Dataplane::start(settings)?;
    timed("adopted by another", 0, another.sync_overlay(Arc::new(state.clone()))).await?;
    state.objects.clear();
    timed("all of them gone", 3 * peers as usize, make(&state)).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let heard: Vec<_> = std::iter::from_fn(|| drift.try_recv().ok()).collect();
    println!("{:20} {heard:?}", "drift that was heard");
    Ok(())
}

/// Waits for a report of `repairs` repairs or more, and prints how long that took.
async fn timed(
    what: &str,
    repairs: usize,
    report: impl Future<Output = Result<OverlayReport, DataplaneError>>,
) -> Outcome<()> {
    let start = Instant::now();
    let report = report.await?;
    let took = start.elapsed();
    let done = report.repairs.len();
    if let Some((subject, e)) = report.refused.first() {
        return Err(format!("{what}: {} refused, e.g. {subject}: {e}", report.refused.len()).into());
    }
    if done < repairs || (repairs == 0 && done > 0) {
        return Err(format!("{what}: {done} repairs instead of {repairs}").into());
    }
    println!("{what:20} {:>9.2}   {done} changes", took.as_secs_f64() * 1000.0);
    Ok(())
}

/// A namespace with an underlay.
fn space() -> Outcome<OwnedFd> {
    let make = || -> Outcome<OwnedFd> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        for line in [
            "link add eth0 type veth peer name eth1",
            "link set eth1 up",
            "link set eth0 up",
            "addr add 192.0.2.1/24 dev eth0",
        ] {
            let done = std::process::Command::new("ip").args(line.split(' ')).status()?;
            if !done.success() {
                return Err(format!("ip {line}: {done}").into());
            }
        }
        Ok(namespace::current()?)
    };
    std::thread::spawn(make).join().map_err(|_| "a thread died")?
}

fn name() -> Outcome<IfName> {
    Ok("flannel.1".parse()?)
}

fn state() -> Outcome<OverlayState> {
    let device = OverlayDevice {
        name: name()?,
        mtu: 1450,
        addresses: vec!["10.255.255.0/32".parse()?],
        kind: DeviceKind::Vxlan(VxlanDevice {
            vni: 1,
            port: 8472,
            mac: Mac::derived(b"here"),
            local: "192.0.2.1".parse()?,
            underlay: "eth0".parse()?,
            gbp: false,
            learning: false,
        }),
    };
    Ok(OverlayState { devices: vec![device], ..OverlayState::default() })
}

/// What leads to peers: each has a /24 of 10.0.0.0/8 and an address of 172.16.0.0/12.
fn objects(peers: std::ops::Range<u32>) -> Outcome<Vec<OverlayObject>> {
    let mut all = Vec::new();
    for n in peers {
        let subnet = Ipv4Net::new(Ipv4Addr::from((10 << 24) + (n << 8)), 24)?;
        let mac = Mac::derived(&n.to_be_bytes());
        let gateway = subnet.addr().into();
        let remote = Ipv4Addr::from((172 << 24) + (16 << 16) + n).into();
        all.push(OverlayObject::Neighbour { device: name()?, ip: gateway, mac });
        all.push(OverlayObject::Fdb { device: name()?, mac, remote });
        let hop = Hop::Via { gateway, device: name()?, onlink: true };
        all.push(OverlayObject::Route(OverlayRoute { destination: subnet.into(), hop, mtu: None }));
    }
    Ok(all)
}
