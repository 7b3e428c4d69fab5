//! Pods as the API tells them.

use netd_domain::{NamedPort, PodIdentity, Protocol};
use serde_json::{Value, json};

use crate::{
    followed::News,
    pod::{Pod, PodFacts},
    pods::Pods,
};

fn facts(pod: &Value) -> PodFacts {
    PodFacts::of(serde_json::from_value::<Pod>(pod.clone()).unwrap()).unwrap()
}

fn web(uid: &str) -> Value {
    json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": uid, "labels": { "app": "web" },
        },
        "spec": { "containers": [
            { "ports": [
                { "name": "http", "containerPort": 8080 },
                { "name": "dns", "containerPort": 53, "protocol": "UDP" },
                { "containerPort": 9000 },
                { "name": "later", "containerPort": 1, "protocol": "QUIC" },
            ] },
            { "name": "without ports" },
        ], "initContainers": [
            { "ports": [{ "name": "proxy", "containerPort": 15001 }], "restartPolicy": "Always" },
            { "ports": [{ "name": "once", "containerPort": 1 }] },
        ] },
    })
}

fn identity(uid: &str) -> PodIdentity {
    PodIdentity { namespace: "shop".into(), name: "web".into(), uid: uid.into() }
}

#[test]
fn labels_named_ports_and_the_hosts_network_are_read() {
    let pod = facts(&web("u1"));
    assert_eq!(pod.identity, identity("u1"));
    assert_eq!(pod.labels.unwrap()["app"], "web");
    let port = |name: &str, port, protocol| NamedPort { name: name.into(), port, protocol };
    assert_eq!(
        pod.ports,
        [
            port("http", 8080, Protocol::Tcp),
            port("dns", 53, Protocol::Udp),
            port("proxy", 15001, Protocol::Tcp),
        ]
    );
    assert!(!pod.host_network);
    let mut of_host = web("u2");
    of_host["spec"]["hostNetwork"] = true.into();
    assert!(facts(&of_host).host_network);
}

#[test]
fn labels_for_which_a_record_has_no_room_are_not_taken() {
    let mut pod = web("u1");
    pod["metadata"]["labels"]["long"] = "x".repeat(70_000).into();
    assert_eq!(facts(&pod).labels, None);
}

/// kubelet runs a static pod under another uid than that of its mirror in the API.
#[test]
fn a_static_pod_has_the_uid_that_its_mirror_names() {
    let mut mirror = web("of-the-mirror");
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "u1" });
    let mut pods = Pods::default();
    pods.ingest(News::Listed(vec![facts(&mirror)]));
    assert!(pods.get(&identity("u1")).is_some());
    assert!(!pods.is_gone(&identity("u1")));
}

#[test]
fn only_an_api_that_answers_and_told_of_all_pods_says_that_one_is_gone() {
    let mut pods = Pods::default();
    let (one, other) = (identity("u1"), identity("u2"));
    assert!(!pods.is_gone(&one), "nothing was told yet");
    pods.ingest(News::Changed(Box::new(facts(&web("u2")))));
    assert!(!pods.is_gone(&one), "not all were told");
    pods.ingest(News::Listed(vec![facts(&web("u1")), facts(&web("u3"))]));
    assert!(!pods.is_gone(&one));
    assert!(pods.is_gone(&other));
    assert!(!pods.is_gone(&identity("")), "not of Kubernetes");
    pods.ingest(News::Deleted(Box::new(facts(&web("u1")))));
    assert!(pods.is_gone(&one));
    pods.ingest(News::Failed("refused".into()));
    assert!(!pods.is_gone(&one), "{:?}", pods.problem);
    pods.ingest(News::Works);
    assert!(pods.is_gone(&one));
    pods.ingest(News::Listed(Vec::new()));
    assert!(!pods.is_gone(&one), "the Node may have another name");
}

/// A StatefulSet's pod comes back under its name.
#[test]
fn a_pod_of_the_same_name_is_another_one() {
    let mut pods = Pods::default();
    pods.ingest(News::Listed(vec![facts(&web("u1"))]));
    pods.ingest(News::Changed(Box::new(facts(&web("u2")))));
    pods.ingest(News::Deleted(Box::new(facts(&web("u1")))));
    assert!(pods.is_gone(&identity("u1")));
    assert!(pods.get(&identity("u2")).is_some());
    let renamed = PodIdentity { name: "api".into(), ..identity("u2") };
    assert!(pods.get(&renamed).is_none());
}
