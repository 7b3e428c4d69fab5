//! A write that failed towards the caller but reached the disk does not come back.

use std::sync::Arc;

use super::{durable, open, put, puts, volatile};
use crate::{
    Entry, Store, TxnOutcome,
    embedded::file::{RecordFile, Room},
    memory::Effect,
};

pub(super) fn entry(key: String, value: &[u8], revision: i64) -> Effect {
    let (create_revision, mod_revision) = (revision, revision);
    let value = value.to_vec();
    Effect::Put(Arc::new(Entry { key, value, create_revision, mod_revision, lease: 0 }))
}

/// Writes past the memory, as revision 5, and breaks the file.
fn sneak_in(file: &mut dyn RecordFile, key: fn(&str) -> String) {
    let effects =
        [entry(key("new"), b"x", 5), entry(key("old"), b"x", 5), Effect::Delete(key("gone"))];
    file.write(&effects, 5, Room::Kept).unwrap();
    file.break_off();
}

#[tokio::test]
async fn a_write_that_was_reported_as_failed_is_undone_before_the_next() {
    for key in [volatile as fn(&str) -> String, durable] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.commit(puts([put(&key("old"), b"1"), put(&key("gone"), b"2")])).await.unwrap();
        let before = store.list("").await.unwrap().entries;
        {
            let mut writer = store.writer.lock().await;
            let writer = &mut *writer;
            let is_volatile = key("") == volatile("");
            let file: &mut dyn RecordFile =
                if is_volatile { &mut writer.volatile } else { &mut writer.durable };
            sneak_in(file, key);
            // The failed revision was counted, so that it is not used again.
            writer.revision = 5;
        }
        let next = store.commit(puts([put(&key("z"), b"3")])).await.unwrap();
        assert_eq!(next, TxnOutcome::Committed(6));
        let now = store.list("").await.unwrap();
        assert_eq!(now.entries[..2], before);
        drop(store);
        let again = open(dir.path()).list("").await.unwrap();
        assert_eq!(again, now, "disk and memory differ");
        assert_eq!(again.entries.len(), 3);
    }
}
