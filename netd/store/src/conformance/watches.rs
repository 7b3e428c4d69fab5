//! Watches: what they tell, from where, and what happens when it is gone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    helpers::{commit, delete, events, next, put, revision_of, told},
    subject::Subject,
};
use crate::{Event, Store, WatchUpdate};

/// Every change is told once, in order; removing nothing is not.
pub(super) async fn order(store: &Arc<dyn Store>, at: &str) {
    let [a, b] = ["a", "b"].map(|k| format!("{at}{k}"));
    let after = store.list(at).await.unwrap().revision;
    let mut watch = store.watch(at, after).await.unwrap();
    commit(store, &[put(&a, "1")]).await;
    commit(store, &[delete(&b)]).await;
    commit(store, &[put(&a, "1")]).await;
    let gone = commit(store, &[delete(&a)]).await;
    let last = commit(store, &[put(&b, "2")]).await;
    let (seen, revision) = events(&mut watch, 4).await;
    assert_eq!(revision, last);
    assert_eq!(seen[2], Event::Delete { key: a, revision: gone });
    assert_eq!(seen[3], Event::Put(store.get(&b).await.unwrap().unwrap()));
    let seen: Vec<_> = seen.iter().map(|e| told(e, at)).collect();
    assert_eq!(seen, ["+a=1", "+a=1", "-a", "+b=2"]);
}

/// A watch sees its prefix only, byte by byte.
pub(super) async fn prefixes(store: &Arc<dyn Store>, at: &str) {
    let after = store.list(at).await.unwrap().revision;
    let mut watch = store.watch(&format!("{at}x/"), after).await.unwrap();
    for key in ["x", "x0", "w/a", "x/a", "y/a"] {
        commit(store, &[put(&format!("{at}{key}"), "v")]).await;
    }
    commit(store, &[put(&format!("{at}x/z"), "v"), put(&format!("{at}z"), "v")]).await;
    let (seen, _) = events(&mut watch, 2).await;
    let seen: Vec<_> = seen.iter().map(|e| told(e, at)).collect();
    assert_eq!(seen, ["+x/a=v", "+x/z=v"]);
    let more = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
    assert!(more.is_err(), "an event of another prefix: {more:?}");
}

/// A watch resumes after any revision that it, a commit or a list has named.
pub(super) async fn resume(store: &Arc<dyn Store>, at: &str) {
    let key = format!("{at}k");
    let mut named = vec![store.list(at).await.unwrap().revision];
    for n in 0..5 {
        named.push(commit(store, &[put(&key, &n.to_string())]).await);
    }
    for (n, after) in named.iter().take(5).enumerate() {
        let mut watch = store.watch(at, *after).await.unwrap();
        let (seen, revision) = events(&mut watch, 5 - n).await;
        assert_eq!(told(&seen[0], at), format!("+k={n}"));
        assert_eq!(revision, named[5]);
    }
    // Cut off after a batch, and resumed after more has happened.
    let mut watch = store.watch(at, named[5]).await.unwrap();
    commit(store, &[put(&key, "5")]).await;
    let (_, revision) = events(&mut watch, 1).await;
    drop(watch);
    let missed = commit(store, &[delete(&key)]).await;
    let mut watch = store.watch(at, revision).await.unwrap();
    let (seen, _) = events(&mut watch, 1).await;
    assert_eq!(seen, [Event::Delete { key, revision: missed }]);
}

/// List and watch after its revision, under load: nothing is missed or told twice.
pub(super) async fn no_gap(store: &Arc<dyn Store>, at: &str) {
    const WRITES: usize = 60;
    let writer = {
        let (store, at) = (Arc::clone(store), at.to_owned());
        tokio::spawn(async move {
            for n in 0..WRITES {
                commit(&store, &[put(&format!("{at}{}", n % 7), &n.to_string())]).await;
                tokio::task::yield_now().await;
            }
            commit(&store, &[put(&format!("{at}end"), "")]).await
        })
    };
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (store, at) = (Arc::clone(store), at.to_owned());
        watchers.spawn(async move { follow(&store, &at).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let last = writer.await.unwrap();
    let list = store.list(at).await.unwrap();
    let truth: BTreeMap<_, _> =
        list.entries.into_iter().map(|e| (e.key, (e.value, e.mod_revision))).collect();
    for (seen, writes) in watchers.join_all().await {
        assert_eq!(seen, truth);
        assert_eq!(writes, WRITES + 1, "each write is in the list or an event, never both");
    }
    assert!(truth.values().any(|(_, revision)| *revision == last));
}

type Entries = BTreeMap<String, (Vec<u8>, i64)>;

/// Lists, then watches until the key `end`; what it has then, and the writes it knows of.
async fn follow(store: &Arc<dyn Store>, at: &str) -> (Entries, usize) {
    let list = store.list(at).await.unwrap();
    let end = format!("{at}end");
    // The values count up, so the greatest says how many writes the list covers.
    let number = |v: &[u8]| std::str::from_utf8(v).unwrap().parse::<usize>().ok();
    let listed = list.entries.iter().filter_map(|e| number(&e.value)).max();
    let mut writes = listed.map_or(0, |n| n + 1);
    let mut entries: Entries =
        list.entries.into_iter().map(|e| (e.key, (e.value, e.mod_revision))).collect();
    writes += usize::from(entries.contains_key(&end));
    let mut watch = store.watch(at, list.revision).await.unwrap();
    while !entries.contains_key(&end) {
        let WatchUpdate::Changes { events, .. } = next(&mut watch).await else {
            panic!("compacted")
        };
        for event in events {
            let Event::Put(e) = event else { panic!("nothing was deleted") };
            assert!(e.mod_revision > list.revision, "told again: {e:?}");
            writes += 1;
            entries.insert(e.key, (e.value, e.mod_revision));
        }
    }
    (entries, writes)
}

/// The changes of one transaction come in one batch.
pub(super) async fn whole_revisions(store: &Arc<dyn Store>, at: &str) {
    let after = store.list(at).await.unwrap().revision;
    let mut watch = store.watch(at, after).await.unwrap();
    for n in 0..10 {
        let n = n.to_string();
        commit(store, &["a", "b", "c"].map(|k| put(&format!("{at}{k}"), &n))).await;
    }
    let mut count = 0;
    while count < 30 {
        let WatchUpdate::Changes { events, .. } = next(&mut watch).await else {
            panic!("compacted")
        };
        for whole in events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
            assert_eq!(whole.len(), 3, "a part of a revision: {whole:?}");
        }
        count += events.len();
    }
}

/// A watch after a revision that is still to come tells what comes after it.
pub(super) async fn future(store: &Arc<dyn Store>, at: &str) {
    let key = format!("{at}k");
    let now = commit(store, &[put(&key, "now")]).await;
    let mut watch = store.watch(at, now + 2).await.unwrap();
    let mut made = now;
    while made <= now + 2 {
        made = commit(store, &[put(&key, &(made + 1 - now).to_string())]).await;
    }
    let (seen, _) = events(&mut watch, 1).await;
    assert_eq!(revision_of(&seen[0]), made, "the first after the one asked for");
}

/// Forgotten revisions are an outcome, the last one; a new list and watch go on.
pub(super) async fn compaction(subject: &dyn Subject, at: &str) {
    let store = subject.store().await;
    let key = format!("{at}k");
    let old = commit(&store, &[put(&key, "1")]).await;
    commit(&store, &[put(&key, "2")]).await;
    subject.compact(&store).await;
    let mut watch = store.watch(at, old).await.unwrap();
    assert_eq!(next(&mut watch).await, WatchUpdate::Compacted);
    assert!(watch.next().await.is_none(), "the stream ends after Compacted");

    let list = store.list(at).await.unwrap();
    assert_eq!(list.entries[0].value, b"2", "the entries are still there");
    let mut watch = store.watch(at, list.revision).await.unwrap();
    commit(&store, &[put(&key, "3")]).await;
    let (seen, _) = events(&mut watch, 1).await;
    assert_eq!(told(&seen[0], at), "+k=3");
}
