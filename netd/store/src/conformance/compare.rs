//! Transactions: conditions, atomicity, races, listing.

use std::sync::Arc;

use super::helpers::{commit, delete, put, txn, value};
use crate::{Compare, Store, TxnOutcome};

/// Each condition holds when it should and only then.
pub(super) async fn conditions(store: &Arc<dyn Store>, at: &str) {
    let (here, gone) = (format!("{at}here"), format!("{at}gone"));
    let first = commit(store, &[put(&here, "1")]).await;
    let second = commit(store, &[put(&here, "2")]).await;
    assert!(second > first && first >= 1, "revisions ascend: {first}, {second}");
    let entry = store.get(&here).await.unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.lease), (first, second, 0));
    for (compare, holds) in [
        (Compare::Present(here.clone()), true),
        (Compare::Present(gone.clone()), false),
        (Compare::Absent(here.clone()), false),
        (Compare::Absent(gone.clone()), true),
        (Compare::Unchanged(here.clone(), second), true),
        (Compare::Unchanged(here.clone(), first), false),
        (Compare::Unchanged(gone.clone(), first), false),
        (Compare::Unchanged(gone.clone(), 0), false),
    ] {
        let outcome = store.commit(txn(std::slice::from_ref(&compare), &[])).await.unwrap();
        assert_eq!(matches!(outcome, TxnOutcome::Committed(_)), holds, "{compare:?}: {outcome:?}");
    }
    // A key recreated has a new creation, and an old revision does not come back.
    commit(store, &[delete(&here)]).await;
    let again = commit(store, &[put(&here, "2")]).await;
    assert_eq!(store.get(&here).await.unwrap().unwrap().create_revision, again);
    let stale = txn(&[Compare::Unchanged(here, second)], &[]);
    assert!(matches!(store.commit(stale).await.unwrap(), TxnOutcome::Conflict(_)));
}

/// A conflict changes nothing and shows the compared keys that are there.
pub(super) async fn conflicts(store: &Arc<dyn Store>, at: &str) {
    let [a, b, c] = ["a", "b", "c"].map(|k| format!("{at}{k}"));
    commit(store, &[put(&a, "1"), put(&b, "2")]).await;
    let before = store.list(at).await.unwrap();
    let compares =
        [Compare::Present(b.clone()), Compare::Absent(c.clone()), Compare::Absent(a.clone())];
    let changes = [put(&c, "3"), delete(&b)];
    match store.commit(txn(&compares, &changes)).await.unwrap() {
        TxnOutcome::Conflict(mut there) => {
            there.sort_by(|x, y| x.key.cmp(&y.key));
            assert_eq!(there, before.entries);
        }
        made => panic!("made in spite of a condition: {made:?}"),
    }
    let missing = txn(&[Compare::Present(c)], &[delete(&a)]);
    assert_eq!(store.commit(missing).await.unwrap(), TxnOutcome::Conflict(vec![]));
    assert_eq!(store.list(at).await.unwrap().entries, before.entries);
}

/// All changes of a transaction carry one revision; no change needs none.
pub(super) async fn atomicity(store: &Arc<dyn Store>, at: &str) {
    let [a, b, c] = ["a", "b", "c"].map(|k| format!("{at}{k}"));
    commit(store, &[put(&a, "1")]).await;
    let made = commit(store, &[delete(&a), put(&b, "2"), put(&c, "3")]).await;
    let list = store.list(at).await.unwrap();
    let seen: Vec<_> = list.entries.iter().map(|e| (e.key.as_str(), e.mod_revision)).collect();
    assert_eq!(seen, [(b.as_str(), made), (c.as_str(), made)]);
    let entry = store.get(&b).await.unwrap().unwrap();
    assert_eq!(commit(store, &[delete(&a)]).await, made, "removing nothing is no change");
    assert_eq!(commit(store, &[]).await, made);
    assert_eq!(store.get(&b).await.unwrap().unwrap(), entry);
}

/// Of many that create the same key, one wins, and the others see it.
pub(super) async fn race(store: &Arc<dyn Store>, at: &str) {
    for round in 0..5 {
        let key = format!("{at}{round}");
        let mut tasks = tokio::task::JoinSet::new();
        for who in 0..32 {
            let (store, key, own) =
                (Arc::clone(store), key.clone(), format!("{at}own/{round}/{who}"));
            tasks.spawn(async move {
                let name = who.to_string();
                let changes = [put(&key, &name), put(&own, &name)];
                (name, store.commit(txn(&[Compare::Absent(key)], &changes)).await.unwrap())
            });
        }
        let outcomes = tasks.join_all().await;
        let won = |o: &&(String, TxnOutcome)| matches!(o.1, TxnOutcome::Committed(_));
        let winners: Vec<_> = outcomes.iter().filter(won).map(|(name, _)| name.clone()).collect();
        assert_eq!(winners.len(), 1, "{winners:?} all won");
        assert_eq!(value(store, &key).await.as_ref(), winners.first());
        for (_, outcome) in &outcomes {
            if let TxnOutcome::Conflict(there) = outcome {
                assert_eq!(there[0].value, winners[0].as_bytes());
            }
        }
        let own = store.list(&format!("{at}own/{round}/")).await.unwrap();
        assert_eq!(own.entries.len(), 1, "a loser's other changes were made");
    }
}

/// Increments by compare-and-swap from many tasks lose none.
pub(super) async fn counter(store: &Arc<dyn Store>, at: &str) {
    let key = format!("{at}counter");
    commit(store, &[put(&key, "0")]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, key) = (Arc::clone(store), key.clone());
        tasks.spawn(async move {
            for _ in 0..10 {
                increment(&store, &key).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(value(store, &key).await.as_deref(), Some("80"));
}

async fn increment(store: &Arc<dyn Store>, key: &str) {
    loop {
        let entry = store.get(key).await.unwrap().unwrap();
        let n: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
        let same = Compare::Unchanged(key.to_owned(), entry.mod_revision);
        let step = txn(&[same], &[put(key, &(n + 1).to_string())]);
        if let TxnOutcome::Committed(_) = store.commit(step).await.unwrap() {
            return;
        }
    }
}

/// A list is in key order, of the prefix only, and at one revision.
pub(super) async fn listing(store: &Arc<dyn Store>, at: &str) {
    let under = format!("{at}x/");
    for key in ["x/b", "x/a/1", "x", "x0", "w/a", "x/a", "x/\u{e9}", "x/Z"] {
        commit(store, &[put(&format!("{at}{key}"), "v")]).await;
    }
    let list = store.list(&under).await.unwrap();
    let keys: Vec<_> = list.entries.iter().map(|e| &e.key[at.len()..]).collect();
    assert_eq!(keys, ["x/Z", "x/a", "x/a/1", "x/b", "x/\u{e9}"]);
    assert!(list.entries.iter().all(|e| e.mod_revision <= list.revision));
    let later = commit(store, &[put(&format!("{at}w/b"), "v")]).await;
    assert!(later > list.revision, "{later} is no later than the list's {}", list.revision);
    let none = store.list(&format!("{at}nothing/")).await.unwrap();
    assert!(none.entries.is_empty() && none.revision >= later);
}
