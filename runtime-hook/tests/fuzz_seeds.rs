//! The fuzzers' seeds, as ordinary tests: every seed of `fuzz/seeds` goes through the
//! entry point that its fuzzer has. `NETD_WRITE_SEEDS=1` writes those that are made
//! here anew; CNI's and netd's answers are written by hand.

#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use prost::Message as _;
use runtime_hook::{
    cni,
    nri::{
        self,
        codec::{mux, ttrpc},
        messages::{
            ConfigureRequest, LinuxNamespace, LinuxPodSandbox, PLUGIN_SERVICE, PodRequest,
            PodSandbox, Request, StateChangeEvent, SynchronizeRequest,
        },
    },
};

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fuzz", "seeds", target].iter().collect()
}

/// Every seed through `entry`, and whatever is left of it when it is cut off.
fn replay(target: &str, entry: fn(&[u8])) {
    let mut seen = 0;
    for file in fs::read_dir(folder(target)).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        entry(&bytes);
        for n in (0..bytes.len()).step_by(7) {
            entry(&bytes[..n]);
        }
        seen += 1;
    }
    assert!(seen > 2, "{target} has {seen} seeds");
}

#[test]
fn seeds_of_cni_configurations_are_taken() {
    replay("cni_stdin", cni::fuzzing::fuzz);
}

#[test]
fn seeds_of_nri_frames_are_taken() {
    replay("nri_frames", nri::fuzzing::fuzz);
}

#[test]
fn seeds_of_netd_s_answers_are_taken() {
    replay("netd_answers", netd_cni::rpc::fuzzing::fuzz);
}

fn pod() -> PodSandbox {
    let namespace = LinuxNamespace { r#type: "network".into(), path: "/run/netns/x".into() };
    PodSandbox {
        id: "s1".into(),
        name: "a".into(),
        namespace: "b".into(),
        uid: "c".into(),
        labels: [("app".to_owned(), "a".to_owned())].into(),
        annotations: [(
            nri::networks::ANNOTATION.to_owned(),
            r#"[{"network":"blue","interface":"eth1","addresses":["10.1.0.9"]}]"#.to_owned(),
        )]
        .into(),
        linux: Some(LinuxPodSandbox { namespaces: vec![namespace] }),
        ..Default::default()
    }
}

fn frame(method: &str, payload: Vec<u8>) -> Vec<u8> {
    let request = Request {
        service: PLUGIN_SERVICE.into(),
        method: method.into(),
        payload,
        timeout_nano: 2_000_000_000,
    };
    let message = ttrpc::encode(1, ttrpc::REQUEST, &request.encode_to_vec());
    let mut out = Vec::new();
    mux::encode(mux::PLUGIN_CONN, &message, &mut out);
    out
}

#[test]
fn seeds_are_what_this_release_writes() {
    let configure = ConfigureRequest {
        runtime_name: "containerd".into(),
        runtime_version: "v2.1.9".into(),
        request_timeout: 2000,
        ..Default::default()
    };
    let state = StateChangeEvent { event: 1, pod: Some(pod()) };
    let run = PodRequest { pod: Some(pod()) };
    let all = SynchronizeRequest { pods: vec![pod(), PodSandbox::default()], more: true };
    let seeds = [
        ("configure", frame("Configure", configure.encode_to_vec())),
        ("state_change", frame("StateChange", state.encode_to_vec())),
        ("run", frame("RunPodSandbox", run.encode_to_vec())),
        ("synchronize", frame("Synchronize", all.encode_to_vec())),
    ];
    for (name, bytes) in seeds {
        let path = folder("nri_frames").join(name);
        if std::env::var_os("NETD_WRITE_SEEDS").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        let there = fs::read(&path).unwrap();
        assert!(there == bytes, "{path:?} is stale; NETD_WRITE_SEEDS=1 writes it anew");
    }
}
