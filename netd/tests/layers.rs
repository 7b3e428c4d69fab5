//! The direction of dependencies inside netd, read from the source: what clippy's
//! lists can't say.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

/// Every line of Rust below `folder` that is no comment, with where it is.
fn lines(folder: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let place = |(n, line): (usize, &str)| {
                    (format!("{}: line {n} of the code", path.display()), line.to_owned())
                };
                all.extend(code.enumerate().map(place));
            }
        }
    }
    assert!(!all.is_empty(), "{folder} has no code");
    all
}

/// Whether `line` has `path`, and not as the end of a longer word.
fn has(line: &str, path: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(inside))
}

fn assert_none(folder: &str, forbidden: &[&str]) {
    for (place, line) in lines(folder) {
        let found = forbidden.iter().find(|path| has(&line, path));
        assert_eq!(found, None, "{place}: {line}");
    }
}

/// Crates that do I/O or talk to somebody.
const OUTSIDE: [&str; 9] = [
    "tokio",
    "tonic",
    "redb::",
    "netd_api",
    "netlink_packet",
    "nix::",
    "libc::",
    "std::fs",
    "std::net::Tcp",
];

#[test]
fn the_domain_knows_nothing_but_itself() {
    assert_none("domain", &OUTSIDE);
    let own = "crate::domain";
    for (place, line) in lines("domain") {
        let inside = !line.contains("crate::") || line.contains(own);
        assert!(inside, "{place}: {line}");
    }
}

#[test]
fn address_management_is_pure_and_knows_the_domain_only() {
    assert_none("ipam", &OUTSIDE);
    let above = ["store", "dataplane", "usecase", "api", "app", "cli", "config", "metrics"];
    let above: Vec<String> = above.iter().map(|name| format!("crate::{name}")).collect();
    assert_none("ipam", &above.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn the_dataplane_and_the_store_know_no_use_case() {
    for folder in ["dataplane", "store"] {
        assert_none(folder, &["crate::usecase", "crate::api", "crate::app", "netd_api"]);
        for (place, line) in lines(folder) {
            // etcd's answers carry gRPC's codes; one file reads them.
            let reads_codes = place.contains("store/etcd/failure.rs");
            assert!(reads_codes || !has(&line, "tonic"), "{place}: {line}");
        }
    }
}
