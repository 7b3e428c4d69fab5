//! What is refused, and that refusing changes nothing.

use std::sync::Arc;

use super::helpers::{commit, delete, put, txn};
use crate::{
    Change, Compare, Store, StoreError, keys,
    rules::{MAX_KEY_BYTES, MAX_VALUE_BYTES},
};

/// Rules of the trait are checked before anything is done.
pub(super) async fn limits(store: &Arc<dyn Store>, at: &str) {
    let key = format!("{at}key");
    let longest = format!("{at}{}", "k".repeat(MAX_KEY_BYTES - at.len()));
    let large = |len| Change::Put { key: key.clone(), value: vec![7; len], lease: 0 };
    let other = match at.starts_with(keys::VOLATILE) {
        true => "/netd/v1/conformance/other".to_owned(),
        false => format!("{}conformance/other", keys::VOLATILE),
    };
    for (what, changes) in [
        ("an empty key", vec![put("", "v")]),
        ("a long key", vec![put(&format!("{longest}k"), "v")]),
        ("a long value", vec![large(MAX_VALUE_BYTES + 1)]),
        ("a key changed twice", vec![put(&key, "1"), delete(&key)]),
        ("keys of two classes", vec![put(&key, "1"), put(&other, "1")]),
    ] {
        let outcome = store.commit(txn(&[], &changes)).await;
        assert!(matches!(outcome, Err(StoreError::BadTransaction(_))), "{what}: {outcome:?}");
    }
    assert!(store.list(at).await.unwrap().entries.is_empty());
    assert!(store.get(&other).await.unwrap().is_none());

    // Conditions may look at any class.
    let looks = txn(&[Compare::Absent(other)], &[put(&longest, "v"), large(MAX_VALUE_BYTES)]);
    store.commit(looks).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().value.len(), MAX_VALUE_BYTES);
    assert!(store.get(&longest).await.unwrap().is_some());
    assert!(store.get("").await.unwrap().is_none());
    commit(store, &[delete(&key), delete(&longest)]).await;
}
