//! A device's UDP port is another's: the error names the port and who has it, and netd goes on as
//! soon as it is free.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Result, ensure};
use testbed::{
    Cluster, Host, Plan, case,
    cluster::{Families, Node},
    wait,
};

use super::{SOON, backend};

/// Retries are half a minute apart at most.
const RETRIED: Duration = Duration::from_secs(40);

/// Takes a port in one way, and gives it back by dropping what is returned, or by `script`.
struct Taken<T> {
    kind: &'static str,
    take: fn(&Host) -> Result<T>,
    names: Vec<String>,
    free: &'static str,
}

fn is_named<T>(taken: &Taken<T>) -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::V4, backend(taken.kind));
        let mut cluster = Cluster::prepare(bed, &plan)?;
        let host = bed.host("n0")?;
        let holder = (taken.take)(&host)?;
        cluster.nodes.push(Node::launch_on(host, &plan, &cluster.etcd)?);
        let node = &mut cluster.nodes[0];
        wait::until(SOON, "it is said", || {
            let said = node.problem("overlay")?;
            let missing = taken.names.iter().find(|name| !said.contains(name.as_str()));
            ensure!(missing.is_none(), "{said:?} does not name {missing:?}");
            Ok(())
        })?;
        ensure!(!node.netd.status()?.ready);
        let doctor = node.netd.cli(&["doctor"]).err().map(|e| e.to_string()).unwrap_or_default();
        ensure!(taken.names.iter().all(|name| doctor.contains(name.as_str())), "{doctor}");
        drop(holder);
        node.host.net.sh(taken.free)?;
        wait::until(RETRIED, "it is ready", || {
            ensure!(node.netd.status()?.ready, "{}", node.problem("overlay")?);
            Ok(())
        })
        .map(drop)
    })
}

fn bind(host: &Host, port: u16) -> Result<UdpSocket> {
    host.net.run(|| Ok(UdpSocket::bind(("0.0.0.0", port))?))
}

fn this_process(port: u16) -> Vec<String> {
    vec![format!("UDP port {port}"), format!("pid {}", std::process::id())]
}

#[test]
fn a_process_has_vxlans_port() -> Result<()> {
    let take = |host: &Host| bind(host, 8472);
    is_named(&Taken { kind: "vxlan", take, names: this_process(8472), free: "true" })
}

#[test]
fn a_process_has_udps_port() -> Result<()> {
    let take = |host: &Host| bind(host, 8285);
    is_named(&Taken { kind: "udp", take, names: this_process(8285), free: "true" })
}

#[test]
fn a_process_has_wireguards_port() -> Result<()> {
    let take = |host: &Host| bind(host, 51820);
    is_named(&Taken { kind: "wireguard", take, names: this_process(51820), free: "true" })
}

#[test]
fn a_device_of_another_mode_has_vxlans_port() -> Result<()> {
    let take = |host: &Host| {
        let add = "ip link add cilium_vxlan type vxlan external dstport 8472";
        host.net.sh(&format!("{add}; ip link set cilium_vxlan up"))
    };
    let names = ["UDP port 8472", "vxlan device cilium_vxlan"].map(str::to_owned).into();
    is_named(&Taken { kind: "vxlan", take, names, free: "ip link delete cilium_vxlan" })
}

#[test]
fn a_device_has_the_vni_on_vxlans_port() -> Result<()> {
    let take = |host: &Host| {
        host.net.sh(&format!(
            "ip link add other type vxlan id 1 dev eth0 local {} dstport 8472; ip link set other up",
            host.v4
        ))
    };
    let names = ["UDP port 8472", "device other has VNI 1"].map(str::to_owned).into();
    is_named(&Taken { kind: "vxlan", take, names, free: "ip link delete other" })
}
