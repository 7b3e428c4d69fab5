//! Sets and removes entries, some hundred in one send.

use std::collections::HashMap;

use super::{
    objects::{Objects, object_of},
    report::{OverlayReport, OverlaySubject},
    worker::Overlay,
};
use crate::{
    DataplaneError, Repair, RepairKind,
    error::{failed, refused},
    netlink::{Batch, Refusal, entry::OverlayEntry, overlay_entry},
};
use netd_domain::IfName;

/// Requests that go out at once. The answers to as many refusals fit into the socket.
const AT_ONCE: usize = 512;

/// What is done with entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryOp {
    /// Set, in place of the entry that has the same key.
    Set,
    /// Removed; a missing entry is fine.
    Remove,
}

impl Overlay {
    /// Sets or removes every entry; a refused one does not stop the others.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn apply(
        &mut self,
        op: EntryOp,
        entries: &[OverlayEntry],
        names: &HashMap<u32, IfName>,
        report: &mut OverlayReport,
    ) -> Result<(), DataplaneError> {
        for part in entries.chunks(AT_ONCE) {
            let mut batch = Batch::new();
            for entry in part {
                let (message, flags) = match op {
                    EntryOp::Set => {
                        (overlay_entry::set(entry), libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
                    }
                    EntryOp::Remove => (overlay_entry::remove(entry), 0),
                };
                batch.route(message, flags as u16);
            }
            batch.quieten();
            let results = self.kernel.socket.batch(batch);
            let results = results.map_err(failed("changing the overlay's routes"))?;
            for (entry, result) in part.iter().zip(results) {
                note(op, entry, result, names, report);
            }
        }
        Ok(())
    }
}

fn note(
    op: EntryOp,
    entry: &OverlayEntry,
    result: Result<(), Refusal>,
    names: &HashMap<u32, IfName>,
    report: &mut OverlayReport,
) {
    let text = || describe(op, entry, names);
    let Err(refusal) = result else {
        return report.repairs.push(Repair { kind: kind_of(entry), detail: text() });
    };
    if op == EntryOp::Remove && is_gone(&refusal) {
        return;
    }
    let object = object_of(entry, names).filter(|_| op == EntryOp::Set);
    let subject = object.map_or_else(|| OverlaySubject::Leftover(text()), OverlaySubject::Object);
    report.refused.push((subject, refused(text(), &refusal)));
}

fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal.errno, libc::ENOENT | libc::ESRCH | libc::ENODEV)
}

fn kind_of(entry: &OverlayEntry) -> RepairKind {
    match entry {
        OverlayEntry::Neighbour { .. } => RepairKind::Neighbour,
        OverlayEntry::Fdb { .. } => RepairKind::Fdb,
        OverlayEntry::Route(_) => RepairKind::Route,
    }
}

fn describe(op: EntryOp, entry: &OverlayEntry, names: &HashMap<u32, IfName>) -> String {
    let link = match entry {
        OverlayEntry::Neighbour { link, .. } | OverlayEntry::Fdb { link, .. } => Some(*link),
        OverlayEntry::Route(route) => route.hop.link(),
    };
    let op = if op == EntryOp::Set { "" } else { "remove the " };
    match link.and_then(|link| names.get(&link)) {
        Some(name) => format!("{name}: {op}{entry}"),
        None => format!("{op}{entry}"),
    }
}

/// Adds a wanted entry. If another one has the same key, the greater of the two is refused,
/// whichever came first.
pub(super) fn refuse_duplicate(
    wanted: &mut Objects,
    entry: &OverlayEntry,
    names: &HashMap<u32, IfName>,
    report: &mut OverlayReport,
) {
    let Some(before) = wanted.put(entry).filter(|before| before != entry) else { return };
    let (keep, lose) = if before <= *entry { (&before, entry) } else { (entry, &before) };
    wanted.put(keep);
    let Some(object) = object_of(lose, names) else { return };
    let errno = format!("another peer claims the same: {}", describe(EntryOp::Set, keep, names));
    let error = DataplaneError::Kernel { operation: describe(EntryOp::Set, lose, names), errno };
    report.refused.push((OverlaySubject::Object(object), error));
}
