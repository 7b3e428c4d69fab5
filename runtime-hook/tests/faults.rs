//! netd refuses, hangs, dies, talks nonsense or is not there.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    time::Instant,
};

use common::{Netd, Script, cni, code, json};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

fn config(socket: &Path) -> Value {
    json!({"cniVersion": "1.1.0", "name": "netd", "type": "netd-hook",
           "socket": socket, "timeout": 1, "cni.dev/valid-attachments": []})
}

#[test]
fn an_absent_netd_is_try_again_later_but_for_status_not_available() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("hook.sock");
    for (command, expected) in [("ADD", 11), ("DEL", 11), ("GC", 11), ("STATUS", 50)] {
        let output = cni(command, &config(&socket));
        assert_eq!(code(&output), expected, "{command}");
        let error = json(&output).to_string();
        assert!(error.contains("hook.sock") && error.contains("systemctl status netd"), "{error}");
    }
    // A socket that nobody listens on: netd died.
    drop(UnixListener::bind(&socket).unwrap());
    let output = cni("ADD", &config(&socket));
    assert_eq!(code(&output), 11);
    assert!(json(&output)["msg"].as_str().unwrap().contains("nobody listens"));
}

#[test]
fn a_netd_that_does_not_answer_is_given_up_in_time() {
    let netd = Netd::start(Script { hang: true, ..Script::default() });
    for (command, expected) in [("ADD", 11), ("DEL", 11), ("STATUS", 50)] {
        let start = Instant::now();
        let output = cni(command, &config(&netd.socket()));
        assert_eq!(code(&output), expected, "{command}");
        assert!(json(&output).to_string().contains("within 1s"), "{output:?}");
        assert!(start.elapsed().as_millis() < 2500, "{:?}", start.elapsed());
    }
}

#[test]
fn a_connection_that_breaks_or_talks_nonsense_is_reported_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    for nonsense in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0; 4096]] {
        let dir = dir.path().join(nonsense.len().to_string());
        std::fs::create_dir(&dir).unwrap();
        let socket = dir.join("hook.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            // Reads the call, so that the close is no reset of unread bytes.
            drop(peer.read(&mut [0; 4096]));
            drop(peer.write_all(nonsense));
        });
        let output = cni("ADD", &config(&socket));
        server.join().unwrap();
        assert_eq!(code(&output), 11, "{output:?}");
        assert!(json(&output)["msg"].as_str().unwrap().contains("netd at"), "{output:?}");
    }
}

#[test]
fn refusals_keep_reason_metadata_and_violations() {
    let mut details = ErrorDetails::new();
    let metadata = HashMap::from([("pool".into(), "10.88.0.0/30".into())]);
    details.set_error_info("POOL_EXHAUSTED", "netd", metadata);
    let full = Status::with_error_details(Code::ResourceExhausted, "the pool is full", details);
    let output = cni("ADD", &config(&Netd::refusing(full).socket()));
    assert_eq!(code(&output), 11);
    let error = json(&output);
    assert_eq!(error["msg"], "netd refused Attach (POOL_EXHAUSTED): the pool is full");
    assert_eq!(error["details"], "ResourceExhausted; POOL_EXHAUSTED; pool=10.88.0.0/30");

    for (field, expected) in [("netns_path", 4), ("addresses[0]", 7)] {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation(field, "is no good");
        let bad = Status::with_error_details(Code::InvalidArgument, "invalid request", details);
        let output = cni("ADD", &config(&Netd::refusing(bad).socket()));
        assert_eq!(code(&output), expected);
        assert!(json(&output)["details"].as_str().unwrap().contains(field));
    }
}

#[test]
fn every_status_code_has_its_cni_code() {
    let cases = [
        (Status::already_exists("x"), "ADD", 100),
        (Status::failed_precondition("x"), "ADD", 101),
        (Status::not_found("no such network"), "ADD", 7),
        (Status::unavailable("x"), "ADD", 11),
        (Status::permission_denied("x"), "ADD", 102),
        (Status::internal("x"), "ADD", 103),
        (Status::unimplemented("x"), "ADD", 104),
        (Status::internal("x"), "DEL", 103),
        (Status::unavailable("x"), "DEL", 11),
        (Status::unavailable("x"), "STATUS", 50),
    ];
    for (status, command, expected) in cases {
        let netd = Netd::refusing(status.clone());
        assert_eq!(code(&cni(command, &config(&netd.socket()))), expected, "{status} {command}");
        assert_eq!(netd.asked().len(), 1, "a call is made once");
    }
}

#[test]
fn a_del_of_nothing_succeeds_and_a_check_of_nothing_is_an_unknown_container() {
    let netd = Netd::refusing(Status::not_found("no such endpoint"));
    let mut config = config(&netd.socket());
    assert!(cni("DEL", &config).status.success());
    config["prevResult"] = json!({});
    assert_eq!(code(&cni("CHECK", &config)), 3);
}

#[test]
fn an_answer_without_an_endpoint_is_no_success() {
    let netd = Netd::start(Script { empty: true, ..Script::default() });
    let output = cni("ADD", &config(&netd.socket()));
    assert_eq!(code(&output), 103);
}
