//! The real binary as a CNI plugin, against a fake netd.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use common::{Asked, Netd, Script, cni, cni_with, code, exec, json};
use netd_api::v1::Protocol;
use serde_json::{Value, json};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn config(netd: &Netd, version: &str) -> Value {
    json!({"cniVersion": version, "name": "netd", "type": "netd-hook", "socket": netd.socket()})
}

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn add_answers_in_the_form_of_every_version() {
    let netd = Netd::ready();
    for version in VERSIONS {
        let output = cni("ADD", &config(&netd, version));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(json(&output), golden(&format!("add-{version}.json")), "{version}");
    }
}

#[test]
fn the_namespace_itself_is_handed_over_and_what_is_none_is_code_4() {
    let netd = Netd::ready();
    let config = config(&netd, "1.1.0");
    // Wherever the runtime is, the path means what it means to the plugin.
    let mut config_with_result = config.clone();
    config_with_result["prevResult"] = json(&cni("ADD", &config));
    assert!(cni("CHECK", &config_with_result).status.success());
    assert!(cni("DEL", &config).status.success());
    let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(netd.namespaces(), [own, own]);
    let asked = netd.asked().len();
    for bad in ["/nonexistent", "/", "/dev/null", "/dev/tty", "/proc/self/status/x"] {
        for command in ["ADD", "CHECK"] {
            let output = cni_with(command, &config_with_result, &[("CNI_NETNS", bad)]);
            assert_eq!(code(&output), 4, "{bad}");
            let said = json(&output)["msg"].as_str().unwrap().to_owned();
            assert!(said.contains("CNI_NETNS") && said.contains(bad), "{said}");
        }
        assert!(cni_with("DEL", &config, &[("CNI_NETNS", bad)]).status.success(), "{bad}");
    }
    assert_eq!(netd.asked().len(), asked + 5, "DEL alone asked");
}

#[test]
fn add_on_a_routed_network_has_no_bridge() {
    let netd = Netd::start(Script { routed: true, ..Script::default() });
    let output = cni("ADD", &config(&netd, "1.1.0"));
    assert_eq!(json(&output), golden("add-routed-1.1.0.json"));
}

#[test]
fn a_chained_add_keeps_what_came_before() {
    let netd = Netd::ready();
    let mut config = config(&netd, "1.0.0");
    config["prevResult"] = json!({"cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "sandbox": common::NETNS, "x": 1}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "routes": [{"dst": "192.0.2.0/24", "priority": 5}],
        "dns": {"domain": "before.test", "search": ["x"]}});
    config["dns"] = json!({"search": ["own.test"]});
    assert_eq!(json(&cni("ADD", &config)), golden("add-chained-1.0.0.json"));
    // One of an earlier version is converted; see strict.rs.
    config["prevResult"]["cniVersion"] = json!("0.4.0");
    config["prevResult"]["ips"][0]["version"] = json!("4");
    assert_eq!(json(&cni("ADD", &config)), golden("add-chained-1.0.0.json"));
}

#[test]
fn add_tells_netd_all_that_containerd_says() {
    let netd = Netd::ready();
    let mut config = config(&netd, "1.0.0");
    config["network"] = json!("blue");
    config["runtimeConfig"] = json!({
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "sctp", "HostIP": ""}],
        "bandwidth": {"IngressRate": 1000, "IngressBurst": 2000, "EgressRate": 0, "EgressBurst": 0},
        "dns": {"Servers": ["192.0.2.53"], "Searches": ["a.test"], "Options": null},
        "cgroupPath": "/kubepods/x",
        "io.kubernetes.cri.pod-annotations": {"k": "v"}});
    let args = "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=abc;\
                K8S_POD_NAME=web;FOO=1;K8S_POD_NAMESPACE=shop;IP=10.88.0.9;MAC=0a:58:0a:58:00:09";
    let output = cni_with("ADD", &config, &[("CNI_ARGS", args)]);
    assert!(output.status.success(), "{output:?}");
    let [Asked::Attach(asked)] = &netd.asked()[..] else { panic!("{:?}", netd.asked()) };
    assert_eq!((asked.sandbox_id.as_str(), asked.interface.as_str()), ("abc", "eth0"));
    assert_eq!((asked.netns_path.as_str(), asked.network.as_str()), (common::NETNS, "blue"));
    let pod = asked.pod.clone().unwrap();
    assert_eq!((pod.namespace, pod.name, pod.uid), ("shop".into(), "web".into(), "u".into()));
    assert_eq!(asked.addresses, ["10.88.0.9"]);
    assert_eq!(asked.mac, "0a:58:0a:58:00:09");
    assert_eq!(asked.annotations["k"], "v");
    assert_eq!(asked.port_mappings[0].protocol, Protocol::Sctp as i32);
    assert_eq!(asked.bandwidth.unwrap().ingress_burst, 2000);
    assert_eq!(json(&output)["dns"], json!({"nameservers": ["192.0.2.53"], "search": ["a.test"]}));
    assert!(asked.issued_at > 0 && asked.issued_at <= runtime_hook::clock::boottime_ns());
}

#[test]
fn del_needs_neither_namespace_nor_sound_capabilities() {
    let netd = Netd::ready();
    let mut config = config(&netd, "0.3.1");
    config["runtimeConfig"] = json!({"portMappings": "junk"});
    config["prevResult"] = json!(7);
    let output = cni_with("DEL", &config, &[("CNI_NETNS", ""), ("CNI_ARGS", "junk")]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let [Asked::Detach(asked)] = &netd.asked()[..] else { panic!("{:?}", netd.asked()) };
    assert_eq!((asked.sandbox_id.as_str(), asked.interface.as_str()), ("abc", "eth0"));
    assert!(asked.issued_at > 0);
}

#[test]
fn check_agrees_with_the_add_s_own_result_in_every_version_that_has_it() {
    let netd = Netd::ready();
    for version in &VERSIONS[2..] {
        let mut config = config(&netd, version);
        config["prevResult"] = json(&cni("ADD", &config));
        let output = cni("CHECK", &config);
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
    let Some(Asked::Check(asked)) = netd.asked().pop() else { panic!("no check") };
    assert_eq!((asked.sandbox_id, asked.netns_path), ("abc".into(), common::NETNS.into()));
}

#[test]
fn check_names_every_difference() {
    let netd = Netd::ready();
    let base = golden("add-1.1.0.json");
    let mac = "02:00:00:00:00:09";
    let cases = [
        ("/interfaces/2/name", json!("eth7"), "interface eth0 is not in prevResult"),
        ("/interfaces/1/name", json!("veth7"), "interface nv0123456789ab is not in prevResult"),
        ("/interfaces/0/mac", json!(mac), "interface cni0 has MAC"),
        ("/ips/0/address", json!("10.88.0.6/16"), "address 10.88.0.5/16 is not in prevResult"),
        ("/ips/0/address", json!("10.88.0.6/16"), "netd does not know address \"10.88.0.6/16\""),
        ("/ips/1/gateway", json!("fd00:88::2"), "has gateway \"fd00:88::1\""),
    ];
    for (pointer, value, problem) in cases {
        let mut config = config(&netd, "1.1.0");
        let mut prev = base.clone();
        *prev.pointer_mut(pointer).unwrap() = value;
        config["prevResult"] = prev;
        let output = cni("CHECK", &config);
        assert_eq!(code(&output), 105, "{pointer}");
        let error = json(&output)["msg"].as_str().unwrap().to_owned();
        assert!(error.contains(problem), "{problem} in {error}");
    }
}

#[test]
fn what_later_plugins_of_the_chain_changed_or_added_is_no_difference() {
    let netd = Netd::ready();
    let base = golden("add-1.1.0.json");
    let cases = [
        ("/interfaces/2/mac", json!("02:00:00:00:00:09")),
        ("/interfaces/2/mtu", json!(9000)),
        ("/interfaces/2/sandbox", json!("/var/run/netns/abc")),
        ("/routes/0/gw", json!("10.88.0.2")),
        ("/routes", json!([])),
        ("/routes", json!([{"dst": "10.9.0.0/16", "gw": "10.88.0.9"}])),
    ];
    let mut all: Vec<Value> = cases
        .into_iter()
        .map(|(pointer, value)| {
            let mut prev = base.clone();
            *prev.pointer_mut(pointer).unwrap() = value;
            prev
        })
        .collect();
    let mut more = base.clone();
    more["ips"].as_array_mut().unwrap().push(json!({"address": "10.7.0.5/16", "interface": 2}));
    more["interfaces"].as_array_mut().unwrap().push(json!({"name": "tap0", "sandbox": "/x"}));
    all.push(more);
    for prev in all {
        let mut config = config(&netd, "1.1.0");
        config["prevResult"] = prev.clone();
        let output = cni("CHECK", &config);
        assert!(output.status.success(), "{prev}: {output:?}");
    }
}

#[test]
fn check_needs_a_previous_result() {
    let netd = Netd::ready();
    assert_eq!(code(&cni("CHECK", &config(&netd, "1.0.0"))), 7);
    assert!(netd.asked().is_empty());
}

#[test]
fn status_says_whether_netd_is_ready() {
    let netd = Netd::ready();
    let output = cni("STATUS", &config(&netd, "1.1.0"));
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let netd = Netd::start(Script { starting: true, ..Script::default() });
    let output = cni("STATUS", &config(&netd, "1.1.0"));
    assert_eq!(json(&output), golden("status-not-ready.json"));
    assert_eq!(code(&output), 50);
}

#[test]
fn status_asks_about_its_own_network_and_tells_whether_running_pods_suffer() {
    for (component, expected) in [
        ("attach/blue", 50),
        ("store", 50),
        ("network/red", 50),
        ("network/blue", 51),
        ("firewall", 51),
        ("overlay", 51),
    ] {
        let waiting = Some(component.to_owned());
        let netd = Netd::start(Script { waiting, ..Script::default() });
        let mut config = config(&netd, "1.1.0");
        config["network"] = json!("blue");
        let output = cni("STATUS", &config);
        assert_eq!(code(&output), expected, "{component}");
        let error = json(&output)["msg"].as_str().unwrap().to_owned();
        assert!(error.contains(component) && error.contains("it waits"), "{error}");
        let [Asked::Status(asked)] = &netd.asked()[..] else { panic!("{:?}", netd.asked()) };
        assert_eq!(asked.network, "blue");
    }
}

#[test]
fn gc_gives_netd_the_whole_set_of_this_network() {
    let netd = Netd::ready();
    let mut config = config(&netd, "1.1.0");
    config["network"] = json!("blue");
    config["cni.dev/valid-attachments"] = json!([
        {"containerID": "b", "ifname": "eth0"}, {"containerID": "a", "ifname": "eth0"}]);
    let output = cni("GC", &config);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let [Asked::Synchronize(asked)] = &netd.asked()[..] else { panic!("{:?}", netd.asked()) };
    let ids: Vec<&str> = asked.sandboxes.iter().map(|s| s.id.as_str()).collect();
    assert_eq!((ids, asked.network.as_str(), asked.authoritative), (vec!["a", "b"], "blue", true));
}

#[test]
fn a_command_that_the_version_does_not_have_is_refused() {
    let netd = Netd::ready();
    for (command, version) in [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")] {
        assert_eq!(code(&cni(command, &config(&netd, version))), 1, "{command}");
    }
    for version in ["0.1.0", "0.2.0", "1.2.0", "2", ""] {
        assert_eq!(code(&cni("ADD", &config(&netd, version))), 1, "{version}");
    }
    assert!(netd.asked().is_empty());
}

#[test]
fn version_is_answered_with_and_without_configuration() {
    let env = [("CNI_COMMAND", "VERSION")];
    let ask = |stdin: &str| json(&exec(&[], &env, stdin.as_bytes()));
    assert_eq!(ask(""), golden("version.json"));
    assert_eq!(ask(r#"{"cniVersion": "9.9.9"}"#), golden("version.json"));
    assert_eq!(ask(r#"{"cniVersion": "0.4.0"}"#)["cniVersion"], "0.4.0");
}

#[test]
fn without_a_front_it_says_what_it_is() {
    let output = exec(&[], &[], b"");
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("CNI plugin"));
    let explicit = exec(&["cni"], &[], b"");
    assert_eq!(code(&explicit), 4);
    let version = exec(&["version"], &[], b"");
    assert!(String::from_utf8(version.stdout).unwrap().contains("1.1.0"));
}
