//! Paths that callers give for a sandbox's namespace.

use std::{os::unix::net::UnixListener, path::Path, time::Instant};

use netd_dataplane::{DataplaneError, Netns, namespace};

use crate::bed::Space;

fn refused(path: &Path) -> DataplaneError {
    Netns::open(path).map(drop).unwrap_err()
}

#[test]
fn nothing_there_is_told_from_something_else_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let (dangling, looping) = (dir.path().join("dangling"), dir.path().join("loop"));
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    std::os::unix::fs::symlink("loop", &looping).unwrap();
    let start = Instant::now();
    for gone in
        ["/run/netns/no-such-sandbox", "/proc/self/ns/net/below", "", dangling.to_str().unwrap()]
    {
        let error = refused(Path::new(gone));
        assert!(matches!(error, DataplaneError::NetnsGone { .. }), "{gone}: {error}");
    }
    let long = format!("/{}", "x/".repeat(5000));
    for (path, word) in [
        (file.to_str().unwrap(), "regular file"),
        (fifo.to_str().unwrap(), "FIFO"),
        (socket.to_str().unwrap(), "socket"),
        (dir.path().to_str().unwrap(), "directory"),
        ("/dev/null", "device"),
        ("/proc/self/ns/uts", "another type"),
        ("/proc/self/ns/mnt", "another type"),
        (looping.to_str().unwrap(), "symbolic links"),
        (&long, "too long"),
        ("a\0b", "NUL byte"),
    ] {
        let error = refused(Path::new(path));
        let text = error.to_string();
        assert!(matches!(error, DataplaneError::NotANetns { .. }), "{path}: {text}");
        assert!(text.contains(word), "{text}");
    }
    assert!(start.elapsed().as_secs() < 1, "no path may block");
}

#[test]
fn the_hosts_own_namespace_is_refused() {
    for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
        assert!(matches!(refused(Path::new(path)), DataplaneError::HostNetns { .. }));
    }
}

#[test]
fn a_namespace_is_known_by_its_identity() {
    let (a, b) = (Space::new(), Space::new());
    assert_eq!(a.open().id(), a.open().id());
    assert_ne!(a.open().id(), b.open().id());
    assert_eq!(a.open().path(), a.path());
}

#[test]
fn a_thread_is_home_again_after_a_visit_and_after_a_panic() {
    let here = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let (home, away) = (here(), Space::new());
    assert_ne!(namespace::run_in(&*away.0, here).unwrap(), home);
    assert_eq!(here(), home);
    let panicked = std::panic::catch_unwind(|| namespace::run_in(&*away.0, || panic!("inside")));
    assert!(panicked.is_err());
    assert_eq!(here(), home);
}
