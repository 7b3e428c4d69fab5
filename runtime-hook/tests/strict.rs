//! What a configuration says and netd does not do is refused; a DEL works whatever it says.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::Write as _,
    os::fd::OwnedFd,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::{Asked, NETNS, Netd, cni, cni_with, code, exec, json, plugin};
use serde_json::{Value, json};

fn config(netd: &Netd) -> Value {
    json!({"cniVersion": "1.1.0", "name": "netd", "type": "netd-hook", "socket": netd.socket()})
}

fn message(output: &Output) -> String {
    json(output)["msg"].as_str().unwrap().to_owned()
}

/// Keys of other plugins' configurations, and a word of what replaces each.
fn foreign() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        // flannel
        ("delegate", json!({"isDefaultGateway": true}), "[overlay]"),
        ("subnetFile", json!("/run/flannel/subnet.env"), "[overlay]"),
        ("dataDir", json!("/var/lib/cni/flannel"), "[overlay]"),
        // bridge
        ("ipam", json!({"type": "host-local"}), "[[network.pool]]"),
        ("bridge", json!("br7"), "netd network create"),
        ("isGateway", json!(true), "always"),
        ("isDefaultGateway", json!(true), "internal"),
        ("forceAddress", json!(false), "remove it"),
        ("ipMasq", json!(true), "masquerade"),
        ("ipMasqBackend", json!("nftables"), "masquerade"),
        ("mtu", json!(1400), "mtu"),
        ("hairpinMode", json!(true), "remove it"),
        ("promiscMode", json!(true), "no promiscuous"),
        ("vlan", json!(7), "no VLANs"),
        ("vlanTrunk", json!([{"id": 7}]), "no VLANs"),
        ("preserveDefaultVlan", json!(false), "no VLANs"),
        ("macspoofchk", json!(true), "always"),
        ("portIsolation", json!(true), "isolat"),
        ("disableContainerInterface", json!(true), "netd"),
        // host-local, put beside ipam
        ("subnet", json!("10.1.0.0/16"), "[[network.pool]]"),
        ("ranges", json!([[{"subnet": "10.1.0.0/16"}]]), "[[network.pool]]"),
        ("rangeStart", json!("10.1.0.9"), "[[network.pool]]"),
        ("gateway", json!("10.1.0.1"), "[[network.pool]]"),
        ("resolvConf", json!("/etc/resolv.conf"), "dns"),
        // portmap
        ("snat", json!(true), "host ports"),
        ("masqAll", json!(true), "host ports"),
        ("conditionsV4", json!(["-s", "x"]), "host ports"),
        ("markMasqBit", json!(7), "hostport_mark"),
        // macvlan, ipvlan, host-device
        ("master", json!("eth0"), "driver"),
        ("mode", json!("bridge"), "driver"),
        ("linkInContainer", json!(true), "driver"),
        ("device", json!("eth1"), "driver"),
        // tuning, bandwidth, firewall
        ("sysctl", json!({"net.core.somaxconn": "9"}), "tuning"),
        ("ingressRate", json!(1000), "runtimeConfig.bandwidth"),
        ("ingressPolicy", json!("same-bridge"), "internal"),
        // netd's own, elsewhere
        ("ips", json!(["10.88.0.9"]), "runtimeConfig.ips"),
        ("mac", json!("0a:58:0a:58:00:09"), "runtimeConfig.mac"),
        ("portMappings", json!([]), "runtimeConfig.portMappings"),
        ("bandwidth", json!({}), "runtimeConfig.bandwidth"),
        ("plugins", json!([{"type": "netd-hook"}]), ".conflist"),
        ("pool", json!("10.1.0.0/16"), "[[network.pool]]"),
        ("masquerade", json!(false), "masquerade"),
        ("internal", json!(true), "internal"),
    ]
}

#[test]
fn keys_of_other_plugins_are_refused_and_what_replaces_them_is_said() {
    let netd = Netd::ready();
    for (key, value, word) in foreign() {
        let mut config = config(&netd);
        config["prevResult"] = json!({"cniVersion": "1.1.0"});
        config[key] = value;
        for command in ["ADD", "CHECK", "STATUS"] {
            let output = cni(command, &config);
            assert_eq!(code(&output), 7, "{command} {key}");
            let said = message(&output);
            assert!(said.contains(&format!("{key}: ")) && said.contains(word), "{said}");
        }
    }
    assert!(netd.asked().is_empty(), "nothing was attached: {:?}", netd.asked());
}

#[test]
fn a_whole_converted_conflist_is_refused_with_every_key() {
    let netd = Netd::ready();
    let mut config = config(&netd);
    for (key, value) in [
        ("bridge", json!("cni0")),
        ("isGateway", json!(true)),
        ("ipMasq", json!(true)),
        ("mtu", json!(1450)),
        ("vlan", json!(0)),
        ("ipam", json!({"type": "host-local", "subnet": "10.1.0.0/16"})),
    ] {
        config[key] = value;
    }
    let said = message(&cni("ADD", &config));
    for key in ["bridge", "isGateway", "ipMasq", "mtu", "vlan", "ipam"] {
        assert!(said.contains(&format!("{key}: ")), "{key} in {said}");
    }
}

#[test]
fn a_mistyped_key_is_refused_with_the_right_one() {
    let netd = Netd::ready();
    for (path, value, right) in [
        ("/netwrok", json!("blue"), "network"),
        ("/Network", json!("blue"), "network"),
        ("/netowrk", json!("blue"), "network"),
        ("/sokcet", json!("/x"), "socket"),
        ("/time_out", json!(5), "timeout"),
        ("/runtime_config", json!({}), "runtimeConfig"),
        ("/runtimeconfig", json!({"ips": ["10.88.0.9"]}), "runtimeConfig"),
        ("/capability", json!({"ips": true}), "capabilities"),
        ("/dns", json!({"nameserver": ["192.0.2.1"]}), "nameservers"),
        ("/dns", json!({"searches": ["a.test"]}), "search"),
        ("/runtimeConfig", json!({"portmappings": []}), "portMappings"),
        ("/runtimeConfig", json!({"ip": ["10.88.0.9"]}), "ips"),
        ("/runtimeConfig", json!({"dns": {"nameservers": ["192.0.2.1"]}}), "servers"),
        ("/runtimeConfig", json!({"bandwidth": {"ingress_rate": 1}}), "ingressRate"),
        (
            "/runtimeConfig",
            json!({"portMappings": [{"hostPort": 1, "containerPort": 1, "host_ip": "127.0.0.1"}]}),
            "hostIP",
        ),
        ("/args", json!({"cni": {"ip": ["10.88.0.9"]}}), "ips"),
        ("/args", json!({"cni": {"labels": [{"key": "a", "val": "b"}]}}), "value"),
        ("/capabilities", json!({"portMapping": true}), "portMappings"),
        ("/frobnicate", json!(1), "known keys: cniVersion"),
    ] {
        let mut config = config(&netd);
        config[&path[1..]] = value;
        let output = cni("ADD", &config);
        assert_eq!(code(&output), 7, "{path}");
        let said = message(&output);
        assert!(said.contains(&path[1..]) && said.contains(right), "{path} {right}: {said}");
    }
    assert!(netd.asked().is_empty(), "{:?}", netd.asked());
}

#[test]
fn a_capability_that_netd_does_not_have_is_refused() {
    let netd = Netd::ready();
    for (capability, word) in
        [("ipRanges", "pools"), ("infinibandGUID", "known"), ("deviceID", "known")]
    {
        let mut config = config(&netd);
        config["capabilities"] = json!({capability: true});
        let output = cni("ADD", &config);
        assert_eq!(code(&output), 7, "{capability}");
        let said = message(&output);
        assert!(said.contains(&format!("capabilities.{capability}: ")), "{said}");
        assert!(said.contains(word), "{said}");
        // What is switched off asks for nothing.
        config["capabilities"] = json!({capability: false});
        assert!(cni("ADD", &config).status.success());
    }
    let mut config = config(&netd);
    config["capabilities"] = json!({"ips": "yes"});
    assert_eq!(code(&cni("ADD", &config)), 7);
}

#[test]
fn what_runtimes_put_in_stays_legal() {
    let netd = Netd::ready();
    // libcni of containerd 1.7 and 2.1, go-cni, podman, Multus.
    let injected = [
        json!({"cniVersions": ["1.0.0", "1.1.0"], "disableCheck": true, "disableGC": false,
               "loadOnlyInlinedPlugins": true}),
        json!({"args": {"cni": {"labels": [{"key": "a", "value": "b"}]}, "podman_labels": {"a": "b"},
                        "org.example": [1]}}),
        json!({"capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true,
                                "dns": true, "cgroupPath": true,
                                "io.kubernetes.cri.pod-annotations": true}}),
        json!({"runtimeConfig": {
            "portMappings": [{"HostPort": 1, "ContainerPort": 2, "Protocol": "tcp", "HostIP": ""}],
            "bandwidth": {"IngressRate": 0, "IngressBurst": 0, "EgressRate": 0, "EgressBurst": 0},
            "dns": {"Servers": null, "Searches": null, "Options": null},
            "cgroupPath": "/kubepods/x", "aliases": null, "ipRanges": null,
            "io.kubernetes.cri.pod-annotations": {"a": "b"}}}),
        json!({"cni.dev/valid-attachments": [], "cni.dev/attachments": [], "cni.dev/new": {}}),
        json!({"dns": {}, "ipam": null, "network": "", "prevResult": null, "args": null}),
        json!({"dns": {"nameservers": null, "domain": "", "search": [], "options": []}}),
        json!({"deviceID": "0000:00:01.0", "pciBusID": "0000:00:01.0"}),
    ];
    for more in injected {
        let mut config = config(&netd);
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let output = cni("ADD", &config);
        assert!(output.status.success(), "{more}: {output:?}");
    }
}

#[test]
fn del_works_with_whatever_identifies_the_sandbox() {
    let netd = Netd::ready();
    let right = config(&netd);
    let mut broken = Vec::new();
    for (key, value, _) in foreign() {
        broken.push((key, value));
    }
    broken.extend([
        ("netwrok", json!("blue")),
        ("network", json!(7)),
        ("network", json!("A/B")),
        ("name", Value::Null),
        ("name", json!("a/b")),
        ("timeout", json!(0)),
        ("timeout", json!("soon")),
        ("cniVersion", Value::Null),
        ("cniVersion", json!("0.1.0")),
        ("cniVersion", json!("9.9.9")),
        ("cniVersion", json!(1)),
        ("prevResult", json!("junk")),
        ("prevResult", json!({"cniVersion": "9", "interfaces": 7, "ips": [1]})),
        ("runtimeConfig", json!([])),
        ("args", json!(7)),
        ("dns", json!("x")),
        ("capabilities", json!([])),
    ]);
    let asked = || netd.asked().len();
    for (key, value) in broken {
        let mut config = right.clone();
        config[key] = value;
        let before = asked();
        let output = cni("DEL", &config);
        assert!(output.status.success() && output.stdout.is_empty(), "{key}: {output:?}");
        assert_eq!(asked(), before + 1, "{key}: netd was asked");
    }
    for (variable, value) in [
        ("CNI_NETNS", ""),
        ("CNI_NETNS", "not/absolute"),
        ("CNI_ARGS", "junk"),
        ("CNI_ARGS", "IP=x"),
    ] {
        let before = asked();
        let output = cni_with("DEL", &right, &[(variable, value)]);
        assert!(output.status.success(), "{variable}={value}: {output:?}");
        assert_eq!(asked(), before + 1, "{variable}={value}");
    }
    // Without a sandbox there is nothing to remove.
    for variable in ["CNI_CONTAINERID", "CNI_IFNAME"] {
        assert_eq!(code(&cni_with("DEL", &right, &[(variable, "")])), 4, "{variable}");
    }
}

/// With no socket that can be read from the configuration, it is netd's usual one.
#[test]
fn del_without_a_readable_configuration_asks_the_usual_netd() {
    let env = [
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", "abc-strict-test"),
        ("CNI_NETNS", NETNS),
        ("CNI_IFNAME", "eth0"),
    ];
    if std::path::Path::new("/run/netd").exists() {
        return;
    }
    let socket = json!({"cniVersion": "1.0.0", "name": "n", "socket": 7}).to_string();
    for stdin in [&b""[..], b"{", b"[]", b"\xff", socket.as_bytes()] {
        let output = exec(&[], &env, stdin);
        assert_eq!(code(&output), 11, "{stdin:?}: {output:?}");
        assert!(message(&output).contains("/run/netd/hook.sock"), "{output:?}");
    }
}

#[test]
fn a_previous_result_of_another_version_is_converted() {
    let netd = Netd::ready();
    let prev = |version: &str| {
        let mut ip = json!({"address": "127.0.0.1/8", "interface": 0});
        if version < "1" {
            ip["version"] = json!("4");
        }
        json!({"cniVersion": version, "interfaces": [{"name": "lo", "sandbox": NETNS}], "ips": [ip]})
    };
    for (own, other) in
        [("1.0.0", "0.4.0"), ("1.1.0", "1.0.0"), ("0.4.0", "1.0.0"), ("1.0.0", "0.3.1")]
    {
        let mut config = config(&netd);
        config["cniVersion"] = json!(own);
        config["prevResult"] = prev(own);
        let expected = json(&cni("ADD", &config));
        config["prevResult"] = prev(other);
        let output = cni("ADD", &config);
        assert!(output.status.success(), "{own} after {other}: {output:?}");
        assert_eq!(json(&output), expected, "{own} after {other}");
        // Without a version it is the configuration's.
        config["prevResult"] = prev(own);
        config["prevResult"].as_object_mut().unwrap().remove("cniVersion");
        assert_eq!(json(&cni("ADD", &config)), expected);
        // As after the conflist's version was raised under a running pod.
        config["prevResult"] = expected.clone();
        config["prevResult"]["cniVersion"] = json!(other);
        let output = cni("CHECK", &config);
        assert!(output.status.success(), "CHECK {own} after {other}: {output:?}");
    }
    let mut config = config(&netd);
    config["prevResult"] = json!({"cniVersion": "9.9.9"});
    let output = cni("ADD", &config);
    assert_eq!(code(&output), 7);
    assert!(message(&output).contains("prevResult.cniVersion: \"9.9.9\""), "{output:?}");
}

#[test]
fn no_valid_attachments_are_an_empty_list_and_no_list_is_an_error() {
    let netd = Netd::ready();
    // Go's empty list is null.
    for (key, value) in [
        ("cni.dev/valid-attachments", Value::Null),
        ("cni.dev/valid-attachments", json!([])),
        ("cni.dev/attachments", Value::Null),
    ] {
        let mut config = config(&netd);
        config[key] = value;
        let output = cni("GC", &config);
        assert!(output.status.success(), "{key}: {output:?}");
        let Some(Asked::Synchronize(asked)) = netd.asked().pop() else { panic!("{key}") };
        assert!(asked.sandboxes.is_empty() && asked.authoritative);
    }
    let before = netd.asked().len();
    assert_eq!(code(&cni("GC", &config(&netd))), 7);
    // libcni gives the list under both names.
    let mut both = config(&netd);
    both["cni.dev/attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
    assert!(cni("GC", &both).status.success());
    let Some(Asked::Synchronize(asked)) = netd.asked().pop() else { panic!() };
    assert_eq!(asked.sandboxes[0].id, "a");
    assert_eq!(netd.asked().len(), before + 1);
}

#[test]
fn wrong_addresses_in_cni_args_are_the_environments_fault() {
    let netd = Netd::ready();
    for args in [
        "IP=nonsense",
        "IP=10.0.0.1/33",
        "IP=10.0.0.5,x",
        "MAC=zz",
        "MAC=0a:58:0a:58:00",
        "IgnoreUnknown=1;IP=::g",
    ] {
        let output = cni_with("ADD", &config(&netd), &[("CNI_ARGS", args)]);
        assert_eq!(code(&output), 4, "{args}");
        assert!(message(&output).contains("CNI_ARGS"), "{output:?}");
    }
    assert!(netd.asked().is_empty());
    // What only netd can tell is blamed on where it came from, too.
    for (field, args, expected) in [
        ("addresses[0]", "IP=10.88.0.9", 4),
        ("mac", "MAC=01:00:00:00:00:00", 4),
        ("addresses[0]", "", 7),
        ("mac", "IP=10.88.0.9", 7),
    ] {
        let mut details = tonic_types::ErrorDetails::new();
        details.add_bad_request_violation(field, "is no good");
        use tonic_types::StatusExt as _;
        let bad = tonic::Status::with_error_details(tonic::Code::InvalidArgument, "no", details);
        let output = cni_with("ADD", &config(&Netd::refusing(bad)), &[("CNI_ARGS", args)]);
        assert_eq!(code(&output), expected, "{field} {args}: {output:?}");
    }
}

/// Starts the plugin with this as its stdin.
fn start(command: &str, stdin: Stdio) -> std::process::Child {
    Command::new(plugin())
        .env_clear()
        .envs([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "abc"),
            ("CNI_NETNS", NETNS),
            ("CNI_IFNAME", "eth0"),
        ])
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_runtime_that_keeps_stdin_open_is_answered() {
    let netd = Netd::ready();
    for (command, pieces) in [("ADD", 1), ("ADD", 7), ("DEL", 1), ("STATUS", 3)] {
        let text = config(&netd).to_string();
        let mut child = start(command, Stdio::piped());
        let mut stdin = child.stdin.take().unwrap();
        let began = Instant::now();
        for piece in text.as_bytes().chunks(text.len().div_ceil(pieces)) {
            stdin.write_all(piece).unwrap();
            stdin.flush().unwrap();
            pause(20);
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(stdin);
    }
}

#[test]
fn a_non_blocking_stdin_is_waited_for() {
    let netd = Netd::ready();
    for socket in [false, true] {
        let (theirs, mut ours): (OwnedFd, Box<dyn std::io::Write>) = if socket {
            let (theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
            (theirs.into(), Box::new(ours))
        } else {
            let (theirs, ours) = std::io::pipe().unwrap();
            (theirs.into(), Box::new(ours))
        };
        rustix::io::ioctl_fionbio(&theirs, true).unwrap();
        let child = start("ADD", theirs.into());
        pause(100);
        ours.write_all(config(&netd).to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        drop(ours);
    }
}

#[test]
fn a_configuration_that_never_comes_is_given_up() {
    let mut child = start("ADD", Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"cniVersion\": \"1.0.0\"").unwrap();
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 5, "{output:?}");
    assert!(message(&output).contains("stdin"), "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[allow(clippy::disallowed_methods)] // a test's own thread
fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
