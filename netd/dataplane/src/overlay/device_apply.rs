//! Carries out the plan for the overlay's devices.

use super::{
    device_plan::{DeviceOp, plan_device},
    dump,
    report::{OverlayReport, OverlaySubject},
    worker::Overlay,
};
use crate::{
    DataplaneError, Repair, RepairKind,
    error::{failed, refused},
    netlink::{
        Batch, Refusal, address,
        link::{self, LinkId},
        overlay_device::{self as message, HeldDevice, Setting, kind_name},
    },
    sysctl,
};
use netd_domain::{
    IfName,
    overlay::{DeviceKind, OverlayDevice},
};

/// The kernel adds to what a new device was asked for, and taking an address off may
/// take others with it: after a change look again, so often.
const ROUNDS: usize = 4;

impl Overlay {
    /// Makes a device right; what it is then, if it is there at all. What the kernel
    /// refuses is reported and holds up nothing else.
    pub(super) fn ensure_device(
        &mut self,
        wanted: &OverlayDevice,
        report: &mut OverlayReport,
    ) -> Option<HeldDevice> {
        for _ in 0..ROUNDS {
            match self.ensure_once(wanted, report) {
                Ok(Ensured::Right(device)) => return Some(device),
                Ok(Ensured::Changed) => {}
                Ok(Ensured::Refused) => break,
                Err(e) => {
                    report.refused.push((OverlaySubject::Device(wanted.name.clone()), e));
                    break;
                }
            }
        }
        let there = dump::link(&mut self.kernel.socket, LinkId::Name(wanted.name.as_str()));
        there.ok().flatten().filter(|device| device.kind == kind_name(&wanted.kind))
    }

    fn ensure_once(
        &mut self,
        wanted: &OverlayDevice,
        report: &mut OverlayReport,
    ) -> Result<Ensured, DataplaneError> {
        let name = &wanted.name;
        let reading = || failed(format!("{name}: reading the device"));
        let underlay = self.underlay_index(wanted)?;
        let socket = &mut self.kernel.socket;
        let held = dump::device(socket, name.as_str()).map_err(reading())?;
        let ops = plan_device(wanted, &held, underlay)?;
        let mut outcome = Ensured::Changed;
        let sysctls = match &held.device {
            Some(_) => self.ensure_settings(wanted, report),
            None => Ok(false),
        };
        match (sysctls, &held.device) {
            (Ok(false), Some(device)) if ops.is_empty() => {
                return Ok(Ensured::Right(device.clone()));
            }
            (Ok(_), _) => {}
            (Err(e), _) => {
                report.refused.push((OverlaySubject::Device(name.clone()), e));
                outcome = Ensured::Refused;
            }
        }
        // Entries go with their device, and with its MAC: that is no drift.
        let seen = self.kernel.shared.table.lock().overlay.expect_nothing();
        drop(seen);
        for op in &ops {
            match self.apply_device(wanted, op, underlay) {
                Ok(()) => report.repairs.push(op.repair(name)),
                Err(e) => {
                    report.refused.push((OverlaySubject::Device(name.clone()), e));
                    outcome = Ensured::Refused;
                }
            }
        }
        Ok(outcome)
    }

    /// Whether something had to be set.
    fn ensure_settings(
        &mut self,
        wanted: &OverlayDevice,
        report: &mut OverlayReport,
    ) -> Result<bool, DataplaneError> {
        let has = |v6| wanted.addresses.iter().any(|net| net.addr().is_ipv6() == v6);
        let settings = sysctl::of_overlay_device(&wanted.name, has(false), has(true));
        let set = sysctl::ensure(&settings)?;
        let changed = !set.is_empty();
        report.repairs.extend(set);
        Ok(changed)
    }

    /// 0: it has none.
    fn underlay_index(&mut self, device: &OverlayDevice) -> Result<u32, DataplaneError> {
        let underlay = match &device.kind {
            DeviceKind::Vxlan(vxlan) => &vxlan.underlay,
            DeviceKind::Ipip { underlay, .. } => underlay,
            DeviceKind::Wireguard { .. } | DeviceKind::Tun => return Ok(0),
        };
        let operation = || format!("{}: looking for {underlay}, which it sends by", device.name);
        let found = dump::link(&mut self.kernel.socket, LinkId::Name(underlay.as_str()))
            .map_err(failed(operation()))?;
        found.map(|link| link.index).ok_or_else(|| DataplaneError::Kernel {
            operation: operation(),
            errno: "there is no such device".into(),
        })
    }

    fn apply_device(
        &mut self,
        wanted: &OverlayDevice,
        op: &DeviceOp,
        underlay: u32,
    ) -> Result<(), DataplaneError> {
        let name = wanted.name.as_str();
        let what = || format!("{name}: {op}");
        let index = match op {
            DeviceOp::Create => 0,
            _ => match dump::link(&mut self.kernel.socket, LinkId::Name(name))
                .map_err(failed(what()))?
            {
                Some(device) => device.index,
                None => return Ok(()),
            },
        };
        if *op == DeviceOp::Create {
            // It may load a module.
            self.kinds = None;
        }
        let mut batch = Batch::new();
        match op {
            DeviceOp::Remove(_) => batch.route(link::delete(LinkId::Index(index)), 0),
            DeviceOp::Create => {
                let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
                let message = message::create(wanted, underlay).ok_or_else(|| missing(wanted))?;
                batch.route(message, flags);
            }
            DeviceOp::Set(setting) => batch.route(message::change(index, *setting), 0),
            DeviceOp::Address(net) => {
                let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
                batch.route(address::add(index, *net), flags);
            }
            DeviceOp::RemoveAddress(net) => batch.route(address::remove(index, *net), 0),
        }
        let result = self.kernel.socket.batch(batch).map_err(failed(what()))?.pop();
        match (op, result) {
            (_, None | Some(Ok(()))) => Ok(()),
            (DeviceOp::RemoveAddress(_), Some(Err(r))) if r.errno == libc::EADDRNOTAVAIL => Ok(()),
            (DeviceOp::Create, Some(Err(r))) if is_unknown_kind(&r) => {
                Err(unsupported(&wanted.kind))
            }
            (DeviceOp::Set(Setting::Mtu(mtu)), Some(Err(r))) if r.errno == libc::EINVAL => {
                let hint = format!("{r}; {mtu} bytes and the outer headers don't fit its underlay");
                Err(DataplaneError::Kernel { operation: what(), errno: hint })
            }
            (_, Some(Err(r))) => Err(self.refused_device(wanted, what(), &r)),
        }
    }

    /// A refusal, with the holder of the port if it is about that.
    pub(super) fn refused_device(
        &mut self,
        wanted: &OverlayDevice,
        operation: String,
        refusal: &Refusal,
    ) -> DataplaneError {
        match self.explain(wanted, refusal) {
            Some(errno) => DataplaneError::Kernel { operation, errno },
            None => refused(operation, refusal),
        }
    }

    /// Removes one of netd's devices that the overlay does not need any longer.
    pub(super) fn remove_device(&mut self, device: &HeldDevice, report: &mut OverlayReport) {
        let what = format!("{}: remove the device: nothing wants it any more", device.name);
        let result = self.kernel.one(|b| b.route(link::delete(LinkId::Index(device.index)), 0));
        let error = match result {
            Ok(Ok(())) => {
                let kind = RepairKind::OverlayDevice;
                return report.repairs.push(Repair { kind, detail: what });
            }
            Ok(Err(r)) if r.errno == libc::ENODEV => return,
            Ok(Err(r)) => refused(&what, &r),
            Err(e) => failed(&what)(e),
        };
        let subject = device.name.parse::<IfName>().map(OverlaySubject::Device);
        let subject = subject.unwrap_or(OverlaySubject::Leftover(what));
        report.refused.push((subject, error));
    }
}

enum Ensured {
    Right(HeldDevice),
    Changed,
    Refused,
}

/// The kernel knows no such kind of device.
pub(super) fn is_unknown_kind(refusal: &Refusal) -> bool {
    refusal.errno == libc::EOPNOTSUPP
        && (refusal.text.is_empty() || refusal.text.contains("Unknown device type"))
}

fn missing(wanted: &OverlayDevice) -> DataplaneError {
    DataplaneError::Kernel {
        operation: format!("{}: looking for the tunnel's device", wanted.name),
        errno: "it is not there: the tunnel process makes it; see that process's log".into(),
    }
}

fn unsupported(kind: &DeviceKind) -> DataplaneError {
    let hint = match kind {
        DeviceKind::Wireguard { .. } => "netd's tunnel process does WireGuard without it",
        _ => "load the kernel module, or choose another backend for the cluster",
    };
    let kind = kind_name(kind);
    DataplaneError::Unsupported {
        what: format!("devices of kind {kind} (kernel module {kind})"),
        hint: hint.into(),
    }
}
