//! What the checks have in common.

use std::{sync::Arc, time::Duration};

use crate::{Change, Compare, Event, Revision, Store, Txn, TxnOutcome, Watch, WatchUpdate};

/// No event takes longer than this, a lease's end apart.
const SOON: Duration = Duration::from_secs(10);

pub(super) fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease: 0 }
}

pub(super) fn delete(key: &str) -> Change {
    Change::Delete { key: key.to_owned() }
}

pub(super) fn txn(compares: &[Compare], changes: &[Change]) -> Txn {
    Txn { compares: compares.to_vec(), changes: changes.to_vec() }
}

/// Commits what must not conflict; its revision.
pub(super) async fn commit(store: &Arc<dyn Store>, changes: &[Change]) -> Revision {
    match store.commit(txn(&[], changes)).await.unwrap() {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::Conflict(there) => panic!("conflict without a condition: {there:?}"),
    }
}

pub(super) async fn value(store: &Arc<dyn Store>, key: &str) -> Option<String> {
    store.get(key).await.unwrap().map(|e| String::from_utf8(e.value).unwrap())
}

/// The next outcome of a watch, which must come soon.
pub(super) async fn next(watch: &mut Box<dyn Watch>) -> WatchUpdate {
    let next = tokio::time::timeout(SOON, watch.next()).await;
    next.expect("a watch stayed silent").expect("a watch ended").unwrap()
}

/// The next `count` events and the revision of the last batch.
pub(super) async fn events(watch: &mut Box<dyn Watch>, count: usize) -> (Vec<Event>, Revision) {
    let (mut all, mut last) = (vec![], 0);
    while all.len() < count {
        match next(watch).await {
            WatchUpdate::Changes { events, revision } => {
                assert!(!events.is_empty(), "a batch without an event");
                assert!(revision > last, "revision {revision} after {last}");
                assert!(events.iter().all(|e| revision_of(e) <= revision));
                last = revision;
                all.extend(events);
            }
            WatchUpdate::Compacted => panic!("compacted after {all:?}"),
        }
    }
    assert_eq!(all.len(), count, "more events than expected: {all:?}");
    (all, last)
}

pub(super) fn revision_of(event: &Event) -> Revision {
    match event {
        Event::Put(entry) => entry.mod_revision,
        Event::Delete { revision, .. } => *revision,
    }
}

/// `+key=value` or `-key`, without the prefix.
pub(super) fn told(event: &Event, prefix: &str) -> String {
    let short = |key: &str| key.strip_prefix(prefix).unwrap_or(key).to_owned();
    match event {
        Event::Put(e) => format!("+{}={}", short(&e.key), String::from_utf8_lossy(&e.value)),
        Event::Delete { key, .. } => format!("-{}", short(key)),
    }
}
