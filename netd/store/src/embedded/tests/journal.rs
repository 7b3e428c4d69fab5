//! What only the journal of volatile records does: it is cut off in the middle of a
//! record, and it is recreated when most of it is past.

use std::{fs, path::PathBuf};

use super::{open, put, puts, value, volatile};
use crate::{Change, Store, embedded::EmbeddedStore};

fn file(dir: &std::path::Path) -> PathBuf {
    dir.join("run/endpoints.journal")
}

/// How much of the file is not zeros at its end.
fn written(dir: &std::path::Path) -> usize {
    let bytes = fs::read(file(dir)).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

async fn commit(store: &EmbeddedStore, change: Change) {
    store.commit(puts([change])).await.unwrap();
}

#[tokio::test]
async fn a_record_that_was_not_written_to_its_end_is_left_out_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, put(&volatile("a"), &[1; 50])).await;
    let first = written(dir.path());
    commit(&store, put(&volatile("b"), &[2; 5000])).await;
    drop(store);
    let whole = fs::read(file(dir.path())).unwrap();
    for cut in [first, first + 1, first + 7, first + 12, first + 100, first + 5000] {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        fs::write(file(dir.path()), &bytes).unwrap();
        let store = open(dir.path());
        assert_eq!(value(&store, &volatile("a")).await, Some(vec![1; 50]), "{cut}");
        assert_eq!(value(&store, &volatile("b")).await, None, "{cut}");
        commit(&store, put(&volatile("c"), b"3")).await;
        drop(store);
        // The rest of the unfinished one is not taken for damage behind the new one.
        assert_eq!(value(&open(dir.path()), &volatile("c")).await, Some(b"3".to_vec()), "{cut}");
    }
}

#[tokio::test]
async fn what_is_past_takes_no_room_for_long_and_a_new_file_holds_all_of_the_rest() {
    const ROUNDS: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..100 {
        commit(&store, put(&volatile(&format!("stays/{n}")), &[7; 2000])).await;
    }
    let mut most = 0;
    for n in 0..ROUNDS {
        commit(&store, put(&volatile("comes"), &vec![b'x'; 2000 + n % 7])).await;
        commit(&store, Change::Delete { key: volatile("comes") }).await;
        most = most.max(fs::metadata(file(dir.path())).unwrap().len());
    }
    assert!(most < 3 << 20, "{most} bytes for 200 kB of records");
    let before = store.list("").await.unwrap();
    assert_eq!(before.entries.len(), 100);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.list("").await.unwrap(), before);
    assert!(!dir.path().join("run/endpoints.journal.new").exists());
}
