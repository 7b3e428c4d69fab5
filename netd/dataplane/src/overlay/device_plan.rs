//! Plans the steps from an overlay device as it is to the wanted one. Pure.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::{
    DataplaneError, Repair, RepairKind,
    netlink::overlay_device::{HeldDevice, HeldVxlan, Setting, kind_name},
};
use netd_domain::{
    IfName,
    overlay::{DeviceKind, OverlayDevice, VxlanDevice},
};

/// The device that has the name, if any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ActualDevice {
    /// `None`: nothing.
    pub device: Option<HeldDevice>,
    /// Its addresses but link-local ones.
    pub addresses: Vec<IpNet>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeviceOp {
    /// Remove it: what differs can't be changed.
    Remove(&'static str),
    /// Make it, down.
    Create,
    /// Change a setting.
    Set(Setting),
    /// Add an address.
    Address(IpNet),
    /// Take an address off.
    RemoveAddress(IpNet),
}

impl DeviceOp {
    /// As it is reported.
    pub(super) fn repair(&self, name: &IfName) -> Repair {
        let kind = match self {
            Self::Address(_) | Self::RemoveAddress(_) => RepairKind::Address,
            _ => RepairKind::OverlayDevice,
        };
        Repair { kind, detail: format!("{name}: {self}") }
    }
}

/// The steps to take; none: the device is as wanted. Plan again after `Create`: the kernel
/// adds settings and addresses of its own.
///
/// # Errors
/// `InterfaceExists` when a device of another kind that netd did not make has the name.
pub(super) fn plan_device(
    wanted: &OverlayDevice,
    held: &ActualDevice,
    underlay: u32,
) -> Result<Vec<DeviceOp>, DataplaneError> {
    let Some(device) = &held.device else { return Ok(vec![DeviceOp::Create]) };
    if device.kind != kind_name(&wanted.kind) {
        if device.marked && wanted.kind != DeviceKind::Tun {
            return Ok(vec![DeviceOp::Remove("another kind"), DeviceOp::Create]);
        }
        return Err(DataplaneError::InterfaceExists {
            ifname: wanted.name.clone(),
            place: "the host",
        });
    }
    if let Some(why) = unchangeable(wanted, device, underlay) {
        return Ok(vec![DeviceOp::Remove(why), DeviceOp::Create]);
    }
    let mut ops: Vec<_> =
        settings(wanted, device, underlay).into_iter().map(DeviceOp::Set).collect();
    // Added first: without any address the kernel drops every route over the device.
    let missing = wanted.addresses.iter().filter(|net| !held.addresses.contains(net));
    ops.extend(missing.copied().map(DeviceOp::Address));
    let others = held.addresses.iter().filter(|net| !wanted.addresses.contains(net));
    ops.extend(others.copied().map(DeviceOp::RemoveAddress));
    Ok(ops)
}

/// What differs and can't be changed while the device exists.
fn unchangeable(wanted: &OverlayDevice, held: &HeldDevice, underlay: u32) -> Option<&'static str> {
    match (&wanted.kind, &held.vxlan, &held.ipip) {
        (DeviceKind::Vxlan(vxlan), Some(held), _) => fixed_vxlan(vxlan, held),
        (DeviceKind::Vxlan(_), None, _) => Some("no settings"),
        (DeviceKind::Ipip { local, .. }, _, Some(held)) => {
            // One that flannel made leaves the way out to the routes (0).
            let underlays = [0, underlay];
            let same = held.local == Some((*local).into()) && held.remote.is_none();
            let same = same && underlays.contains(&held.underlay);
            (!same).then_some("another source, remote or underlay")
        }
        (DeviceKind::Ipip { .. }, _, None) => Some("no settings"),
        _ => None,
    }
}

fn fixed_vxlan(wanted: &VxlanDevice, held: &HeldVxlan) -> Option<&'static str> {
    let family = |ip: Option<IpAddr>| ip.map(|ip| ip.is_ipv6());
    let checks = [
        (wanted.vni != held.vni, "another VNI"),
        (wanted.port != held.port, "another port"),
        (wanted.gbp != held.gbp, "another group policy setting"),
        (family(Some(wanted.local)) != family(held.local), "another outer family, or none"),
        (held.metadata, "its entries don't count (external)"),
    ];
    checks.into_iter().find(|(differs, _)| *differs).map(|(_, why)| why)
}

/// Transmit queue of a tunnel's device, packets. They wait there until the tunnel's process
/// gets to run, and the kernel drops the rest: its default of 500 is full within a few
/// milliseconds. At 64 KiB each this is 64 MiB a queue at most, which counts towards no
/// process's memory limit.
const TUN_QUEUE: u32 = 1000;

/// The transmit queue that a device of this kind needs, packets; `None`: the kernel's
/// default.
pub(super) fn queue(kind: &DeviceKind) -> Option<u32> {
    (*kind == DeviceKind::Tun).then_some(TUN_QUEUE)
}

fn settings(wanted: &OverlayDevice, held: &HeldDevice, underlay: u32) -> Vec<Setting> {
    let mut all = Vec::new();
    if !held.marked {
        all.push(Setting::Mark);
    }
    if !held.no_autoconf {
        all.push(Setting::NoAutoconf);
    }
    if let (DeviceKind::Vxlan(vxlan), Some(settings)) = (&wanted.kind, &held.vxlan) {
        if held.mac != Some(vxlan.mac.bytes()) {
            all.push(Setting::Mac(vxlan.mac.bytes()));
        }
        if settings.local != Some(vxlan.local) || settings.underlay != underlay {
            all.push(Setting::Source { local: vxlan.local, underlay });
        }
        if settings.learning != vxlan.learning {
            all.push(Setting::Learning(vxlan.learning));
        }
    }
    // After the underlay: that decides how large it may be.
    if held.mtu != wanted.mtu {
        all.push(Setting::Mtu(wanted.mtu));
    }
    if let Some(packets) = queue(&wanted.kind).filter(|packets| *packets != held.queue) {
        all.push(Setting::Queue(packets));
    }
    if !held.up {
        all.push(Setting::Up);
    }
    all
}

impl fmt::Display for DeviceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(why) => write!(f, "remove it to replace it: {why}"),
            Self::Create => f.write_str("make the device"),
            Self::Set(Setting::Up) => f.write_str("bring it up"),
            Self::Set(Setting::Mtu(mtu)) => write!(f, "set the MTU to {mtu}"),
            Self::Set(Setting::Queue(packets)) => write!(f, "let {packets} packets wait in it"),
            Self::Set(Setting::Mac(_)) => f.write_str("set the MAC"),
            Self::Set(Setting::Mark) => f.write_str("mark it as netd's"),
            Self::Set(Setting::NoAutoconf) => f.write_str("no IPv6 autoconfiguration"),
            Self::Set(Setting::Source { local, .. }) => write!(f, "send from {local}"),
            Self::Set(Setting::Learning(on)) => write!(f, "set learning to {on}"),
            Self::Set(Setting::PassIptables) => f.write_str("pass iptables"),
            Self::Address(net) => write!(f, "address {net}"),
            Self::RemoveAddress(net) => write!(f, "remove the address {net}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wanted() -> OverlayDevice {
        OverlayDevice {
            name: "flannel.1".parse().unwrap(),
            mtu: 1450,
            addresses: vec!["10.5.1.0/32".parse().unwrap()],
            kind: DeviceKind::Vxlan(VxlanDevice {
                vni: 1,
                port: 8472,
                mac: "02:00:00:00:00:01".parse().unwrap(),
                local: "192.0.2.1".parse().unwrap(),
                underlay: "eth0".parse().unwrap(),
                gbp: false,
                learning: false,
            }),
        }
    }

    fn held() -> ActualDevice {
        let vxlan = HeldVxlan {
            vni: 1,
            port: 8472,
            local: Some("192.0.2.1".parse().unwrap()),
            underlay: 7,
            ..HeldVxlan::default()
        };
        let device = HeldDevice {
            index: 9,
            name: "flannel.1".into(),
            kind: "vxlan".into(),
            up: true,
            mtu: 1450,
            queue: 1000,
            mac: Some([2, 0, 0, 0, 0, 1]),
            marked: true,
            no_autoconf: true,
            vxlan: Some(vxlan),
            ipip: None,
        };
        ActualDevice { device: Some(device), addresses: wanted().addresses }
    }

    fn after(change: impl FnOnce(&mut HeldDevice)) -> Vec<DeviceOp> {
        let mut held = held();
        change(held.device.as_mut().unwrap());
        plan_device(&wanted(), &held, 7).unwrap()
    }

    fn vxlan(device: &mut HeldDevice) -> &mut HeldVxlan {
        device.vxlan.as_mut().unwrap()
    }

    #[test]
    fn what_is_right_is_left_and_what_is_missing_is_made() {
        assert_eq!(after(|_| {}), []);
        assert_eq!(
            plan_device(&wanted(), &ActualDevice::default(), 7).unwrap(),
            [DeviceOp::Create]
        );
    }

    #[test]
    fn flannels_device_is_adopted_as_it_is() {
        let flannels = after(|d| (d.marked, d.no_autoconf) = (false, false));
        let expected = [Setting::Mark, Setting::NoAutoconf].map(DeviceOp::Set);
        assert_eq!(flannels, expected);
    }

    #[test]
    fn what_can_be_changed_in_place_is() {
        let set = |setting| vec![DeviceOp::Set(setting)];
        let local = "192.0.2.1".parse().unwrap();
        assert_eq!(after(|d| d.mac = None), set(Setting::Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!(after(|d| d.mtu = 1500), set(Setting::Mtu(1450)));
        assert_eq!(after(|d| d.up = false), set(Setting::Up));
        let source = set(Setting::Source { local, underlay: 7 });
        assert_eq!(after(|d| vxlan(d).underlay = 8), source);
        assert_eq!(after(|d| vxlan(d).local = Some("192.0.2.9".parse().unwrap())), source);
        assert_eq!(after(|d| vxlan(d).learning = true), set(Setting::Learning(false)));
    }

    #[test]
    fn only_a_tunnels_device_needs_a_queue() {
        let wanted = OverlayDevice { kind: DeviceKind::Tun, ..wanted() };
        let mut held = held();
        let device = held.device.as_mut().unwrap();
        (device.kind, device.vxlan, device.queue) = ("tun".into(), None, 500);
        let expected = [DeviceOp::Set(Setting::Queue(TUN_QUEUE))];
        assert_eq!(plan_device(&wanted, &held, 0).unwrap(), expected);
        held.device.as_mut().unwrap().queue = TUN_QUEUE;
        assert_eq!(plan_device(&wanted, &held, 0).unwrap(), []);
    }

    #[test]
    fn what_can_not_be_changed_is_replaced() {
        let replaced =
            |ops: Vec<DeviceOp>| matches!(ops[..], [DeviceOp::Remove(_), DeviceOp::Create]);
        assert!(replaced(after(|d| vxlan(d).vni = 2)));
        assert!(replaced(after(|d| vxlan(d).port = 4789)));
        assert!(replaced(after(|d| vxlan(d).gbp = true)));
        assert!(replaced(after(|d| vxlan(d).metadata = true)));
        assert!(replaced(after(|d| vxlan(d).local = Some("2001:db8::1".parse().unwrap()))));
        assert!(replaced(after(|d| d.kind = "ipip".into())), "ours by its mark");
    }

    #[test]
    fn a_device_of_another_kind_that_is_not_ours_is_left_alone() {
        let mut held = held();
        let device = held.device.as_mut().unwrap();
        (device.marked, device.kind) = (false, "bridge".into());
        let refused = plan_device(&wanted(), &held, 7).unwrap_err();
        assert!(matches!(refused, DataplaneError::InterfaceExists { .. }), "{refused}");
    }

    #[test]
    fn addresses_are_added_before_others_are_taken_off() {
        let mut held = held();
        held.addresses = vec!["10.5.9.0/32".parse().unwrap()];
        let expected = [
            DeviceOp::Address("10.5.1.0/32".parse().unwrap()),
            DeviceOp::RemoveAddress("10.5.9.0/32".parse().unwrap()),
        ];
        assert_eq!(plan_device(&wanted(), &held, 7).unwrap(), expected);
    }
}
