//! Bridges, and the settings that networks need.

use std::{fs, path::Path};

use ipnet::IpNet;

use super::{
    plan::{ActualNetwork, NetworkOp, plan_network, provisional_mtu},
    underlay,
};
use crate::{
    DataplaneError, Repair,
    device_names::DOCKER0,
    endpoint::observed::ActualLink,
    error::{failed, refused},
    events::ExpectedBridge,
    exec::context::Context,
    netlink::{
        Batch, address,
        link::{self, LinkId},
        overlay_device::{Setting, change},
        query,
    },
    sysctl,
};
use netd_domain::{BridgeWiring, IfName, Mac, NetworkWiring, network::overlap};

/// Makes a network's bridge and settings right; what that took.
pub(crate) fn ensure(
    kernel: &mut Context,
    network: &NetworkWiring,
) -> Result<Vec<Repair>, DataplaneError> {
    let mut repairs = Vec::new();
    if let Some(bridge) = &network.bridge {
        let actual = observe_network(kernel, bridge)?;
        let bridge = &BridgeWiring { mac: adopt_mac(kernel, bridge, &actual)?, ..bridge.clone() };
        let network = &NetworkWiring { bridge: Some(bridge.clone()), ..network.clone() };
        // Without IPv6 on the bridge its gateway address would be refused.
        let index = actual.device.as_ref().map(|device| device.index);
        let (links, addresses): (Vec<_>, Vec<_>) =
            plan_network(network, &actual)?.into_iter().partition(NetworkOp::is_of_link);
        apply(kernel, network, bridge, 0, &links)?;
        let index = match index {
            Some(index) => index,
            None => index_of(kernel, bridge)?,
        };
        if kernel.shared.settings.bridges_pass_iptables {
            set(kernel, bridge, index, Setting::PassIptables, "passing iptables")?;
        }
        kernel.shared.bridges.lock().insert(bridge.name.clone(), index);
        let (name, mac) = (bridge.name.clone(), bridge.mac.bytes());
        let expected = ExpectedBridge { name, mac, mtu: network.mtu };
        kernel.shared.table.lock().expect_bridge(index, expected);
        repairs.extend(links.iter().map(|op| op.repair(&bridge.name)));
        repairs.extend(sysctl::ensure(&sysctl::of_network(network))?);
        apply(kernel, network, bridge, index, &addresses)?;
        repairs.extend(addresses.iter().map(|op| op.repair(&bridge.name)));
    } else {
        repairs.extend(sysctl::ensure(&sysctl::of_network(network))?);
    }
    repairs.extend(ensure_underlay_forwards(kernel, network)?);
    Ok(repairs)
}

/// The MAC that the bridge is to have. One that another program made keeps its own, to which its
/// pods send; it is fixed, since a bridge's MAC otherwise changes when its ports do. That is
/// done once: each time the kernel forgets the neighbours on the bridge.
fn adopt_mac(
    kernel: &mut Context,
    bridge: &BridgeWiring,
    actual: &ActualNetwork,
) -> Result<Mac, DataplaneError> {
    if let Some(mac) = kernel.shared.bridge_macs.lock().get(&bridge.name) {
        return Ok(*mac);
    }
    let held = actual.device.as_ref().filter(|device| device.kind == "bridge");
    let mac = held.and_then(|device| device.mac).unwrap_or(bridge.mac);
    let follows_ports =
        |device: &&ActualLink| mac != bridge.mac && !has_fixed_mac(&bridge.name, device);
    if let Some(device) = held.filter(follows_ports) {
        let what = format!("keeping its MAC {mac}");
        set(kernel, bridge, device.index, Setting::Mac(mac.bytes()), &what)?;
    }
    kernel.shared.bridge_macs.lock().insert(bridge.name.clone(), mac);
    Ok(mac)
}

/// Whether a device's MAC was set by somebody and so stays, as far as sysfs tells. It shows the
/// devices of the namespace in which it was mounted: netd's, unless somebody arranged it otherwise.
fn has_fixed_mac(name: &IfName, device: &ActualLink) -> bool {
    /// The kernel's `NET_ADDR_SET`.
    const SET: &str = "3";
    let directory = Path::new("/sys/class/net").join(name.as_str());
    let read = |file| fs::read_to_string(directory.join(file)).unwrap_or_default();
    read("ifindex").trim() == device.index.to_string()
        && read("address").trim().parse().ok() == device.mac
        && read("addr_assign_type").trim() == SET
}

fn set(
    kernel: &mut Context,
    bridge: &BridgeWiring,
    index: u32,
    setting: Setting,
    what: &str,
) -> Result<(), DataplaneError> {
    let what = format!("{}: {what}", bridge.name);
    let message = change(index, setting);
    let result = kernel.one(|batch| batch.route(message, 0)).map_err(failed(&what))?;
    result.map_err(|refusal| refused(&what, &refusal))
}

/// The answers to what pods send come in by the device that leads out.
fn ensure_underlay_forwards(
    kernel: &mut Context,
    network: &NetworkWiring,
) -> Result<Vec<Repair>, DataplaneError> {
    if network.internal || !network.ranges().any(|net| net.addr().is_ipv4()) {
        return Ok(Vec::new());
    }
    let configured = kernel.shared.settings.underlay.clone();
    let shared = kernel.shared.clone();
    let found = underlay::find(&mut kernel.socket, configured.as_ref(), &shared)
        .map_err(failed("looking for the underlay's device"))?;
    let Some(name) = found.and_then(|link| link.name.parse().ok()) else { return Ok(Vec::new()) };
    sysctl::ensure(&sysctl::of_forwarding_link(&name))
}

fn observe_network(
    kernel: &mut Context,
    bridge: &BridgeWiring,
) -> Result<ActualNetwork, DataplaneError> {
    let what = || failed(format!("{}: reading the bridge", bridge.name));
    let socket = &mut kernel.socket;
    let device = query::link(socket, LinkId::Name(bridge.name.as_str())).map_err(what())?;
    let addresses = match &device {
        Some(device) => query::addresses(socket, device.index).map_err(what())?,
        None => Vec::new(),
    };
    Ok(ActualNetwork { device, addresses })
}

fn index_of(kernel: &mut Context, bridge: &BridgeWiring) -> Result<u32, DataplaneError> {
    let operation = format!("{}: making the bridge", bridge.name);
    let gone = || DataplaneError::Kernel {
        operation: operation.clone(),
        errno: "it was gone at once".into(),
    };
    let actual = observe_network(kernel, bridge)?;
    actual.device.map(|device| device.index).ok_or_else(gone)
}

fn apply(
    kernel: &mut Context,
    network: &NetworkWiring,
    bridge: &BridgeWiring,
    index: u32,
    ops: &[NetworkOp],
) -> Result<(), DataplaneError> {
    let mut batch = Batch::new();
    for op in ops {
        match op {
            NetworkOp::Create => {
                let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
                batch.route(link::bridge(bridge, provisional_mtu(network.mtu)), flags);
            }
            NetworkOp::Set => batch.route(link::bridge_settings(bridge, network.mtu), 0),
            NetworkOp::SetMac => batch.route(link::bridge_mac(bridge), 0),
            NetworkOp::RemoveAddress(net) => batch.route(address::remove(index, *net), 0),
            NetworkOp::Address(net) => {
                let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
                batch.route(address::add(index, *net), flags);
            }
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    let results =
        kernel.socket.batch(batch).map_err(failed(format!("{}: sending", bridge.name)))?;
    for (op, result) in ops.iter().zip(results) {
        match (op, result) {
            (_, Ok(())) => {}
            (NetworkOp::RemoveAddress(_), Err(r)) if r.errno == libc::EADDRNOTAVAIL => {}
            (op, Err(r)) => return Err(refused(format!("{}: {op}", bridge.name), &r)),
        }
    }
    Ok(())
}

/// Takes gateways of pools that are gone off a bridge.
pub(crate) fn remove_addresses(
    kernel: &mut Context,
    network: &NetworkWiring,
    gone: &[IpNet],
) -> Result<(), DataplaneError> {
    let Some(bridge) = &network.bridge else { return Ok(()) };
    let held = observe_network(kernel, bridge)?;
    let Some(device) = &held.device else { return Ok(()) };
    let there = gone.iter().filter(|net| held.addresses.contains(net));
    let ops: Vec<_> = there.copied().map(NetworkOp::RemoveAddress).collect();
    apply(kernel, network, bridge, device.index, &ops)
}

/// A device of the bridge's name that netd did not make: the bridges that it makes have a MAC
/// that is made from their name.
pub(crate) fn in_the_way(
    kernel: &mut Context,
    network: &NetworkWiring,
) -> Result<Option<String>, DataplaneError> {
    let Some(bridge) = &network.bridge else { return Ok(None) };
    let device = observe_network(kernel, bridge)?.device;
    let foreign = device.filter(|d| d.kind != "bridge" || d.mac != Some(bridge.mac));
    Ok(foreign.map(|d| match d.kind.as_str() {
        "" => "a device".to_owned(),
        kind => format!("a device of kind {kind}"),
    }))
}

/// An address of [`DOCKER0`] in one of the network's subnets: the subnet has an owner.
pub(crate) fn owned_by_docker(
    kernel: &mut Context,
    network: &NetworkWiring,
) -> Result<Option<IpNet>, DataplaneError> {
    let what = || failed(format!("{DOCKER0}: reading its addresses"));
    let socket = &mut kernel.socket;
    let Some(link) = query::link(socket, LinkId::Name(DOCKER0)).map_err(what())? else {
        return Ok(None);
    };
    let own = network.bridge.as_ref().is_some_and(|b| b.name.as_str() == DOCKER0);
    let addresses = query::addresses(socket, link.index).map_err(what())?;
    let taken = |net: &IpNet| network.subnets.iter().any(|subnet| overlap(subnet, net));
    Ok(addresses.into_iter().find(taken).filter(|_| !own))
}

/// Removes a network's bridge. A missing one is fine; a device of the name that netd neither
/// made nor adopted is left alone.
pub(crate) fn remove(kernel: &mut Context, network: &NetworkWiring) -> Result<(), DataplaneError> {
    let Some(bridge) = &network.bridge else { return Ok(()) };
    kernel.shared.bridges.lock().remove(&bridge.name);
    kernel.shared.table.lock().forget_bridge(&bridge.name);
    let known = kernel.shared.bridge_macs.lock().remove(&bridge.name);
    let mac = Some(known.unwrap_or(bridge.mac));
    let actual = observe_network(kernel, bridge)?;
    let Some(device) = actual.device.filter(|d| d.kind == "bridge" && d.mac == mac) else {
        return Ok(());
    };
    let what = format!("{}: removing the bridge", bridge.name);
    let result = kernel.one(|batch| batch.route(link::delete(LinkId::Index(device.index)), 0));
    match result.map_err(failed(&what))? {
        Err(refusal) if refusal.errno != libc::ENODEV => Err(refused(what, &refusal)),
        _ => Ok(()),
    }
}
