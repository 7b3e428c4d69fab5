//! Lists, pages, watches.

use std::collections::BTreeSet;

use netd::node::{EndpointFilter, now_boot};
use netd_store::{Event, WatchUpdate, keys};

use super::{
    bed::{Bed, key, spec},
    space::Space,
};

#[test]
fn a_watch_from_a_lists_revision_misses_nothing_and_repeats_nothing() {
    let (bed, pod) = (Bed::new(), Space::new());
    let netd = bed.start();
    let node = netd.node.clone();
    let churn = netd.spawn({
        let specs: Vec<_> =
            (0..30).map(|n| spec(&key(&format!("s{n}"), "eth0"), &pod, "default")).collect();
        async move {
            for mut spec in specs {
                // One name in one sandbox: the next can be attached when this one is gone.
                spec.issued_at = now_boot();
                node.attach(spec.clone()).await.unwrap();
                node.detach(spec.key.sandbox, None, now_boot()).await.unwrap();
                while node.counts().endpoints > 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
        }
    });
    let node = netd.node.clone();
    netd.run(async {
        while !churn.is_finished() {
            let page = node.page(None, 500, &EndpointFilter::default()).await.unwrap();
            let mut seen: BTreeSet<_> =
                page.endpoints.iter().map(|(e, _)| keys::endpoint(&e.key)).collect();
            let store = node.store();
            let mut watch = store.watch(keys::ENDPOINTS, page.revision).await.unwrap();
            let Ok(next) =
                tokio::time::timeout(std::time::Duration::from_millis(50), watch.next()).await
            else {
                continue;
            };
            let Some(Ok(WatchUpdate::Changes { events, .. })) = next else { panic!("{next:?}") };
            for event in events {
                match event {
                    Event::Put(entry) if entry.create_revision == entry.mod_revision => {
                        assert!(seen.insert(entry.key), "added, and listed already");
                    }
                    Event::Put(entry) => assert!(seen.contains(&entry.key), "never added"),
                    Event::Delete { key, .. } => assert!(seen.remove(&key), "never added"),
                }
            }
        }
        churn.await.unwrap();
    });
}

#[test]
fn pages_hold_every_endpoint_once_and_are_small_enough_to_send() {
    let bed = Bed::new();
    let netd = bed.start();
    // Keys as text are in another order than sandboxes' names.
    let names = ["a", "a-b", "a.b", "ab", "b"];
    let pods: Vec<_> = names.iter().map(|_| Space::new()).collect();
    for (name, pod) in names.iter().zip(&pods) {
        let mut spec = spec(&key(name, "eth0"), pod, "default");
        spec.annotations.insert("large".into(), "x".repeat(500 << 10));
        netd.attach(spec).unwrap();
    }
    for size in [1, 2, 500] {
        let (mut seen, mut after, mut pages) = (vec![], None, 0);
        loop {
            let filter = EndpointFilter::default();
            let page = netd.run(netd.node.page(after.as_ref(), size, &filter)).unwrap();
            assert!(page.endpoints.len() <= size.min(4));
            seen.extend(page.endpoints.into_iter().map(|(e, _)| e.key.sandbox.to_string()));
            (after, pages) = (page.next, pages + 1);
            if after.is_none() {
                break;
            }
        }
        assert!(pages > 1);
        seen.sort();
        assert_eq!(seen, names, "pages of {size}");
    }
}
