//! What outlives a restart and a reboot, and what does not.

use std::time::Duration;

use super::{durable, open, options, put, puts, value, volatile};
use crate::{
    Change, Revision, Store, StoreError, TxnOutcome,
    embedded::{
        EmbeddedOptions, EmbeddedStore,
        file::{KvFile, RecordFile as _, Room},
    },
    rules::Class,
};

async fn commit(store: &EmbeddedStore, changes: impl IntoIterator<Item = Change>) -> Revision {
    match store.commit(puts(changes)).await.unwrap() {
        TxnOutcome::Committed(revision) => revision,
        conflict => panic!("{conflict:?}"),
    }
}

#[tokio::test]
async fn a_restart_keeps_everything_and_the_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, [put(&durable("n"), b"1")]).await;
    commit(&store, [put(&volatile("e"), b"2"), put(&volatile("f"), b"3")]).await;
    let last = commit(&store, [Change::Delete { key: volatile("f") }]).await;
    assert_eq!(last, 3, "the first change of a new store is 1");
    let before = store.list("").await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.list("").await.unwrap(), before);
    assert_eq!(commit(&store, [put(&volatile("g"), b"")]).await, last + 1);
}

#[tokio::test]
async fn a_reboot_voids_endpoints_keeps_networks_and_goes_on_with_higher_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, [put(&durable("n"), b"1")]).await;
    let last = commit(&store, [put(&volatile("e"), b"2")]).await;
    drop(store);
    let rebooted = || EmbeddedOptions { boot_id: "boot-2".into(), ..options(dir.path()) };
    let store = EmbeddedStore::open(rebooted()).unwrap();
    assert_eq!(value(&store, &durable("n")).await.as_deref(), Some(b"1".as_slice()));
    assert_eq!(value(&store, &volatile("e")).await, None);
    let now = commit(&store, [put(&volatile("e"), b"3")]).await;
    assert!(now > last);
    drop(store);
    let store = EmbeddedStore::open(rebooted()).unwrap();
    assert_eq!(value(&store, &volatile("e")).await.as_deref(), Some(b"3".as_slice()));
    assert!(commit(&store, [put(&durable("n"), b"2")]).await > now);
}

#[tokio::test]
async fn a_file_damaged_by_a_power_cut_is_recreated_in_the_next_boot_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let of = |boot: &str| EmbeddedOptions { boot_id: boot.into(), ..options(dir.path()) };
    drop(open(dir.path()));
    // A boot without durable changes: only the stamp knows how far revisions got.
    let store = EmbeddedStore::open(of("boot-2")).unwrap();
    let last = commit(&store, [put(&volatile("e"), b"2")]).await;
    drop(store);
    let file = dir.path().join("run/endpoints.journal");
    for junk in [vec![], b"junk".repeat(5000)] {
        std::fs::write(&file, &junk).unwrap();
        assert!(matches!(EmbeddedStore::open(of("boot-2")), Err(StoreError::Failed { .. })));
        assert_eq!(std::fs::read(&file).unwrap(), junk, "left for people to look at");
    }
    let store = EmbeddedStore::open(of("boot-3")).unwrap();
    assert_eq!(value(&store, &volatile("e")).await, None);
    assert!(commit(&store, [put(&volatile("e"), b"3")]).await > last);
    drop(store);
    let store = EmbeddedStore::open(of("boot-3")).unwrap();
    assert_eq!(value(&store, &volatile("e")).await.as_deref(), Some(b"3".as_slice()));
}

#[tokio::test]
async fn what_a_netd_before_the_journal_left_is_taken_over_in_its_boot_only() {
    // With "journal", an older netd ran after a newer one; with no stamp, a very old one.
    for (boot, there, kept) in [
        ("boot-1", "stamp", true),
        ("boot-1", "", true),
        ("boot-1", "stamp and journal", true),
        ("boot-2", "stamp", false),
        ("boot-2", "", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let run = dir.path().join("run");
        for (file, word) in [("endpoints.journal", "journal"), ("endpoints.boot", "stamp")] {
            if !there.contains(word) {
                std::fs::remove_file(run.join(file)).unwrap();
            }
        }
        let old = run.join("endpoints.redb");
        KvFile::make(&old, Class::Volatile, "boot-1", 0).unwrap();
        let (mut file, _) = KvFile::open(&old, Class::Volatile).unwrap();
        file.write(&[super::rollback::entry(volatile("e"), b"1", 7)], 7, Room::Kept).unwrap();
        drop(file);
        let store =
            EmbeddedStore::open(EmbeddedOptions { boot_id: boot.into(), ..options(dir.path()) });
        let store = store.unwrap();
        assert_eq!(value(&store, &volatile("e")).await.is_some(), kept, "{boot}, {there}");
        let next = commit(&store, [put(&volatile("f"), b"2")]).await;
        assert!(next > 7 || there.is_empty(), "{boot}, {there}: a revision twice");
        assert!(!old.exists());
    }
}

#[tokio::test]
async fn a_run_directory_emptied_by_the_reboot_gives_no_revision_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, [put(&durable("n"), b"1")]).await;
    let last = commit(&store, [put(&volatile("e"), b"2")]).await;
    drop(store);
    std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    let store = open(dir.path());
    assert_eq!(value(&store, &durable("n")).await.as_deref(), Some(b"1".as_slice()));
    assert!(commit(&store, [put(&volatile("e"), b"3")]).await > last);
}

#[tokio::test]
async fn a_key_bound_to_a_lease_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let change = Change::Put { key: durable("n"), value: vec![], lease: 7 };
    let refused = store.commit(puts([put(&durable("m"), b""), change])).await;
    assert!(matches!(&refused, Err(StoreError::BadTransaction(text)) if text.contains("lease 7")));
    assert_eq!(store.list("").await.unwrap().entries, []);
}

#[tokio::test]
async fn a_second_store_on_the_same_files_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let err = EmbeddedStore::open(options(dir.path())).unwrap_err();
    assert!(matches!(&err, StoreError::InUse { path } if path.ends_with("networks.lock")), "{err}");
    let other = EmbeddedOptions { state_dir: dir.path().join("other"), ..options(dir.path()) };
    let err = EmbeddedStore::open(other).unwrap_err();
    assert!(
        matches!(&err, StoreError::InUse { path } if path.ends_with("endpoints.lock")),
        "{err}"
    );
    drop(store);
    assert!(EmbeddedStore::open(options(dir.path())).is_ok());
}

#[tokio::test]
async fn both_files_may_be_in_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let one = || EmbeddedOptions { run_dir: dir.path().join("state"), ..options(dir.path()) };
    let store = EmbeddedStore::open(one()).unwrap();
    commit(&store, [put(&durable("n"), b"1")]).await;
    commit(&store, [put(&volatile("e"), b"2")]).await;
    drop(store);
    assert_eq!(EmbeddedStore::open(one()).unwrap().list("").await.unwrap().entries.len(), 2);
}

#[test]
fn the_running_kernel_has_a_boot_id() {
    let options = EmbeddedOptions::of_this_boot("/s", "/r").unwrap();
    assert_eq!(options.boot_id.len(), 36);
    assert_eq!(options.run_dir, std::path::Path::new("/r"));
}

#[tokio::test]
async fn a_commit_whose_caller_gives_up_leaves_disk_and_memory_alike() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..200u64 {
        let commit = store.commit(puts([put(&durable(&format!("k{n}")), b"v")]));
        let _ = tokio::time::timeout(Duration::from_micros(n * 10), commit).await;
    }
    let seen = commit(&store, [put(&durable("last"), b"v")]).await;
    let before = store.list("").await.unwrap();
    assert_eq!(before.revision, seen);
    drop(store);
    assert_eq!(open(dir.path()).list("").await.unwrap(), before);
}
