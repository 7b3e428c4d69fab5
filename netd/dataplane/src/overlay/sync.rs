//! Full sync: dump, diff, apply.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use netlink_packet_route::link::InfoKind;

use super::{
    device_apply::is_unknown_kind,
    device_plan::queue,
    dump,
    entry_apply::{EntryOp, refuse_duplicate},
    objects::{Objects, device_of, diff, resolve},
    report::{OverlayReport, OverlaySubject},
    worker::Overlay,
};
use crate::{
    DataplaneError,
    error::failed,
    events::{Expectation, ExpectedDevice},
    netlink::{
        Batch,
        entry::OverlayEntry,
        link::LinkId,
        overlay_device::{HeldDevice, probe},
    },
};
use netd_domain::{
    IfName,
    overlay::{DeviceKind, OverlayChange, OverlayObject, OverlayState},
};

impl Overlay {
    /// See [`crate::Dataplane::sync_overlay`].
    pub(super) fn sync(&mut self, wanted: &OverlayState) -> Result<OverlayReport, DataplaneError> {
        let strays = if wanted.partial { vec![] } else { self.strays(wanted)? };
        let mut report = self.sync_once(wanted)?;
        // Last: what led over them leads elsewhere by now.
        for device in &strays {
            self.remove_device(device, &mut report);
        }
        let is_device = |subject: &OverlaySubject| matches!(subject, OverlaySubject::Device(_));
        if !strays.is_empty() && report.refused.iter().any(|(subject, _)| is_device(subject)) {
            // One of them may have been in the way of a new one.
            let again = self.sync_once(wanted)?;
            report.repairs.extend(again.repairs);
            report.refused = again.refused;
        }
        Ok(report)
    }

    fn sync_once(&mut self, wanted: &OverlayState) -> Result<OverlayReport, DataplaneError> {
        let mut report = OverlayReport::default();
        let devices: Vec<HeldDevice> =
            wanted.devices.iter().filter_map(|d| self.ensure_device(d, &mut report)).collect();
        let mut links = Links::default();
        for device in &devices {
            if let Ok(name) = device.name.parse() {
                links.add(name, device.index);
            }
        }
        self.sync_wireguard(wanted, &mut report);
        self.find_links(&mut links, wanted.objects.iter())?;
        let objects = wanted_objects(&wanted.objects, &links, &mut report);
        // Before it is read: what changes from here on is heard.
        let expected = expected(wanted, &devices, &objects);
        let before = self.kernel.shared.table.lock().overlay.expect(expected);
        // Not under the lock, which attaches need: it may be large.
        drop(before);
        let reading = failed("reading the overlay's routes");
        let (held, foreign) = dump::objects(&mut self.kernel.socket, &devices).map_err(reading)?;
        let overlay: Vec<u32> = devices.iter().map(|device| device.index).collect();
        let plan = diff(&objects, &held, &foreign, &overlay);
        self.apply(EntryOp::Set, &plan.set, &links.names, &mut report)?;
        self.clear_own_subnets(&wanted.own, &overlay, &mut report)?;
        if !wanted.partial {
            self.apply(EntryOp::Remove, &plan.remove, &links.names, &mut report)?;
        }
        Ok(report)
    }

    /// See [`crate::Dataplane::change_overlay`].
    pub(super) fn change(
        &mut self,
        change: &OverlayChange,
    ) -> Result<OverlayReport, DataplaneError> {
        let mut report = OverlayReport::default();
        let mut links = Links::default();
        self.find_links(&mut links, change.add.iter().chain(&change.remove))?;
        let mut added = Objects::default();
        let add = entries(&change.add, &links, |entry| {
            refuse_duplicate(&mut added, entry, &links.names, &mut report)
        });
        for (object, device) in add {
            report.refused.push(no_device(object, device));
        }
        let plan = diff(&added, &Objects::default(), &[], &[]);
        let mut remove = Vec::new();
        // On a device that is gone they are gone too.
        let _ = entries(&change.remove, &links, |entry| remove.push(entry.clone()));
        {
            let table = &mut self.kernel.shared.table.lock().overlay;
            // What a key has by now is not what was to be removed.
            remove.retain(|entry| !table.objects().holds_another(entry));
            remove.retain(|entry| !added.holds_another(entry));
            table.change(&plan.set, &remove);
        }
        // Before the routes: over a device without the peer they would lead nowhere.
        self.change_wireguard(change, &mut report)?;
        self.apply(EntryOp::Set, &plan.set, &links.names, &mut report)?;
        self.apply(EntryOp::Remove, &remove, &links.names, &mut report)?;
        Ok(report)
    }

    /// netd's devices that the overlay does not need any longer.
    fn strays(&mut self, wanted: &OverlayState) -> Result<Vec<HeldDevice>, DataplaneError> {
        let kinds = self.kinds()?;
        let names: HashSet<&str> = wanted.devices.iter().map(|d| d.name.as_str()).collect();
        let mut found = dump::marked(&mut self.kernel.socket, &kinds)
            .map_err(failed("looking for the overlay's devices"))?;
        found.retain(|device| !names.contains(device.name.as_str()));
        Ok(found)
    }

    /// Kinds of devices that the kernel can make, or hold for a tunnel process.
    pub(super) fn kinds(&mut self) -> Result<Vec<InfoKind>, DataplaneError> {
        if let Some(kinds) = &self.kinds {
            return Ok(kinds.clone());
        }
        let mut kinds = Vec::new();
        for kind in [InfoKind::Vxlan, InfoKind::IpIp, InfoKind::Tun] {
            // Asking loads the module, and this one's makes a tunl0 in every namespace, pods'
            // too. Before it is loaded there is no device of its kind.
            if kind == InfoKind::IpIp && !Path::new("/sys/module/ipip").exists() {
                continue;
            }
            let mut batch = Batch::new();
            batch.route(probe(kind.clone()), libc::NLM_F_CREATE as u16);
            let what = || failed(format!("asking whether the kernel knows {kind}"));
            let answer = self.kernel.socket.batch(batch).map_err(what())?.pop();
            if !matches!(answer, Some(Err(refusal)) if is_unknown_kind(&refusal)) {
                kinds.push(kind);
            }
        }
        if self.wireguard()?.is_some() {
            kinds.push(InfoKind::Wireguard);
        }
        self.kinds = Some(kinds.clone());
        Ok(kinds)
    }

    /// Looks up the devices that objects name and that are not known yet.
    fn find_links<'a>(
        &mut self,
        links: &mut Links,
        objects: impl Iterator<Item = &'a OverlayObject>,
    ) -> Result<(), DataplaneError> {
        let mut asked = HashSet::new();
        for name in objects.filter_map(device_of) {
            if links.indexes.contains_key(name) || !asked.insert(name) {
                continue;
            }
            let found = dump::link(&mut self.kernel.socket, LinkId::Name(name.as_str()))
                .map_err(failed(format!("looking for {name}")))?;
            if let Some(link) = found {
                links.add(name.clone(), link.index);
            }
        }
        Ok(())
    }
}

/// Names and indexes of links.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub indexes: HashMap<IfName, u32>,
    pub names: HashMap<u32, IfName>,
}

impl Links {
    fn add(&mut self, name: IfName, index: u32) {
        self.indexes.insert(name.clone(), index);
        self.names.insert(index, name);
    }
}

fn wanted_objects(
    wanted: &HashSet<OverlayObject>,
    links: &Links,
    report: &mut OverlayReport,
) -> Objects {
    let mut objects = Objects::default();
    let missing =
        entries(wanted, links, |entry| refuse_duplicate(&mut objects, entry, &links.names, report));
    for (object, device) in missing {
        report.refused.push(no_device(object, device));
    }
    objects
}

/// Hands over each object by index; those whose device is not there.
fn entries<'a>(
    objects: impl IntoIterator<Item = &'a OverlayObject>,
    links: &Links,
    mut each: impl FnMut(&OverlayEntry),
) -> Vec<(&'a OverlayObject, &'a IfName)> {
    let mut missing = Vec::new();
    for object in objects {
        match resolve(object, &links.indexes) {
            Ok(entry) => each(&entry),
            Err(device) => missing.push((object, device)),
        }
    }
    missing
}

fn no_device(object: &OverlayObject, device: &IfName) -> (OverlaySubject, DataplaneError) {
    let subject = OverlaySubject::Object(object.clone());
    let operation = subject.to_string();
    (subject, DataplaneError::Kernel { operation, errno: format!("there is no device {device}") })
}

fn expected(wanted: &OverlayState, held: &[HeldDevice], objects: &Objects) -> Expectation {
    let (objects, own) = (objects.clone(), wanted.own.clone());
    let mut expected = Expectation { objects, own, ..Expectation::default() };
    for device in &wanted.devices {
        let Some(held) = held.iter().find(|held| held.name == device.name.as_str()) else {
            expected.missing.insert(device.name.to_string());
            continue;
        };
        let mac = match &device.kind {
            DeviceKind::Vxlan(vxlan) => Some(vxlan.mac.bytes()),
            _ => None,
        };
        let (name, mtu) = (device.name.clone(), device.mtu);
        let (queue, addresses) = (queue(&device.kind), device.addresses.clone());
        let device = ExpectedDevice { name, mtu, queue, mac, addresses };
        expected.devices.insert(held.index, device);
    }
    expected
}
