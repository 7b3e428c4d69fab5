//! What every store has to do. Each implementation runs [`run`] in its tests.
//!
//! A check panics with what it saw. Checks work under prefixes of their own, so one
//! store may serve them all, and they expect nothing of its revision or its other keys.

// Panicking is how a check fails.
#![allow(clippy::unwrap_used)]

mod compare;
mod leases;
mod limits;
mod watches;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Change, Compare, Event, Revision, Store, Txn, TxnOutcome, Watch, WatchUpdate, keys};

/// A store under test.
#[async_trait]
pub trait Subject: Sync {
    /// A store, empty under the prefixes `/netd/v1/conformance/` and
    /// `/netd/v1/node/conformance/`; a new one or the same every time.
    async fn store(&self) -> Arc<dyn Store>;

    /// Makes `store` forget its history up to and including the current revision.
    async fn compact(&self, store: &Arc<dyn Store>);
}

/// No event takes longer than this, a lease's end apart.
const SOON: Duration = Duration::from_secs(10);

/// Runs every check, on durable and on volatile keys.
///
/// # Panics
/// When the store fails a check.
pub async fn run(subject: &dyn Subject) {
    for root in ["/netd/v1/conformance/", &format!("{}conformance/", keys::VOLATILE)] {
        let at = |check: &str| format!("{root}{check}/");
        let store = subject.store().await;
        compare::conditions(&store, &at("conditions")).await;
        compare::conflicts(&store, &at("conflicts")).await;
        compare::atomicity(&store, &at("atomicity")).await;
        compare::race(&store, &at("race")).await;
        compare::counter(&store, &at("counter")).await;
        compare::listing(&store, &at("listing")).await;
        limits::limits(&store, &at("limits")).await;

        let store = subject.store().await;
        watches::order(&store, &at("order")).await;
        watches::prefixes(&store, &at("prefixes")).await;
        watches::resume(&store, &at("resume")).await;
        watches::no_gap(&store, &at("no-gap")).await;
        watches::whole_revisions(&store, &at("whole")).await;
        watches::future(&store, &at("future")).await;
        watches::compaction(subject, &at("compaction")).await;

        let store = subject.store().await;
        leases::expiry(&store, &at("expiry")).await;
        leases::keep_alive(&store, &at("keep-alive")).await;
        leases::revocation(&store, &at("revocation")).await;
        leases::rebinding(&store, &at("rebinding")).await;
    }
}

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease: 0 }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.to_owned() }
}

fn txn(compares: &[Compare], changes: &[Change]) -> Txn {
    Txn { compares: compares.to_vec(), changes: changes.to_vec() }
}

/// Commits what must not conflict; its revision.
async fn commit(store: &Arc<dyn Store>, changes: &[Change]) -> Revision {
    match store.commit(txn(&[], changes)).await.unwrap() {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::Conflict(there) => panic!("conflict without a condition: {there:?}"),
    }
}

async fn value(store: &Arc<dyn Store>, key: &str) -> Option<String> {
    store.get(key).await.unwrap().map(|e| String::from_utf8(e.value).unwrap())
}

/// The next outcome of a watch, which must come soon.
async fn next(watch: &mut Box<dyn Watch>) -> WatchUpdate {
    let next = tokio::time::timeout(SOON, watch.next()).await;
    next.expect("a watch stayed silent").expect("a watch ended").unwrap()
}

/// The next `count` events and the revision of the last batch.
async fn events(watch: &mut Box<dyn Watch>, count: usize) -> (Vec<Event>, Revision) {
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

fn revision_of(event: &Event) -> Revision {
    match event {
        Event::Put(entry) => entry.mod_revision,
        Event::Delete { revision, .. } => *revision,
    }
}

/// `+key=value` or `-key`, without the prefix.
fn told(event: &Event, prefix: &str) -> String {
    let short = |key: &str| key.strip_prefix(prefix).unwrap_or(key).to_owned();
    match event {
        Event::Put(e) => format!("+{}={}", short(&e.key), String::from_utf8_lossy(&e.value)),
        Event::Delete { key, .. } => format!("-{}", short(key)),
    }
}
