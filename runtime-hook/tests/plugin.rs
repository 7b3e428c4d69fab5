//! netd-cni and netd-hook are one plugin: the same words and the same exit status,
//! whatever is asked.
#![allow(clippy::unwrap_used)]

mod common;

use common::{NETNS, Netd, Script, execute, plugins};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

const COMMANDS: [&str; 6] = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"];

/// Runs it with each; what both printed, and the exit status of both.
fn both(env: &[(&str, &str)], stdin: &[u8]) -> (String, i32) {
    let mut found: Vec<(String, i32)> = plugins()
        .iter()
        .map(|program| {
            let output = execute(program, &[], env, stdin);
            let status = output.status.code().unwrap_or_else(|| panic!("{program:?}: {output:?}"));
            (String::from_utf8(output.stdout).unwrap(), status)
        })
        .collect();
    let last = found.pop().unwrap();
    for other in found {
        assert_eq!(last, other, "{env:?}");
    }
    last
}

fn environment<'a>(command: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let usual = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "abc"),
        ("CNI_NETNS", NETNS),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let named = |name: &str| more.iter().any(|(n, _)| *n == name);
    let usual = usual.into_iter().filter(|(name, _)| !named(name));
    usual.chain(more.iter().copied()).collect()
}

fn run(command: &str, config: &Value) -> (String, i32) {
    both(&environment(command, &[]), config.to_string().as_bytes())
}

fn config(netd: &Netd, version: &str) -> Value {
    json!({"cniVersion": version, "name": "netd", "type": "netd-cni", "socket": netd.socket(),
           "cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]})
}

/// A configuration with all that it may have.
fn full(netd: &Netd) -> Value {
    let mut config = config(netd, "1.0.0");
    config["network"] = json!("blue");
    config["dns"] = json!({"nameservers": ["192.0.2.1"], "search": ["\u{e4}.test"]});
    config["args"] = json!({"cni": {"labels": [{"key": "a", "value": "\u{1f980}"}]}});
    config["runtimeConfig"] = json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}],
        "bandwidth": {"ingressRate": 1000, "ingressBurst": 2000},
        "ips": ["10.88.0.9/16"], "mac": "0a:58:0a:58:00:09",
        "io.kubernetes.cri.pod-annotations": {"k": "v"}});
    config["prevResult"] = json!({"cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "sandbox": NETNS, "x": [1.5, null, -7, true]}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}], "dns": {"domain": "b.test"}});
    config
}

#[test]
fn every_command_in_every_version() {
    let netd = Netd::ready();
    for version in ["0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "9", ""] {
        let mut config = config(&netd, version);
        for command in COMMANDS {
            let (line, status) = run(command, &config);
            if (command, status) == ("ADD", 0) {
                // So that CHECK, which is next but one, agrees.
                config["prevResult"] = serde_json::from_str(&line).unwrap();
            }
        }
        let (_, status) = run("CHECK", &config);
        assert_eq!(status, i32::from(!matches!(version, "0.4.0" | "1.0.0" | "1.1.0")), "{version}");
    }
}

#[test]
fn all_that_a_runtime_may_say() {
    let netd = Netd::ready();
    let args = "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;FOO=1";
    let full = full(&netd).to_string();
    let env = environment("ADD", &[("CNI_ARGS", args)]);
    assert_eq!(both(&env, full.as_bytes()).1, 0);
    let env = environment("DEL", &[("CNI_NETNS", ""), ("CNI_ARGS", "junk")]);
    assert_eq!(both(&env, full.as_bytes()), (String::new(), 0));
    // It is not what netd would say.
    assert_eq!(both(&environment("CHECK", &[]), full.as_bytes()).1, 1);
    let routed = Netd::start(Script { routed: true, ..Script::default() });
    assert_eq!(run("ADD", &config(&routed, "1.1.0")).1, 0);
}

#[test]
fn every_way_in_which_netd_says_no() {
    let codes = (1..=16).map(|n| Status::new(Code::from_i32(n), "no, \u{20ac} 100%\n\"it\" is"));
    let mut details = ErrorDetails::new();
    details.set_error_info("POOL_EXHAUSTED", "netd", [("pool".into(), "10.0.0.0/30".into())]);
    details.add_bad_request_violation("addresses[0]", "is no good");
    let detailed = Status::with_error_details(Code::InvalidArgument, "invalid", details);
    for status in codes.chain([detailed]) {
        let netd = Netd::refusing(status.clone());
        for command in ["ADD", "DEL", "STATUS", "GC"] {
            let not_there = command == "DEL" && status.code() == Code::NotFound;
            let expected = i32::from(!not_there);
            assert_eq!(run(command, &config(&netd, "1.1.0")).1, expected, "{status} {command}");
        }
    }
    let empty = Script { empty: true, ..Script::default() };
    let starting = Script { starting: true, ..Script::default() };
    let hung = Script { hang: true, ..Script::default() };
    for (script, command) in [(empty, "ADD"), (starting, "STATUS"), (hung, "DEL")] {
        let netd = Netd::start(script);
        let mut config = config(&netd, "1.1.0");
        config["timeout"] = json!(1);
        assert_eq!(run(command, &config).1, 1, "{command}");
    }
}

#[test]
fn every_way_in_which_a_runtime_is_wrong() {
    let netd = Netd::ready();
    let good = config(&netd, "1.1.0").to_string();
    for (variable, value) in [
        ("CNI_COMMAND", "FROBNICATE"),
        ("CNI_COMMAND", ""),
        ("CNI_CONTAINERID", "../x"),
        ("CNI_CONTAINERID", ""),
        ("CNI_NETNS", "run/netns"),
        ("CNI_IFNAME", "eth 0\u{7f}"),
        ("CNI_ARGS", "FOO=1"),
        ("CNI_ARGS", "\u{e4};=;"),
    ] {
        let env = environment("ADD", &[(variable, value)]);
        assert_eq!(both(&env, good.as_bytes()).1, 1, "{variable}={value}");
    }
    let deep = "[".repeat(10_000);
    for stdin in [&b""[..], b"{", b"[1]", b"{} x", b"\xff", b"{\"a\":\"\\ud800\"}", deep.as_bytes()]
    {
        assert_eq!(both(&environment("ADD", &[]), stdin).1, 1);
        both(&environment("VERSION", &[]), stdin);
    }
    for key in
        ["name", "network", "socket", "timeout", "dns", "args", "runtimeConfig", "prevResult"]
    {
        for value in [json!(-1), json!(1e300), json!(["\n"]), json!("\u{202e}x"), json!({"a": 1})] {
            let mut config = config(&netd, "1.1.0");
            config[key] = value;
            for command in COMMANDS {
                run(command, &config);
            }
        }
    }
    let mut nowhere = config(&netd, "1.1.0");
    nowhere["socket"] = json!("/nonexistent/netd.sock");
    for command in ["ADD", "DEL", "STATUS", "GC"] {
        assert_eq!(run(command, &nowhere).1, 1, "{command}");
    }
}
