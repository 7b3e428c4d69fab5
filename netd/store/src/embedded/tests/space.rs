//! Full disks and read-only ones. The limits are a process's own, so each test runs
//! an ignored one in a process of its own.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigHandler, Signal, signal},
    },
};

use super::{
    crash::{child_command, child_dir},
    durable,
    failures::{failure, files},
    open, options, put, puts, volatile,
};
use crate::{
    Change, Store, StoreError, TxnOutcome,
    embedded::{EmbeddedOptions, EmbeddedStore},
};

fn assert_passed(out: &Output) {
    let text = String::from_utf8_lossy(&out.stdout);
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}{err}");
}

fn run(mut command: Command) {
    assert_passed(&command.output().unwrap());
}

/// In a mount namespace of its own, with the right to mount a tmpfs, root or not.
fn run_with_mounts(name: &str, dir: &Path) {
    let inner = child_command(name, dir);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]).arg(inner.get_program());
    command.args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    run(command);
}

/// Lets files grow to `limit` bytes only.
fn limit_files(limit: Option<u64>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, limit.unwrap_or(hard), hard).unwrap();
}

fn ignore_the_limits_signal() {
    // SAFETY: ignoring a signal installs no handler. Past the limit, write(2)
    // then fails with EFBIG, where the signal would end the process.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
}

/// A tmpfs at `dir` of `kilobytes`; with `MS_REMOUNT`, another size for it.
fn tmpfs(dir: &Path, kilobytes: u32, flags: MsFlags) {
    let options = format!("size={kilobytes}k");
    mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
}

/// Commits to `file` until there is no space; checks that nothing is half-made, and
/// that the store works again after `relief`.
async fn fill_up(
    store: &EmbeddedStore,
    file: &Path,
    key: fn(&str) -> String,
    relief: impl FnOnce(),
) {
    let pair =
        |n: usize| [put(&key(&format!("{n}/a")), &[7; 60_000]), put(&key(&format!("{n}/b")), b"")];
    let mut made = 0;
    let reason = loop {
        match store.commit(puts(pair(made))).await {
            Ok(TxnOutcome::Committed(_)) => made += 1,
            Err(StoreError::Failed { path, reason }) if Path::new(&path) == file => break reason,
            other => panic!("{other:?}"),
        }
        assert!(made < 1000, "the disk never filled up");
    };
    assert!(reason.contains("free some space"), "{reason}");
    let before = store.list(&key("")).await.unwrap();
    assert_eq!(before.entries.len(), 2 * made, "a part of a transaction");
    // It stays an error, and reading goes on.
    assert!(store.commit(puts(pair(made))).await.is_err());
    assert_eq!(store.list(&key("")).await.unwrap(), before);

    relief();
    store.commit(puts([put(&key("after"), b"v")])).await.unwrap();
    store.commit(puts(pair(made))).await.unwrap();
    let now = store.list(&key("")).await.unwrap();
    assert_eq!(now.entries.len(), before.entries.len() + 3);
}

#[test]
fn a_file_that_cant_grow_is_an_error_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    run(child_command("space::reaches_its_limit", dir.path()));
}

#[tokio::test]
#[ignore = "limits its process; run by a_file_that_cant_grow"]
async fn reaches_its_limit() {
    let dir = child_dir();
    ignore_the_limits_signal();
    let store = open(&dir);
    let [networks, endpoints] = files(&dir);
    for (file, key) in [(&endpoints, volatile as fn(&str) -> String), (&networks, durable)] {
        limit_files(Some(fs::metadata(file).unwrap().len() + 300_000));
        fill_up(&store, file, key, || limit_files(None)).await;
    }
    let before = store.list("").await.unwrap();
    drop(store);
    assert_eq!(open(&dir).list("").await.unwrap().entries, before.entries);
}

#[test]
fn a_full_disk_is_an_error_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    run_with_mounts("space::fills_the_disk", dir.path());
}

#[tokio::test]
#[ignore = "mounts; run by a_full_disk"]
async fn fills_the_disk() {
    for (index, key) in [(1, volatile as fn(&str) -> String), (0, durable)] {
        let dir = child_dir();
        tmpfs(&dir, 1500, MsFlags::empty());
        let store = open(&dir);
        let more = || tmpfs(&dir, 8000, MsFlags::MS_REMOUNT);
        fill_up(&store, &files(&dir)[index], key, more).await;
        let before = store.list("").await.unwrap();
        drop(store);
        assert_eq!(open(&dir).list("").await.unwrap().entries, before.entries);
    }
}

#[test]
fn a_disk_too_full_to_make_the_files_leaves_none_behind() {
    let dir = tempfile::tempdir().unwrap();
    run(child_command("space::starts_on_a_full_disk", dir.path()));
}

#[tokio::test]
#[ignore = "limits its process; run by a_disk_too_full"]
async fn starts_on_a_full_disk() {
    let dir = child_dir();
    ignore_the_limits_signal();
    limit_files(Some(10_000));
    let (path, reason) = failure(options(&dir));
    assert!(path.ends_with("networks.redb") && reason.contains("free some space"), "{reason}");
    assert!(!files(&dir)[0].exists() && !dir.join("state/networks.redb.new").exists());
    limit_files(None);
    let store = open(&dir);
    store.commit(puts([put(&durable("n"), b"")])).await.unwrap();
}

#[test]
fn a_read_only_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    run_with_mounts("space::finds_it_read_only", dir.path());
}

#[test]
#[ignore = "mounts; run by a_read_only_directory"]
fn finds_it_read_only() {
    let dir = child_dir();
    drop(open(&dir));
    let only = dir.join("state");
    tmpfs(&only, 100, MsFlags::MS_RDONLY);
    let (path, reason) = failure(EmbeddedOptions { state_dir: only.clone(), ..options(&dir) });
    assert!(Path::new(&path).starts_with(&only));
    assert!(reason.contains("make it writable"), "{reason}");
}

/// Takes all that is free on the disk.
fn fill_with_ballast(dir: &Path) {
    use std::io::Write as _;
    let ballast = fs::File::options().create(true).append(true).open(dir.join("ballast"));
    let mut ballast = ballast.unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
}

#[test]
fn what_ends_has_room_on_a_disk_that_others_have_filled() {
    let dir = tempfile::tempdir().unwrap();
    run_with_mounts("space::detaches_on_a_full_disk", dir.path());
}

#[tokio::test]
#[ignore = "mounts; run by what_ends_has_room"]
async fn detaches_on_a_full_disk() {
    const PODS: usize = 200;
    let dir = child_dir();
    let endpoint = |n: usize| format!("{}{n}/eth0", crate::keys::ENDPOINTS);
    let tombstone = |n: usize| format!("{}{n}/eth0", crate::keys::TOMBSTONES);
    tmpfs(&dir, 8000, MsFlags::empty());
    let store = open(&dir);
    for n in 0..PODS {
        store.commit(puts([put(&endpoint(n), &[b'x'; 2000])])).await.unwrap();
    }
    fill_with_ballast(&dir);
    // A big one is refused, and so, sooner or later, are small ones and longer labels; after
    // each of them others take what is free.
    for _ in 0..5 {
        assert!(store.commit(puts([put(&endpoint(999), &[b'x'; 1 << 20])])).await.is_err());
        fill_with_ballast(&dir);
    }
    let mut more = PODS;
    while store.commit(puts([put(&endpoint(more), &[b'x'; 2000])])).await.is_ok() {
        fill_with_ballast(&dir);
        more += 1;
    }
    assert!(store.commit(puts([put(&endpoint(0), &[b'x'; 1 << 20])])).await.is_err());
    fill_with_ballast(&dir);
    // netd is started again on the full disk.
    drop(store);
    let store = open(&dir);
    fill_with_ballast(&dir);
    // Detaches: of what was never attached, and then of all.
    for n in 5000..5020 {
        store.commit(puts([put(&tombstone(n), b"late")])).await.unwrap();
    }
    for n in 0..more {
        store.commit(puts([put(&endpoint(n), &[b'y'; 2100])])).await.unwrap();
        let gone = Change::Delete { key: endpoint(n) };
        store.commit(puts([gone, put(&tombstone(n), &[b't'; 300])])).await.unwrap();
    }
    assert!(store.list(crate::keys::ENDPOINTS).await.unwrap().entries.is_empty());
}
