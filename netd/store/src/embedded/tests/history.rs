//! The history: bounded, and honest about what it forgot.

use std::sync::Arc;

use super::{open, options, put, puts, volatile};
use crate::{
    Revision, Store, Watch, WatchUpdate,
    embedded::{EmbeddedOptions, EmbeddedStore, HistoryLimit},
};

fn with_history(dir: &std::path::Path, revisions: usize, bytes: usize) -> Arc<EmbeddedStore> {
    let history = HistoryLimit { revisions, bytes };
    EmbeddedStore::open(EmbeddedOptions { history, ..options(dir) }).unwrap()
}

async fn fill(store: &EmbeddedStore, count: usize, size: usize) -> Revision {
    for _ in 0..count {
        store.commit(puts([put(&volatile("k"), &vec![0; size])])).await.unwrap();
    }
    store.list("").await.unwrap().revision
}

async fn next(watch: &mut Box<dyn Watch>) -> WatchUpdate {
    watch.next().await.unwrap().unwrap()
}

async fn count(store: &EmbeddedStore, after: Revision) -> Option<usize> {
    match next(&mut store.watch("", after).await.unwrap()).await {
        WatchUpdate::Changes { events, .. } => Some(events.len()),
        WatchUpdate::Compacted => None,
    }
}

#[tokio::test]
async fn exactly_the_bounded_number_of_revisions_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_history(dir.path(), 10, 1 << 20);
    assert_eq!(fill(&store, 25, 1).await, 25);
    assert_eq!(count(&store, 15).await, Some(10));
    assert_eq!(count(&store, 14).await, None);
    assert_eq!(count(&store, 0).await, None);
    assert_eq!(count(&store, -1).await, None);
}

#[tokio::test]
async fn bytes_bound_the_history_too_but_the_latest_change_always_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_history(dir.path(), 1000, 10_000);
    let last = fill(&store, 50, 1000).await;
    assert_eq!(count(&store, last - 9).await, Some(9));
    assert_eq!(count(&store, last - 10).await, None);
    let last = fill(&store, 1, 100_000).await;
    assert_eq!(count(&store, last - 1).await, Some(1));
    assert_eq!(count(&store, last - 2).await, None);
}

#[tokio::test]
async fn a_consumer_that_falls_behind_the_bound_is_told_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_history(dir.path(), 10, 1 << 20);
    let mut slow = store.watch("", 0).await.unwrap();
    fill(&store, 5, 1).await;
    assert!(matches!(next(&mut slow).await, WatchUpdate::Changes { revision: 5, .. }));
    fill(&store, 11, 1).await;
    assert_eq!(next(&mut slow).await, WatchUpdate::Compacted);
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn a_quiet_prefix_does_not_fall_behind_while_it_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_history(dir.path(), 10, 1 << 20);
    let mut quiet = store.watch(&volatile("other"), 0).await.unwrap();
    let waiting = tokio::spawn(async move { next(&mut quiet).await });
    for _ in 0..50 {
        fill(&store, 5, 1).await;
        tokio::task::yield_now().await;
    }
    store.commit(puts([put(&volatile("other"), b"")])).await.unwrap();
    assert!(
        matches!(waiting.await.unwrap(), WatchUpdate::Changes { events, .. } if events.len() == 1)
    );
}

#[tokio::test]
async fn revisions_before_a_restart_are_compacted_and_the_current_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let last = fill(&open(dir.path()), 5, 1).await;
    let store = open(dir.path());
    assert_eq!(count(&store, last - 1).await, None);
    let mut watch = store.watch("", last).await.unwrap();
    fill(&store, 1, 1).await;
    assert!(
        matches!(next(&mut watch).await, WatchUpdate::Changes { revision, .. } if revision == last + 1)
    );
}

#[tokio::test]
async fn a_watch_ends_when_the_store_is_closed_after_telling_the_last_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch("", 0).await.unwrap();
    fill(&store, 1, 1).await;
    drop(store);
    assert!(matches!(next(&mut watch).await, WatchUpdate::Changes { revision: 1, .. }));
    assert!(watch.next().await.is_none());
    assert!(watch.next().await.is_none());
}
