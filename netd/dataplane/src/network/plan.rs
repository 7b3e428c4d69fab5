//! Compares a network's bridge with the kernel's state, and names the steps between them. Pure.

use std::fmt;

use ipnet::IpNet;

use crate::{DataplaneError, Repair, RepairKind, endpoint::observed::ActualLink};
use netd_domain::{IfName, NetworkWiring};

/// The kernel's state of a network's bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActualNetwork {
    /// The device with the bridge's name.
    pub device: Option<ActualLink>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// A step on a bridge; each is one netlink request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkOp {
    /// Make the bridge, for now with another MTU: see [`provisional_mtu`].
    Create,
    /// Set MTU, no STP, up.
    Set,
    /// Set the MAC, only where it differs: the kernel then forgets the neighbours on the bridge
    /// and the packets that wait for one, even when the MAC was the same.
    SetMac,
    /// Remove a gateway that has the wrong prefix length.
    RemoveAddress(IpNet),
    /// Add a gateway.
    Address(IpNet),
}

/// The MTU with which a bridge is made. The kernel lets a bridge's MTU follow its ports' until
/// a request changes it: to make it with the right one does not count, nor does to set the
/// value that it has.
pub(crate) const fn provisional_mtu(mtu: u32) -> u32 {
    const USUAL: u32 = 1500;
    if mtu == USUAL { USUAL - 1 } else { USUAL }
}

/// The steps from `actual` to the bridge of `desired`; none for a routed network.
///
/// # Errors
/// `InterfaceExists` when a device of the name is there that is no bridge.
pub(crate) fn plan_network(
    desired: &NetworkWiring,
    actual: &ActualNetwork,
) -> Result<Vec<NetworkOp>, DataplaneError> {
    let Some(bridge) = &desired.bridge else { return Ok(Vec::new()) };
    let mut ops = Vec::new();
    match &actual.device {
        None => ops.extend([NetworkOp::Create, NetworkOp::Set]),
        Some(device) if device.kind != "bridge" => {
            let ifname = bridge.name.clone();
            return Err(DataplaneError::InterfaceExists { ifname, place: "the host" });
        }
        Some(device) => {
            if device.mac != Some(bridge.mac) {
                ops.push(NetworkOp::SetMac);
            }
            if !device.up || device.mtu != desired.mtu || device.stp {
                ops.push(NetworkOp::Set);
            }
        }
    }
    for gateway in &bridge.addresses {
        let wrong = |net: &&IpNet| net.addr() == gateway.addr() && *net != gateway;
        if let Some(net) = actual.addresses.iter().find(wrong) {
            ops.push(NetworkOp::RemoveAddress(*net));
        }
        if !actual.addresses.contains(gateway) {
            ops.push(NetworkOp::Address(*gateway));
        }
    }
    Ok(ops)
}

impl NetworkOp {
    /// Whether it is a step on the bridge itself.
    pub(crate) const fn is_of_link(&self) -> bool {
        matches!(self, Self::Create | Self::Set | Self::SetMac)
    }

    /// As it is reported.
    pub(crate) fn repair(&self, bridge: &IfName) -> Repair {
        let kind = if self.is_of_link() { RepairKind::Link } else { RepairKind::Address };
        Repair { kind, detail: format!("{bridge}: {self}") }
    }
}

impl fmt::Display for NetworkOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("make the bridge"),
            Self::Set => f.write_str("set the bridge's MTU and state"),
            Self::SetMac => f.write_str("set the bridge's MAC"),
            Self::RemoveAddress(net) => write!(f, "remove the wrong gateway address {net}"),
            Self::Address(net) => write!(f, "gateway address {net}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use netd_domain::{BridgeWiring, Mac};

    fn network() -> NetworkWiring {
        NetworkWiring {
            name: "default".parse().unwrap(),
            bridge: Some(BridgeWiring {
                name: "cni0".parse().unwrap(),
                mac: Mac::derived(b"bridge"),
                addresses: vec!["10.88.0.1/16".parse().unwrap()],
            }),
            mtu: 1450,
            subnets: vec!["10.88.0.0/16".parse().unwrap()],
            cluster: vec![],
            docker0: vec![],
            masquerade: true,
            internal: false,
            published_only: false,
        }
    }

    #[test]
    fn a_bridge_is_made_adopted_or_repaired() {
        let network = network();
        let gateway = "10.88.0.1/16".parse().unwrap();
        let made = plan_network(&network, &ActualNetwork::default()).unwrap();
        assert_eq!(made, [NetworkOp::Create, NetworkOp::Set, NetworkOp::Address(gateway)]);
        let device = ActualLink {
            kind: "bridge".into(),
            up: true,
            mtu: 1450,
            mac: Some(Mac::derived(b"bridge")),
            ..ActualLink::default()
        };
        let right = ActualNetwork { device: Some(device), addresses: vec![gateway] };
        assert_eq!(plan_network(&network, &right).unwrap(), []);
        let mut stp = right.clone();
        stp.device.as_mut().unwrap().stp = true;
        assert_eq!(plan_network(&network, &stp).unwrap(), [NetworkOp::Set]);
        let mut renumbered = right.clone();
        renumbered.device.as_mut().unwrap().mac = Some(Mac::derived(b"another"));
        assert_eq!(plan_network(&network, &renumbered).unwrap(), [NetworkOp::SetMac]);
        let mut other = right.clone();
        other.device.as_mut().unwrap().kind = "vlan".into();
        assert!(plan_network(&network, &other).is_err());
        let wrong = "10.88.0.1/24".parse().unwrap();
        let narrow = ActualNetwork { addresses: vec![wrong], ..right };
        let ops = plan_network(&network, &narrow).unwrap();
        assert_eq!(ops, [NetworkOp::RemoveAddress(wrong), NetworkOp::Address(gateway)]);
    }

    #[test]
    fn a_routed_network_needs_no_bridge() {
        let routed = NetworkWiring { bridge: None, ..network() };
        assert_eq!(plan_network(&routed, &ActualNetwork::default()).unwrap(), []);
    }

    #[test]
    fn the_provisional_mtu_is_never_the_right_one() {
        for mtu in [576, 1280, 1450, 1499, 1500, 9000] {
            assert_ne!(provisional_mtu(mtu), mtu);
        }
    }
}
