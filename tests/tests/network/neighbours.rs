//! What pods on a bridge hear of each other.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{Sandbox, case, net::probe, wait};

use crate::node::Node;

const V4: &str = "10.88.3.7";
const V6: &str = "fd00:88::37";

/// A pod with a static address and this MAC.
fn with_mac(node: &Node, name: &str, mac: &str) -> Result<Sandbox> {
    let mut pod = node.bare(name)?;
    let ips = [format!("{V4}/16"), format!("{V6}/64")];
    pod.config["runtimeConfig"] = json!({"ips": ips, "mac": mac});
    // The address is free once the last one's link is gone.
    wait::until(Duration::from_secs(5), "the address is free", || pod.add(&node.host))?;
    Ok(pod)
}

/// Its neighbours have the old MAC, as reachable.
#[test]
fn an_address_that_comes_back_with_another_mac_is_reached_at_once() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let other = node.attached("other")?;
        let to: [IpAddr; 2] = [V4.parse()?, V6.parse()?];
        for round in 0..3 {
            let pod = with_mac(&node, "pod", &format!("02:00:00:00:07:0{round}"))?;
            let attached = Instant::now();
            for ip in to {
                wait::until(Duration::from_secs(2), "reached", || {
                    probe::ping(&other.net, ip)?;
                    probe::ping(&node.host.net, ip)
                })?;
            }
            let took = attached.elapsed();
            ensure!(took < Duration::from_secs(2), "round {round}: {took:?}");
            pod.del(&node.host)?;
        }
        Ok(())
    })
}

const PORT: u16 = 7001;

/// How often a multicast that the pod itself sends is heard in it, and in the other pod.
fn heard(pod: &Sandbox, other: &Sandbox, v6: bool) -> Result<(usize, usize)> {
    let listen = |of: &Sandbox| {
        let own = of.v4()?;
        of.net.run(move || {
            let index = nix::net::if_::if_nametoindex("eth0")?;
            let socket = match v6 {
                true => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))?,
                false => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?,
            };
            match (v6, own) {
                (false, IpAddr::V4(own)) => socket.join_multicast_v4(&GROUP4, &own)?,
                _ => socket.join_multicast_v6(&GROUP6, index)?,
            }
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            Ok((socket, index))
        })
    };
    let (near, index) = listen(pod)?;
    let (far, _) = listen(other)?;
    let own = pod.v4()?;
    pod.net.run(move || {
        let to: SocketAddr = match v6 {
            true => SocketAddrV6::new(GROUP6, PORT, 0, index).into(),
            false => (GROUP4, PORT).into(),
        };
        let from: SocketAddr = match v6 {
            true => (Ipv6Addr::UNSPECIFIED, 0).into(),
            false => (own, 0).into(),
        };
        UdpSocket::bind(from)?.send_to(b"hello", to)?;
        Ok(())
    })?;
    let count = |socket: &UdpSocket| {
        let mut buffer = [0; 16];
        std::iter::from_fn(|| socket.recv_from(&mut buffer).ok()).count()
    };
    Ok((count(&near), count(&far)))
}

const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 7, 7, 7);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 7, 7);

#[test]
fn a_pod_hears_its_own_multicast_once_and_so_do_the_others() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (pod, other) = (node.attached("pod")?, node.attached("other")?);
        for v6 in [false, true] {
            let heard = heard(&pod, &other, v6)?;
            ensure!(heard == (1, 1), "IPv6: {v6}: {heard:?}");
        }
        Ok(())
    })
}
