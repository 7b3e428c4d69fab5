//! Damaged files, full disks, directories that can't be written.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigHandler, Signal, signal},
};
use proptest::prelude::*;

use super::{
    crash::{child, child_dir},
    durable, open, options, put, puts, value, volatile,
};
use crate::store::{
    Outcome, Store, StoreError,
    embedded::{EmbeddedOptions, EmbeddedStore},
};

fn files(dir: &Path) -> [PathBuf; 2] {
    [dir.join("state/networks.redb"), dir.join("run/endpoints.redb")]
}

/// A closed store with an entry in each file.
async fn filled(dir: &Path) {
    let store = open(dir);
    store.commit(puts([put(&durable("n"), &[1; 3000])])).await.unwrap();
    store.commit(puts([put(&volatile("e"), &[2; 3000])])).await.unwrap();
}

fn failure(options: EmbeddedOptions) -> (String, String) {
    match EmbeddedStore::open(options) {
        Err(StoreError::Failed { path, reason }) => (path, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_damaged_file_is_named_with_the_remedy_and_left_as_it_is() {
    for index in 0..2 {
        for (what, junk) in [
            ("empty", vec![]),
            ("text", b"hello".to_vec()),
            ("zeros", vec![0; 100_000]),
            ("junk", (0..200_000u32).map(|n| (n * 2_654_435_761 >> 13) as u8).collect()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            filled(dir.path()).await;
            let file = &files(dir.path())[index];
            fs::write(file, &junk).unwrap();
            let (path, reason) = failure(options(dir.path()));
            assert_eq!(Path::new(&path), file, "{what}");
            assert!(reason.contains("damaged") && reason.contains("move"), "{what}: {reason}");
            assert_eq!(fs::read(file).unwrap(), junk, "{what}: it was changed");
        }
    }
}

#[tokio::test]
async fn a_file_cut_short_is_an_error_and_not_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    for file in files(dir.path()) {
        let whole = fs::read(&file).unwrap();
        for len in [1, 512, 4096, whole.len() / 2, whole.len() - 4096] {
            fs::write(&file, &whole[..len]).unwrap();
            let (path, reason) = failure(options(dir.path()));
            assert_eq!(Path::new(&path), file, "{len} bytes left: {reason}");
        }
        fs::write(&file, &whole).unwrap();
    }
    assert!(value(&open(dir.path()), &durable("n")).await.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_are_noticed_or_change_nothing(
        index in 0usize..2,
        spots in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            filled(dir.path()).await;
            let file = &files(dir.path())[index];
            let mut bytes = fs::read(file).unwrap();
            // The pages in use are at the front; the rest is free space.
            let front = bytes.len().min(64 << 10);
            for (spot, mask) in &spots {
                bytes[spot.index(front)] ^= mask;
            }
            fs::write(file, &bytes).unwrap();
            match EmbeddedStore::open(options(dir.path())) {
                Ok(store) => {
                    assert_eq!(value(&store, &durable("n")).await, Some(vec![1; 3000]));
                    assert_eq!(value(&store, &volatile("e")).await, Some(vec![2; 3000]));
                }
                Err(StoreError::Failed { path, .. }) => assert_eq!(Path::new(&path), file),
                Err(other) => panic!("{other}"),
            }
        });
    }
}

#[test]
fn a_directory_that_cant_be_made_or_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let under_a_file = EmbeddedOptions { state_dir: file.join("x"), ..options(dir.path()) };
    assert!(failure(under_a_file).0.starts_with(&file.display().to_string()));
    // Nobody can make a file there, not even root.
    let proc = EmbeddedOptions { run_dir: "/proc/self".into(), ..options(dir.path()) };
    let (path, reason) = failure(proc);
    assert_eq!(path, "/proc/self/endpoints.lock");
    assert!(reason.contains("another"), "{reason}");
}

#[test]
fn a_half_made_file_of_an_earlier_run_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("state")).unwrap();
    fs::write(dir.path().join("state/networks.redb.new"), b"half").unwrap();
    drop(open(dir.path()));
    assert!(!dir.path().join("state/networks.redb.new").exists());
}

/// Lets files grow to `limit` bytes only: to a process, a disk that is full.
fn limit_files(limit: Option<u64>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, limit.unwrap_or(hard), hard).unwrap();
}

/// Fills the file of `key` until it can't grow; checks that nothing is half-made,
/// and that the store works again once there is space.
async fn fill_up(store: &EmbeddedStore, dir: &Path, file: &Path, key: fn(&str) -> String) {
    let bulk = |n: u32| puts([put(&key(&format!("{n}/a")), &[7; 60_000]), put(&key(&format!("{n}/b")), b"")]);
    store.commit(bulk(0)).await.unwrap();
    limit_files(Some(fs::metadata(file).unwrap().len() + 200_000));
    let mut made = 0;
    let reason = loop {
        match store.commit(bulk(made + 1)).await {
            Ok(Outcome::Committed(_)) => made += 1,
            Err(StoreError::Failed { path, reason }) if Path::new(&path) == file => break reason,
            other => panic!("{other:?}"),
        }
        assert!(made < 1000, "the disk never filled up");
    };
    assert!(reason.contains("free some space"), "{reason}");
    let before = store.list(&key("")).await.unwrap();
    assert_eq!(before.entries.len(), 2 * (made as usize + 1), "a part of a transaction");
    // Full is not broken: it stays an error, and reading goes on.
    assert!(store.commit(bulk(made + 1)).await.is_err());
    assert_eq!(store.list(&key("")).await.unwrap(), before);

    limit_files(None);
    store.commit(puts([put(&key("after"), b"v")])).await.unwrap();
    store.commit(bulk(made + 1)).await.unwrap();
    let now = store.list(&key("")).await.unwrap();
    assert_eq!(now.entries.len(), before.entries.len() + 3);
    assert!(dir.join("state").exists());
}

#[tokio::test]
#[ignore = "limits its whole process; run by a_full_disk"]
async fn fills_the_disk() {
    let dir = child_dir();
    // SAFETY: ignoring a signal installs no handler. Past the limit, write(2)
    // then fails with EFBIG, where the signal would end the process.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    let store = open(&dir);
    let [networks, endpoints] = files(&dir);
    fill_up(&store, &dir, &endpoints, volatile).await;
    fill_up(&store, &dir, &networks, durable).await;
    let before = store.list("").await.unwrap();
    drop(store);
    assert_eq!(open(&dir).list("").await.unwrap().entries, before.entries);
}

#[test]
fn a_full_disk_is_an_error_and_is_over_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let out = child("failures::fills_the_disk", dir.path()).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_disk_too_full_to_make_the_files_leaves_none_behind() {
    let dir = tempfile::tempdir().unwrap();
    let out = child("failures::starts_on_a_full_disk", dir.path()).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "limits its whole process; run by a_disk_too_full"]
async fn starts_on_a_full_disk() {
    let dir = child_dir();
    // SAFETY: as above.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    limit_files(Some(10_000));
    let (path, reason) = failure(options(&dir));
    assert!(path.ends_with("networks.redb") && reason.contains("free some space"), "{reason}");
    assert!(!files(&dir)[0].exists() && !dir.join("state/networks.redb.new").exists());
    limit_files(None);
    let store = open(&dir);
    store.commit(puts([put(&durable("n"), b"")])).await.unwrap();
}
