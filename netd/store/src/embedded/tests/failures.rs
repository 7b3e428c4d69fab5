//! Damaged files, directories that can't be made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{durable, open, options, put, puts, value, volatile};
use crate::{
    Store, StoreError,
    embedded::{EmbeddedOptions, EmbeddedStore},
};

pub(super) fn files(dir: &Path) -> [PathBuf; 2] {
    [dir.join("state/networks.redb"), dir.join("run/endpoints.journal")]
}

/// A closed store with an entry in each file.
async fn filled(dir: &Path) {
    let store = open(dir);
    store.commit(puts([put(&durable("n"), &[1; 3000])])).await.unwrap();
    store.commit(puts([put(&volatile("e"), &[2; 3000])])).await.unwrap();
}

pub(super) fn failure(options: EmbeddedOptions) -> (String, String) {
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
            (
                "junk",
                (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
            ),
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
