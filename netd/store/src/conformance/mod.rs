//! What every store has to do. Each implementation runs [`run`] in its tests, and one with
//! leases [`run_leases`], too.
//!
//! A check panics with what it saw. Checks work under prefixes of their own, so one
//! store may serve them all, and they expect nothing of its revision or its other keys.

// Panicking is how a check fails.
#![allow(clippy::unwrap_used)]

mod compare;
mod helpers;
mod leases;
mod limits;
mod subject;
mod watches;

use std::sync::Arc;

pub use self::subject::Subject;
use crate::{LeaseStore, keys};

/// Durable keys and volatile ones.
fn roots() -> [String; 2] {
    ["/netd/v1/".to_owned(), keys::VOLATILE.to_owned()].map(|root| format!("{root}conformance/"))
}

/// Runs every check, on durable and on volatile keys.
///
/// # Panics
/// When the store fails a check.
pub async fn run(subject: &dyn Subject) {
    for root in roots() {
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
    }
}

/// Runs every check of leases, on durable and on volatile keys.
///
/// # Panics
/// When the store fails a check.
pub async fn run_leases(store: &Arc<dyn LeaseStore>) {
    for root in roots() {
        let at = |check: &str| format!("{root}{check}/");
        leases::expiry(store, &at("expiry")).await;
        leases::keep_alive(store, &at("keep-alive")).await;
        leases::revocation(store, &at("revocation")).await;
        leases::rebinding(store, &at("rebinding")).await;
    }
}
