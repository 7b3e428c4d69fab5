//! The packets that are sent through other programs' chains, and why each matters.

use netd_domain::{Driver, Network};

use super::{
    packet::{Address, Device, Packet},
    rules::Hook,
};

/// Any endpoint's device on the host.
const ENDPOINT: &str = "nd0123456789ab";

/// A kind of traffic.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    /// In words.
    pub what: &'static str,
    /// Whether pods are as good as without a network if it is stopped.
    pub is_vital: bool,
    pub packet: Packet,
    hooks: &'static [Hook],
    /// Frames between the ports of a bridge, which the family "bridge" sees.
    is_frame: bool,
}

impl Probe {
    /// Whether it passes base chains at this hook of this family.
    pub(super) fn passes(&self, hook: Hook, family: &str) -> bool {
        let family = match family {
            "bridge" => self.is_frame,
            "inet" => !self.is_frame,
            "ip" => !self.is_frame && !self.packet.v6,
            "ip6" => !self.is_frame && self.packet.v6,
            _ => false,
        };
        family && self.hooks.contains(&hook)
    }
}

const FORWARDED: &[Hook] = &[Hook::Prerouting, Hook::Forward, Hook::Postrouting];
const LOCAL: &[Hook] = &[Hook::Prerouting, Hook::Input];
const BRIDGED: &[Hook] = &[Hook::Prerouting, Hook::Forward, Hook::Input];

/// Traffic of the networks' pods; `uplink`: the device of the default route.
pub(super) fn probes(networks: &[Network], uplink: Option<&str>) -> Vec<Probe> {
    let outside = uplink.map_or(Device::Other, |name| Device::Named(name.to_owned()));
    let mut probes = vec![];
    for network in networks {
        let device = Device::Named(match network.driver {
            Driver::Bridge => network.bridge.to_string(),
            Driver::Routed => ENDPOINT.to_owned(),
        });
        for v6 in [false, true] {
            // Leased pools are not known here, and may be of both families.
            let pool = network.pools.iter().find(|pool| pool.is_v4() != v6);
            if pool.is_none() && network.leased.is_none() {
                continue;
            }
            let pod = pool.and_then(|pool| pool.subnet.hosts().nth(1));
            let pod = pod.map_or(Address::Other, Address::Pod);
            let from_pod = Packet {
                input: device.clone(),
                output: outside.clone(),
                source: pod.clone(),
                v6,
                ..Packet::default()
            };
            let to_pod = Packet {
                input: outside.clone(),
                output: device.clone(),
                destination: pod,
                v6,
                ..Packet::default()
            };
            let to_node = Packet { output: Device::Other, ..from_pod.clone() };
            let packet = |what, is_vital, packet, hooks| Probe {
                what,
                is_vital,
                packet,
                hooks,
                is_frame: false,
            };
            probes.extend([
                packet("what pods send to other machines", true, from_pod, FORWARDED),
                packet("what other machines send to pods first", false, to_pod, FORWARDED),
                packet("what pods send to this node", false, to_node, LOCAL),
            ]);
        }
        if network.driver == Driver::Bridge {
            let port = || Device::Named(ENDPOINT.to_owned());
            let frame = Packet { input: port(), output: port(), ..Packet::default() };
            probes.push(Probe {
                what: "what pods send over their bridge",
                is_vital: true,
                packet: frame,
                hooks: BRIDGED,
                is_frame: true,
            });
        }
    }
    probes
}
