//! Input that nobody sane would send.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Asked, Netd, cni, cni_with, code, exec, json};
use proptest::prelude::*;
use runtime_hook::cni::run;
use serde_json::{Value, json};

const ENV: [(&str, &str); 4] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "abc"),
    ("CNI_NETNS", common::NETNS),
    ("CNI_IFNAME", "eth0"),
];

#[test]
fn what_is_not_json_is_code_6() {
    let deep = "[".repeat(100_000);
    let nested = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    let long = vec![b' '; 5 << 20];
    let huge = format!("{{\"name\": {}}}", "9".repeat(1 << 20));
    let inputs: [&[u8]; 10] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\"x\"",
        b"{} trailing",
        b"\xff\xfe{}",
        deep.as_bytes(),
        nested.as_bytes(),
        &long,
    ];
    for stdin in inputs {
        assert_eq!(code(&exec(&[], &ENV, stdin)), 6, "{} bytes", stdin.len());
    }
    assert!(matches!(code(&exec(&[], &ENV, huge.as_bytes())), 1 | 6));
}

#[test]
fn bad_environments_are_code_4_and_name_the_variable() {
    let config = json!({"cniVersion": "1.0.0", "name": "n"});
    let cases = [
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "../x"),
        ("CNI_NETNS", ""),
        ("CNI_NETNS", "relative/path"),
        ("CNI_IFNAME", "sixteen-bytes-xx"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_ARGS", "FOO=1"),
        ("CNI_ARGS", "nonsense"),
    ];
    for (variable, value) in cases {
        let output = cni_with("ADD", &config, &[(variable, value)]);
        assert_eq!(code(&output), 4, "{variable}={value}");
        assert!(json(&output)["msg"].as_str().unwrap().contains(variable), "{output:?}");
    }
    assert_eq!(code(&cni("FROBNICATE", &config)), 4);
}

#[test]
fn a_wrong_type_in_every_known_key_is_code_7_with_its_path() {
    let keys =
        ["name", "network", "socket", "timeout", "dns", "args", "runtimeConfig", "prevResult"];
    for key in keys {
        for wrong in [json!(-1), json!([]), json!(true)] {
            let mut config = json!({"cniVersion": "1.0.0", "name": "n"});
            config[key] = wrong.clone();
            let output = cni("ADD", &config);
            assert_eq!(code(&output), 7, "{key} {wrong}");
            let error = json(&output)["msg"].as_str().unwrap().to_owned();
            assert!(error.contains(&format!("{key}: ")), "{key} in {error}");
        }
    }
    assert_eq!(code(&cni("ADD", &json!({"cniVersion": 1, "name": "n"}))), 7);
}

#[test]
fn of_a_key_given_twice_the_last_counts() {
    let netd = Netd::ready();
    let socket = netd.socket().display().to_string();
    let text = format!(
        r#"{{"cniVersion": "0.4.0", "cniVersion": "1.0.0", "name": "n", "socket": "/x",
            "network": "a", "network": "b", "socket": "{socket}"}}"#
    );
    let output = exec(&[], &ENV, text.as_bytes());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output)["cniVersion"], "1.0.0");
    let [Asked::Attach(asked)] = &netd.asked()[..] else { panic!() };
    assert_eq!(asked.network, "b");
}

#[test]
fn ten_thousand_annotations_and_labels_reach_netd() {
    let netd = Netd::ready();
    let annotations: serde_json::Map<String, Value> =
        (0..10_000).map(|i| (format!("key-{i}"), json!(format!("value-{i}")))).collect();
    let labels: Vec<Value> =
        (0..10_000).map(|i| json!({"key": format!("k{i}"), "value": "v"})).collect();
    let config = json!({"cniVersion": "1.0.0", "name": "n", "socket": netd.socket(),
        "args": {"cni": {"labels": labels}},
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations}});
    let output = cni("ADD", &config);
    assert!(output.status.success(), "{output:?}");
    let [Asked::Attach(asked)] = &netd.asked()[..] else { panic!() };
    assert_eq!((asked.annotations.len(), asked.labels.len()), (10_000, 10_000));
}

fn outcome(command: &str, stdin: &[u8]) -> Result<Option<Value>, Value> {
    let lookup = |name: &str| match name {
        "CNI_COMMAND" => Some(command.as_bytes().to_vec()),
        _ => ENV.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes().to_vec()),
    };
    run(&lookup, || Ok(stdin.to_vec()), 1).map_err(|failure| failure.render())
}

/// Whether it is an error as the spec wants it, of a bounded size.
fn is_error(value: &Value) -> bool {
    let known = |v: &Value| v.as_str().is_some_and(|t| !t.is_empty());
    value["code"].as_u64().is_some_and(|c| c > 0)
        && known(&value["cniVersion"])
        && known(&value["msg"])
        && value.to_string().len() < 20_000
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("hostPort".to_owned()),
        Just("ips".to_owned()),
        Just("cni".to_owned()),
        Just("interfaces".to_owned()),
        ".{0,8}"
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

const COMMANDS: [&str; 5] = ["ADD", "DEL", "CHECK", "STATUS", "GC"];

proptest! {
    #[test]
    fn arbitrary_bytes_give_an_error_and_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2048), command in prop::sample::select(&COMMANDS[..])
    ) {
        let error = outcome(command, &bytes).unwrap_err();
        prop_assert!(is_error(&error), "{error}");
    }

    #[test]
    fn arbitrary_values_under_known_keys_give_an_error_and_no_panic(
        values in prop::collection::vec(any_json(), 5), command in prop::sample::select(&COMMANDS[..])
    ) {
        // Nobody listens there, so that sound input is an error too.
        let mut config = json!({"cniVersion": "1.1.0", "name": "n", "socket": "/nonexistent/s"});
        let keys = ["runtimeConfig", "args", "dns", "prevResult", "cni.dev/valid-attachments"];
        for (key, value) in keys.iter().zip(values) {
            config[key] = value;
        }
        let error = outcome(command, config.to_string().as_bytes()).unwrap_err();
        prop_assert!(is_error(&error), "{error}");
    }

    #[test]
    fn arbitrary_arguments_never_panic(text in ".{0,300}") {
        let _ = runtime_hook::cni::args::parse(&text);
    }

    #[test]
    fn arbitrary_oci_states_never_panic(value in any_json(), bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        use runtime_hook::oci::state::OciState;
        prop_assert!(OciState::parse(value.to_string().as_bytes()).is_err());
        prop_assert!(OciState::parse(&bytes).is_err());
    }
}
