//! Which crate may know which: `netd` -> `cluster` -> `store` -> `domain` and
//! `netd` -> `dataplane` -> `domain`.

use std::{fs, path::PathBuf};

use crate::workspace::{cargo, package_named, packages, rust_files};

/// The workspace's packages that each of these may depend on.
const ARROWS: [(&str, &[&str]); 5] = [
    ("netd-domain", &[]),
    ("netd-dataplane", &["netd-domain"]),
    ("netd-store", &["netd-domain"]),
    ("netd-cluster", &["netd-domain", "netd-store"]),
    ("netd-kubernetes", &["netd-domain", "netd-store", "netd-cluster"]),
];

/// Crates that do I/O, talk to the kernel or to other processes.
const OUTSIDE: [&str; 12] = [
    "tokio",
    "tonic",
    "prost",
    "hyper",
    "nix",
    "libc",
    "rustix",
    "socket2",
    "netlink-packet-core",
    "etcd-client",
    "redb",
    "netd-api",
];

/// What of the standard library does I/O.
const STD_OUTSIDE: [&str; 7] = [
    "std::fs",
    "std::process",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::env",
    "std::thread",
];

#[test]
fn dependencies_go_down_only() {
    let ours: Vec<String> = packages().into_iter().map(|p| p.name).collect();
    for (name, below) in ARROWS {
        for dependency in package_named(name).dependencies {
            let allowed = !ours.contains(&dependency) || below.contains(&dependency.as_str());
            assert!(allowed, "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn the_domain_does_no_io() {
    assert_without("netd-domain", &OUTSIDE);
    for (place, line) in lines("netd-domain") {
        let found = STD_OUTSIDE.iter().find(|path| has(&line, path));
        assert_eq!(found, None, "{place}: {line}");
    }
}

#[test]
fn the_dataplane_speaks_no_grpc_and_keeps_no_store() {
    assert_without(
        "netd-dataplane",
        &["tonic", "prost", "hyper", "etcd-client", "redb", "netd-api", "netd-store"],
    );
}

#[test]
fn only_one_file_of_the_store_reads_grpc_codes() {
    for (place, line) in lines("netd-store") {
        let reads_codes = place.contains("etcd/error.rs");
        assert!(reads_codes || !has(&line, "tonic"), "{place}: {line}");
    }
}

/// That `name` does not have these crates, not even through another crate.
fn assert_without(name: &str, forbidden: &[&str]) {
    let tree = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", name];
    for line in cargo(&tree).lines() {
        let dependency = line.split(' ').next().unwrap();
        assert!(!forbidden.contains(&dependency), "{name} must not depend on {dependency}");
    }
}

/// Every line of code of a package's sources, without comments, with where it is.
fn lines(package: &str) -> Vec<(String, String)> {
    let numbered = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"));
        let place =
            |(n, line): (usize, &str)| (format!("{}:{}", path.display(), n + 1), line.to_owned());
        lines.map(place).collect::<Vec<_>>()
    };
    rust_files(&package_named(package).folder.join("src")).into_iter().flat_map(numbered).collect()
}

/// Whether `line` has `path`, and not as the end of a longer word.
fn has(line: &str, path: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(inside))
}
