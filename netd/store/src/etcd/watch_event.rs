//! Reads a watch's messages.

use etcd_client::{Event as Told, ResponseHeader, WatchResponse};

use super::kv;
use crate::{Event, Revision};

/// One message.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// The watch has begun.
    Created,
    /// Nothing that is later than this revision was left out.
    Progress(Revision),
    /// Changes with their revisions, in order, and the last revision. Always whole
    /// revisions: etcd cuts them into pieces for those only who ask for it.
    Events { events: Vec<(Revision, Event)>, revision: Revision },
    /// The revisions asked for are gone.
    Compacted,
    /// It can't be watched, or no longer.
    Refused(String),
}

/// Reads one message.
pub(super) fn read(message: &WatchResponse) -> WatchEvent {
    if message.canceled() {
        return match message.compact_revision() > 0 {
            true => WatchEvent::Compacted,
            false => WatchEvent::Refused(message.cancel_reason().to_owned()),
        };
    }
    let events: Vec<_> = message.events().iter().filter_map(event).collect();
    match events.last() {
        Some((revision, _)) => WatchEvent::Events { revision: *revision, events },
        None if message.created() => WatchEvent::Created,
        None => WatchEvent::Progress(message.header().map_or(0, ResponseHeader::revision)),
    }
}

/// An event without a key says nothing.
fn event(told: &Told) -> Option<(Revision, Event)> {
    let kv = told.kv()?;
    let revision = kv.mod_revision();
    // A key that was removed has no creation. (The client's own reading of the type
    // panics on one that it doesn't know.)
    let event = match kv.create_revision() {
        0 => Event::Delete { key: kv::text(kv.key()), revision },
        _ => Event::Put(kv::entry(kv.clone())),
    };
    Some((revision, event))
}
