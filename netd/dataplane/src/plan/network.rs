//! From what a network's bridge has to be and what is there to the steps between.

use std::fmt;

use ipnet::IpNet;

use super::actual::ActualLink;
use crate::{DataplaneError, Repair, RepairKind};
use netd_domain::{BridgeWiring, IfName, NetworkWiring};

/// What is there of a network's bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActualNetwork {
    /// The device with the bridge's name.
    pub device: Option<ActualLink>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// A step on a bridge; each is one netlink request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkOp {
    /// Make the bridge, for now with another MTU: see [`provisional_mtu`].
    Create,
    /// Set MAC and MTU, no STP, up.
    Set,
    /// Remove a gateway that has the wrong prefix length.
    RemoveAddress(IpNet),
    /// Add a gateway.
    Address(IpNet),
}

/// A bridge's MTU follows its ports' until it is *changed* by hand: being made with the
/// right one does not count, nor does setting it to what it is.
pub const fn provisional_mtu(mtu: u32) -> u32 {
    const USUAL: u32 = 1500;
    if mtu == USUAL { USUAL - 1 } else { USUAL }
}

/// The steps from `actual` to the bridge of `desired`; none for a routed network.
///
/// # Errors
/// `InterfaceExists` when a device of the name is there that is no bridge.
pub fn plan_network(
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
        Some(device) if !fits(device, bridge, desired.mtu) => ops.push(NetworkOp::Set),
        Some(_) => {}
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

fn fits(device: &ActualLink, bridge: &BridgeWiring, mtu: u32) -> bool {
    device.up && device.mtu == mtu && device.mac == Some(bridge.mac) && !device.stp
}

impl NetworkOp {
    /// As it is reported.
    pub fn repair(&self, bridge: &IfName) -> Repair {
        let kind = match self {
            Self::Create | Self::Set => RepairKind::Link,
            Self::RemoveAddress(_) | Self::Address(_) => RepairKind::Address,
        };
        Repair { kind, detail: format!("{bridge}: {self}") }
    }
}

impl fmt::Display for NetworkOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("make the bridge"),
            Self::Set => f.write_str("set the bridge's MAC, MTU and state"),
            Self::RemoveAddress(net) => write!(f, "remove the wrong gateway address {net}"),
            Self::Address(net) => write!(f, "gateway address {net}"),
        }
    }
}
