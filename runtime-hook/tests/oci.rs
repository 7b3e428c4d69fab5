//! The real binary as an OCI hook, against a fake netd.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::MetadataExt as _, process::Output};

use common::{Asked, Netd, Script, exec};
use serde_json::{Value, json};
use tonic::Status;

fn hook(netd: &Netd, args: &[&str], namespaces: Option<Value>, state: Value) -> Output {
    let bundle = netd.dir.path().join("bundle");
    fs::create_dir_all(&bundle).unwrap();
    if let Some(namespaces) = namespaces {
        let config = json!({"linux": {"namespaces": namespaces}}).to_string();
        fs::write(bundle.join("config.json"), config).unwrap();
    }
    let mut state = state;
    state["bundle"] = json!(bundle);
    state["id"] = json!("web");
    let socket = netd.socket().display().to_string();
    let mut all = vec!["oci", "--timeout", "1", "--socket", &socket];
    all.extend(args);
    exec(&all, &[], state.to_string().as_bytes())
}

fn own() -> Option<Value> {
    Some(json!([{"type": "mount"}, {"type": "network"}]))
}

fn creating() -> Value {
    json!({"ociVersion": "1.2.0", "status": "creating", "pid": std::process::id()})
}

#[test]
fn a_starting_container_is_attached_to_its_networks_in_order() {
    let netd = Netd::ready();
    let output = hook(&netd, &["--network", "blue", "--network", "red"], own(), creating());
    assert!(output.status.success(), "{output:?}");
    let [Asked::Attach(first), Asked::Attach(second)] = &netd.asked()[..] else { panic!() };
    assert_eq!((first.network.as_str(), first.interface.as_str()), ("blue", "eth0"));
    assert_eq!((second.network.as_str(), second.interface.as_str()), ("red", "eth1"));
    assert_eq!(first.netns_path, format!("/proc/{}/ns/net", std::process::id()));
    let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(netd.namespaces(), [own, own]);
    assert!(!first.no_default_route && second.no_default_route && first.issued_at > 0);
}

#[test]
fn a_container_that_is_gone_is_an_error_and_netd_is_not_asked() {
    let netd = Netd::ready();
    // Above the kernel's limit of process ids.
    let state = json!({"status": "creating", "pid": 0x7fff_ffff});
    let output = hook(&netd, &[], own(), state);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/proc/2147483647/ns/net") && said.contains("nothing"), "{said}");
    assert!(netd.asked().is_empty());
}

#[test]
fn annotations_choose_networks_addresses_and_ports() {
    let netd = Netd::ready();
    let mut state = creating();
    state["annotations"] = json!({"netd.io/network": "green", "netd.io/ip": "10.1.0.9",
        "netd.io/mac": "02:00:00:00:00:09", "netd.io/ports": "8080:80,[::1]:53:53/udp"});
    assert!(hook(&netd, &[], own(), state.clone()).status.success());
    let [Asked::Attach(asked)] = &netd.asked()[..] else { panic!() };
    assert_eq!((asked.network.as_str(), asked.mac.as_str()), ("green", "02:00:00:00:00:09"));
    assert_eq!(asked.addresses, ["10.1.0.9"]);
    assert_eq!(asked.port_mappings[1].host_ip, "::1");
    state["annotations"]["netd.io/ports"] = json!("nonsense");
    let output = hook(&netd, &[], own(), state);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("netd.io/ports"));
}

#[test]
fn a_pod_s_container_is_attached_as_that_pod_s() {
    let joined = Some(json!([{"type": "network", "path": common::NETNS}]));
    for (namespace, name) in [
        ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name"),
        ("io.kubernetes.cri-o.Namespace", "io.kubernetes.cri-o.KubeName"),
        ("io.kubernetes.pod.namespace", "io.kubernetes.pod.name"),
    ] {
        let netd = Netd::ready();
        let mut state = creating();
        state["annotations"] =
            json!({"netd.io/network": "green,red", namespace: "shop", name: "web"});
        assert!(hook(&netd, &[], joined.clone(), state.clone()).status.success());
        let [Asked::Attach(first), Asked::Attach(second)] = &netd.asked()[..] else { panic!() };
        for asked in [first, second] {
            let pod = asked.pod.clone().unwrap();
            assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("shop", "web"), "{namespace}");
        }
        // A pod's author could add another runtime's key.
        state["annotations"]["io.kubernetes.pod.namespace"] = json!("kube-system");
        state["annotations"]["io.kubernetes.cri.sandbox-namespace"] = json!("shop");
        let output = hook(&netd, &[], joined.clone(), state);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("kube-system"));
    }
}

#[test]
fn annotations_of_netd_that_nothing_reads_are_refused() {
    let netd = Netd::ready();
    let joined = Some(json!([{"type": "network", "path": common::NETNS}]));
    for (namespaces, key, right) in [
        (own(), "netd.io/netwrok", "netd.io/network"),
        (joined.clone(), "netd.io/netwrok", "netd.io/network"),
        (own(), "netd.io/networks", "netd.io/network"),
        (own(), "netd.io/port", "netd.io/ports"),
        (own(), "netd.io/frobnicate", "netd.io/network"),
    ] {
        let mut state = creating();
        state["annotations"] = json!({key: "blue"});
        let output = hook(&netd, &[], namespaces, state);
        assert_eq!(output.status.code(), Some(1), "{key}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(key) && said.contains(right), "{said}");
    }
    assert!(netd.asked().is_empty());
    // A pod's, which the NRI front reads.
    let mut state = creating();
    state["annotations"] = json!({"netd.io/networks": "blue"});
    assert!(hook(&netd, &[], joined, state).status.success());
    // Nothing keeps a container from being detached.
    let state = json!({"status": "stopped", "pid": 0, "annotations": {"netd.io/netwrok": "x"}});
    assert!(hook(&netd, &[], own(), state).status.success());
    assert!(matches!(netd.asked()[..], [Asked::Detach(_)]));
}

#[test]
fn the_host_s_and_a_joined_namespace_are_left_alone() {
    let netd = Netd::ready();
    let host = json!([{"type": "mount"}]);
    let joined = json!([{"type": "network", "path": common::NETNS}]);
    for status in ["creating", "stopped"] {
        let state = json!({"status": status, "pid": 42});
        assert!(hook(&netd, &[], Some(host.clone()), state.clone()).status.success());
        assert!(hook(&netd, &[], Some(joined.clone()), state).status.success());
    }
    assert!(netd.asked().is_empty());
    let mut state = creating();
    state["annotations"] = json!({"netd.io/network": "green"});
    assert!(hook(&netd, &[], Some(joined), state).status.success());
    let [Asked::Attach(asked)] = &netd.asked()[..] else { panic!() };
    assert_eq!(asked.netns_path, common::NETNS);
}

#[test]
fn a_stopped_container_is_detached_even_without_its_bundle() {
    let netd = Netd::ready();
    let state = json!({"status": "stopped", "pid": 0, "annotations": {"netd.io/ip": "junk"}});
    for _ in 0..2 {
        assert!(hook(&netd, &[], None, state.clone()).status.success());
    }
    let [Asked::Detach(asked), Asked::Detach(_)] = &netd.asked()[..] else { panic!() };
    assert_eq!((asked.sandbox_id.as_str(), asked.interface.as_str()), ("web", ""));
}

#[test]
fn a_half_made_attach_is_undone_and_reported() {
    let refuse = Some(Status::not_found("there is no network red"));
    let netd = Netd::start(Script { refuse, grace: 1, ..Script::default() });
    let output = hook(&netd, &["--network", "blue", "--network", "red"], own(), creating());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no network red"));
    assert!(matches!(netd.asked()[..], [Asked::Attach(_), Asked::Attach(_), Asked::Detach(_)]));
}

#[test]
fn a_bundle_that_can_t_be_read_stops_a_start() {
    let netd = Netd::ready();
    let output = hook(&netd, &[], None, creating());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("config.json"));
    let output = exec(&["oci"], &[], b"{");
    assert_eq!(output.status.code(), Some(1));
}
