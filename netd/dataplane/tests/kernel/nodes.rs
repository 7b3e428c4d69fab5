//! Nodes of a cluster on the real kernel.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use netd_dataplane::{Dataplane, Drift, OverlayReport, Settings};
use netd_domain::{
    IfName,
    overlay::{
        DeviceKind, Hop, OverlayDevice, OverlayObject, OverlayRoute, OverlayState, VxlanDevice,
    },
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::bed::Space;

/// A node of a cluster: a namespace with an underlay device and a dataplane.
pub(crate) struct Node {
    pub host: Space,
    pub dataplane: Arc<Dataplane>,
    pub drift: UnboundedReceiver<Drift>,
    number: u8,
    v6: bool,
}

impl Node {
    /// Two nodes on one link, with an underlay of IPv4 or IPv6.
    pub(crate) fn pair(v6: bool) -> [Self; 2] {
        let hosts = [Space::new(), Space::new()];
        let far = hosts[1].path();
        hosts[0].ip(&format!(
            "link add eth0 mtu 1500 type veth peer name eth0 mtu 1500 netns {}",
            far.display()
        ));
        let mut number = 0;
        hosts.map(|host| {
            number += 1;
            Self::with_underlay(host, number, v6)
        })
    }

    /// One that nobody is at the other end of.
    pub(crate) fn one() -> Self {
        let host = Space::new();
        host.ip("link add eth0 mtu 1500 type veth peer name eth1");
        host.ip("link set eth1 up");
        Self::with_underlay(host, 1, false)
    }

    pub(crate) fn with_underlay(host: Space, number: u8, v6: bool) -> Self {
        host.ip("link set eth0 up");
        host.ip(&format!("addr add 192.0.2.{number}/24 dev eth0"));
        host.ip(&format!("addr add 2001:db8::{number}/64 dev eth0 nodad"));
        host.set_sysctl("ipv4/ip_forward", "1");
        host.set_sysctl("ipv6/conf/all/forwarding", "1");
        let settings = Settings {
            host_netns: Some(host.0.clone()),
            kernel_hints: true,
            ..Settings::default()
        };
        let (dataplane, drift) = Dataplane::start(settings).unwrap();
        Self { host, dataplane, drift, number, v6 }
    }

    pub(crate) fn outer(&self, number: u8) -> IpAddr {
        let text = match self.v6 {
            false => format!("192.0.2.{number}"),
            true => format!("2001:db8::{number}"),
        };
        text.parse().unwrap()
    }

    pub(crate) fn device(&self) -> OverlayDevice {
        OverlayDevice {
            name: name(),
            mtu: if self.v6 { 1430 } else { 1450 },
            addresses: [subnet(self.number, false), subnet(self.number, true)].map(own).to_vec(),
            kind: DeviceKind::Vxlan(VxlanDevice {
                vni: 1,
                port: 8472,
                mac: mac(self.number).parse().unwrap(),
                local: self.outer(self.number),
                underlay: "eth0".parse().unwrap(),
                gbp: false,
                learning: false,
            }),
        }
    }

    /// What leads to a peer's subnets of both families.
    pub(crate) fn peer(&self, number: u8) -> Vec<OverlayObject> {
        let mac = mac(number).parse().unwrap();
        let mut all = vec![OverlayObject::Fdb { device: name(), mac, remote: self.outer(number) }];
        for v6 in [false, true] {
            let destination: ipnet::IpNet = subnet(number, v6).parse().unwrap();
            let gateway = destination.addr();
            all.push(OverlayObject::Neighbour { device: name(), ip: gateway, mac });
            let hop = Hop::Via { gateway, device: name(), onlink: true };
            all.push(OverlayObject::Route(OverlayRoute { destination, hop, mtu: None }));
        }
        all
    }

    pub(crate) fn state(&self, peers: &[u8]) -> OverlayState {
        let objects = peers.iter().flat_map(|number| self.peer(*number)).collect();
        OverlayState { devices: vec![self.device()], objects, ..OverlayState::default() }
    }

    pub(crate) async fn sync(&self, state: &OverlayState) -> OverlayReport {
        self.dataplane.sync_overlay(Arc::new(state.clone())).await.unwrap()
    }

    /// Makes the state true, and shows that nothing is left to be done.
    pub(crate) async fn settle(&self, state: &OverlayState) {
        let report = self.sync(state).await;
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        self.assert_right(state).await;
    }

    pub(crate) async fn assert_right(&self, state: &OverlayState) {
        let report = self.sync(state).await;
        assert!(report.repairs.is_empty(), "{:?}", report.repairs);
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    pub(crate) async fn hears(&mut self, wanted: &Drift) -> bool {
        let heard = async {
            while let Some(drift) = self.drift.recv().await {
                if drift == *wanted {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(std::time::Duration::from_secs(1), heard).await.unwrap_or(false)
    }

    pub(crate) async fn quiet(&mut self) -> Vec<Drift> {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        // An address that came is a reason to look at host ports, no drift, whoever added it.
        let drift = std::iter::from_fn(|| self.drift.try_recv().ok());
        drift.filter(|drift| *drift != Drift::HostAddresses).collect()
    }

    pub(crate) fn bridge(&self, line: &str) -> String {
        self.host.run("bridge", line).unwrap_or_else(|e| panic!("bridge {line}: {e}"))
    }
}

pub(crate) fn name() -> IfName {
    "flannel.1".parse().unwrap()
}

pub(crate) fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

pub(crate) fn subnet(number: u8, v6: bool) -> String {
    if v6 { format!("fd00:5:{number:x}::/64") } else { format!("10.5.{number}.0/24") }
}

/// The device's own address: the subnet's first.
pub(crate) fn own(subnet: String) -> ipnet::IpNet {
    let net: ipnet::IpNet = subnet.parse().unwrap();
    net.addr().into()
}

pub(crate) fn kinds(report: &OverlayReport) -> HashSet<&'static str> {
    report.repairs.iter().map(|repair| repair.kind.name()).collect()
}
