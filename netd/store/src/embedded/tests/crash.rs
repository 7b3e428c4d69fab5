//! SIGKILL at random moments: what was reported as committed is there, whole.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use proptest::prelude::Rng;

use super::{durable, open, options, put, puts, value, volatile};
use crate::{Change, Store, TxnOutcome, embedded::EmbeddedStore};

/// Set for the process that is killed: the directory it works in.
const DIR: &str = "NETD_TEST_CRASH_DIR";
const ROUNDS: u32 = 50;

/// This test binary once more, to run only the ignored test `name`.
pub(super) fn child_command(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture"]);
    command.arg(format!("embedded::tests::{name}")).env(DIR, dir);
    command
}

/// The directory of a child process.
pub(super) fn child_dir() -> std::path::PathBuf {
    std::env::var_os(DIR).expect("only run by another test").into()
}

/// Transaction `n`: three keys that always change together, one that comes and goes.
fn step(n: u64) -> Vec<Change> {
    let key = |name: &str| if n.is_multiple_of(8) { durable(name) } else { volatile(name) };
    let text = n.to_string();
    // Sizes vary, so that pages split and merge.
    let bulk = vec![b'x'; (n % 37) as usize * 97];
    let mut changes: Vec<_> = ["a", "b", "c"].map(|k| put(&key(k), text.as_bytes())).into();
    changes.push(put(&key(&format!("bulk/{}", n % 64)), &bulk));
    let old = key(&format!("flip/{}", n.wrapping_sub(16)));
    changes.extend([put(&key(&format!("flip/{n}")), b""), Change::Delete { key: old }]);
    changes
}

/// Commits on and on from the number that its standard input names, and says so.
#[tokio::test]
#[ignore = "the process that is killed; run by killed_at_any_moment"]
async fn committer() {
    let store = open(&child_dir());
    let mut first = String::new();
    std::io::stdin().read_line(&mut first).unwrap();
    // Not println: that is buffered by the test harness. Not /dev/stdout: not every
    // machine has it, and a root's open makes a file of that name then.
    let mut out = File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    for n in first.trim().parse::<u64>().unwrap().. {
        let outcome = store.commit(puts(step(n))).await.unwrap();
        let TxnOutcome::Committed(revision) = outcome else { panic!("{outcome:?}") };
        writeln!(out, "committed {n} {revision}").unwrap();
    }
}

/// Lets a committer work for `time` and kills it; the last it reported.
fn run_and_kill(dir: &Path, first: u64, time: Duration) -> Option<(u64, i64)> {
    let mut command = child_command("crash::committer", dir);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{first}").unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (mut killed, mut since, mut last) = (false, None, None);
    for line in out.split(b'\n') {
        // The harness's own lines, and one cut off in the middle, are no reports.
        let line = String::from_utf8(line.unwrap()).unwrap();
        let mut words = line.split(' ');
        if words.next() == Some("committed")
            && let (Some(n), Some(revision)) = (words.next(), words.next())
            && let (Ok(n), Ok(revision)) = (n.parse(), revision.parse())
        {
            last = Some((n, revision));
        }
        if !killed && since.get_or_insert_with(Instant::now).elapsed() >= time {
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(!child.wait().unwrap().success() && killed, "the child ended by itself");
    last
}

async fn number(store: &EmbeddedStore, key: &str) -> Option<u64> {
    value(store, key).await.map(|v| String::from_utf8(v).unwrap().parse().unwrap())
}

/// Each class on its own: its three keys are one transaction's, and no other's.
async fn check_whole(store: &EmbeddedStore) -> u64 {
    let mut newest = 0;
    for key in [durable as fn(&str) -> String, volatile] {
        let Some(n) = number(store, &key("a")).await else { continue };
        for change in step(n) {
            match change {
                Change::Put { key, value: put, .. } => {
                    assert_eq!(value(store, &key).await, Some(put), "{key} of {n}");
                }
                Change::Delete { key } => assert_eq!(value(store, &key).await, None, "{key}"),
            }
        }
        newest = newest.max(n);
    }
    newest
}

#[tokio::test]
async fn killed_at_any_moment_keeps_every_reported_commit_and_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = proptest::test_runner::TestRng::from_seed(
        proptest::test_runner::RngAlgorithm::ChaCha,
        &[7; 32],
    );
    let (mut at, mut reported) = (0, 0);
    for round in 0..ROUNDS {
        let time = Duration::from_micros(u64::from(rng.next_u32() % 30_000));
        let last = run_and_kill(dir.path(), at + 1, time);
        let store = EmbeddedStore::open(options(dir.path())).unwrap();
        let newest = check_whole(&store).await;
        let revision = store.list("").await.unwrap().revision;
        if let Some((n, committed)) = last {
            assert!(newest >= n, "round {round}: {n} was committed, {newest} is there");
            assert!(newest <= n + 1, "round {round}: {newest} after {n}");
            assert!(revision >= committed, "round {round}: {revision} after {committed}");
            reported += n - at;
        }
        at = newest.max(at);
        drop(store);
    }
    assert!(reported > u64::from(ROUNDS) * 5, "only {reported} commits in {ROUNDS} rounds");
}
