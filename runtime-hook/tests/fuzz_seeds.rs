//! The fuzzers' seeds, as ordinary tests: every seed of `fuzz/seeds` goes through the
//! entry point that its fuzzer has. `NETD_WRITE_SEEDS=1` writes those that are made
//! here again; CNI's are written by hand.

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
use tonic_types::StatusExt as _;

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
        ..Request::default()
    };
    let message = ttrpc::encode(1, ttrpc::REQUEST, &request.encode_to_vec());
    let mut out = Vec::new();
    mux::encode(mux::PLUGIN_CONN, &message, &mut out);
    out
}

/// The size of the pieces, less one, and netd's bytes.
fn answers() -> [(&'static str, Vec<u8>); 5] {
    let sent = |pieces: u8, frames: Vec<Vec<u8>>| [vec![pieces], frames.concat()].concat();
    let answer =
        |response: ttrpc::Response| ttrpc::encode(1, ttrpc::RESPONSE, &response.encode_to_vec());
    let endpoint = netd_api::v1::Endpoint { sandbox_id: "s1".into(), ..Default::default() };
    let attached = netd_api::v1::AttachResponse { endpoint: Some(endpoint) }.encode_to_vec();
    let success = answer(ttrpc::Response { status: None, payload: attached });
    let violation = tonic_types::ErrorDetails::with_bad_request_violation("mac", "is no good");
    let status = tonic::Status::with_error_details(tonic::Code::InvalidArgument, "no", violation);
    let status = ttrpc::Status::decode(status.details()).ok();
    let refusal = answer(ttrpc::Response { status, payload: Vec::new() });
    let too_long = vec![0x40, 0, 0, 1, 0, 0, 0, 1, ttrpc::RESPONSE, 0];
    [
        ("success", sent(255, vec![success.clone()])),
        ("refusal", sent(255, vec![refusal.clone()])),
        ("pieces", sent(0, vec![success, refusal])),
        ("too_long", sent(255, vec![too_long])),
        ("request", sent(3, vec![ttrpc::encode(1, ttrpc::REQUEST, b"x")])),
    ]
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
    let nri = [
        ("configure", frame("Configure", configure.encode_to_vec())),
        ("state_change", frame("StateChange", state.encode_to_vec())),
        ("run", frame("RunPodSandbox", run.encode_to_vec())),
        ("synchronize", frame("Synchronize", all.encode_to_vec())),
    ];
    let nri = nri.map(|(name, bytes)| ("nri_frames", name, bytes));
    let answers = answers().map(|(name, bytes)| ("netd_answers", name, bytes));
    for (target, name, bytes) in nri.into_iter().chain(answers) {
        let path = folder(target).join(name);
        if std::env::var_os("NETD_WRITE_SEEDS").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        let there = fs::read(&path).unwrap();
        assert!(there == bytes, "{path:?} is stale; NETD_WRITE_SEEDS=1 rewrites it");
    }
}
