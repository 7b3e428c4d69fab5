//! flannel's words: annotations, podCIDRs, prefixes; and the condition.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{attrs, facts, node};
use crate::{
    annotations::{Addresses, AnnotationPrefix},
    condition::{Condition, GRACE},
};

/// Annotations without their prefix.
fn written(value: &Value, overwrites: Addresses) -> BTreeMap<String, String> {
    let changes = AnnotationPrefix::default().changes(&BTreeMap::new(), &attrs(value), overwrites);
    let short = |key: String| key.strip_prefix("flannel.alpha.coreos.com/").unwrap().to_owned();
    changes.into_iter().filter_map(|(key, value)| Some((short(key), value?))).collect()
}

fn map(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn annotations_are_written_as_flannel_writes_them() {
    let managed = ("kube-subnet-manager", "true");
    let mac = r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}"#;
    let mac6 = r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:06"}"#;
    let key = r#"{"PublicKey":"AAA=","Port":51820}"#;
    let data = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let cases = [
        (
            json!({ "PublicIP": "192.0.2.1", "BackendType": "vxlan", "BackendData": data(mac) }),
            map(&[
                managed,
                ("backend-type", "vxlan"),
                ("backend-data", mac),
                ("public-ip", "192.0.2.1"),
            ]),
        ),
        (
            json!({
                "PublicIP": "192.0.2.1", "PublicIPv6": "2001:db8::1", "BackendType": "vxlan",
                "BackendData": data(mac), "BackendV6Data": data(mac6),
            }),
            map(&[
                managed,
                ("backend-type", "vxlan"),
                ("backend-data", mac),
                ("public-ip", "192.0.2.1"),
                ("backend-v6-data", mac6),
                ("public-ipv6", "2001:db8::1"),
            ]),
        ),
        // IPv6 alone.
        (
            json!({ "PublicIPv6": "2001:db8::1", "BackendType": "vxlan", "BackendV6Data": data(mac6) }),
            map(&[
                managed,
                ("backend-type", "vxlan"),
                ("backend-v6-data", mac6),
                ("public-ipv6", "2001:db8::1"),
            ]),
        ),
        (
            json!({ "PublicIP": "192.0.2.1", "BackendType": "host-gw" }),
            map(&[
                managed,
                ("backend-type", "host-gw"),
                ("backend-data", "null"),
                ("public-ip", "192.0.2.1"),
            ]),
        ),
        (
            json!({ "PublicIP": "192.0.2.1", "BackendType": "wireguard", "BackendData": data(key) }),
            map(&[
                managed,
                ("backend-type", "wireguard"),
                ("backend-data", key),
                ("public-ip", "192.0.2.1"),
            ]),
        ),
        // udp names no backend.
        (
            json!({ "PublicIP": "192.0.2.1" }),
            map(&[
                managed,
                ("backend-type", ""),
                ("backend-data", "null"),
                ("public-ip", "192.0.2.1"),
            ]),
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(written(&value, Addresses::default()), expected, "{value}");
    }
    let value = json!({ "PublicIP": "192.0.2.1", "BackendType": "host-gw" });
    let overwrites = Addresses { v4: Some("198.51.100.7".parse().unwrap()), v6: None };
    assert_eq!(written(&value, overwrites)["public-ip"], "198.51.100.7");
}

#[test]
fn only_what_differs_is_written_and_what_no_longer_holds_is_removed() {
    let known = facts(&node("n1", "10.5.1.0/24", Some("192.0.2.1"))).annotations;
    let mut known = known;
    assert_eq!(known.len(), 4, "only those with the prefix: {known:?}");
    let prefix = AnnotationPrefix::default();
    let value = prefix.read(&known, None).unwrap().unwrap();
    assert!(prefix.changes(&known, &value, Addresses::default()).is_empty());
    known.insert("flannel.alpha.coreos.com/public-ipv6".into(), "2001:db8::1".into());
    let changes = prefix.changes(&known, &value, Addresses::default());
    assert_eq!(changes, [("flannel.alpha.coreos.com/public-ipv6".to_owned(), None)].into());
}

#[test]
fn what_is_no_annotation_of_flannels_is_refused_by_name() {
    let subnets = facts(&node("n", "10.5.1.0/24", None)).subnets.unwrap();
    let read = |key: &str, value: &str| {
        let mut node = node("n", "10.5.1.0/24", Some("192.0.2.9"));
        node["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{key}")] = json!(value);
        AnnotationPrefix::default().read(&facts(&node).annotations, subnets.as_ref())
    };
    let long = "x".repeat(70_000);
    for (key, value) in [
        ("public-ip", "here"),
        ("public-ip", "2001:db8::1"),
        ("public-ip", "192.0.2.009"),
        ("backend-data", "{"),
        ("backend-data", long.as_str()),
        ("backend-type", long.as_str()),
    ] {
        let why = read(key, value).unwrap().unwrap_err();
        assert!(why.contains(key) && why.len() < 300, "{why}");
    }
    // Of a family of which the Node has no podCIDR nothing is read.
    assert!(read("public-ipv6", "junk").unwrap().is_ok());
    for value in ["false", "True", "1", ""] {
        assert!(read("kube-subnet-manager", value).is_none(), "{value}");
    }
}

#[test]
fn pod_cidrs_are_one_of_each_family_or_refused_by_name() {
    let read = |cidrs: &[&str]| {
        let mut node = node("n", "", None);
        node["spec"] = json!({ "podCIDR": cidrs.first(), "podCIDRs": cidrs });
        if cidrs.is_empty() {
            node["spec"] = json!({});
        }
        facts(&node).subnets
    };
    assert_eq!(read(&[]), Ok(None));
    let both = read(&["10.5.1.0/24", "fd00:5::/64"]).unwrap().unwrap();
    assert_eq!(
        both.iter().map(|net| net.to_string()).collect::<Vec<_>>(),
        ["10.5.1.0/24", "fd00:5::/64"]
    );
    // Go's parser takes host bits, and so does flannel.
    assert_eq!(read(&["10.5.1.7/24"]).unwrap().unwrap().v4.unwrap().to_string(), "10.5.1.0/24");
    let long = "x".repeat(1000);
    for bad in [
        &["10.5.1.0"][..],
        &["10.5.1.0/33"],
        &["10.5.1.0/31"],
        &["0.0.0.0/0"],
        &["127.0.0.0/8"],
        &["224.0.0.0/8"],
        &["10.5.1.0/24", "10.5.2.0/24"],
        &["10.5.1.0/24", "fd00::/64", "fd01::/64"],
        &["fd00::/127"],
        &[long.as_str()],
    ] {
        let why = read(bad).unwrap_err();
        assert!(why.starts_with("spec.podCIDRs: ") && why.len() < 200, "{bad:?}: {why}");
    }
    // Only the old field.
    let mut old = node("n", "", None);
    old["spec"] = json!({ "podCIDR": "10.5.3.0/24" });
    assert!(facts(&old).subnets.unwrap().unwrap().v4.is_some());
}

#[test]
fn prefixes_are_completed_as_flannel_completes_them() {
    let key = |text: &str| {
        let prefix: Result<AnnotationPrefix, _> = text.parse();
        prefix.map(|prefix| format!("{prefix:?}"))
    };
    for (given, whole) in [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/"),
        ("a.b/net", "a.b/net-"),
        ("a.b/net-", "a.b/net-"),
    ] {
        assert!(key(given).unwrap().contains(&format!("{whole:?}")), "{given}");
    }
    for bad in ["", "flannel", "a.b/c/d", "A.b", "a..b", ".b", "a.b/ä", &"a.".repeat(200)] {
        assert!(key(bad).is_err(), "{bad}");
    }
}

fn condition(status: &str, reason: &str) -> Condition {
    let json = json!({
        "type": "NetworkUnavailable", "status": status, "reason": reason, "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn the_condition_is_false_at_once_and_true_after_a_while() {
    let not_ready = Err("overlay: no device\nstore: full".to_owned());
    let wanted = |current: Option<&Condition>, ready: &Result<(), String>, time| {
        Condition::wanted(current, ready, time).map(|c| c.json("2026-11-30T12:00:00Z"))
    };
    let flannels = condition("False", "FlannelIsUp");
    let ready = wanted(Some(&flannels), &Ok(()), Duration::ZERO).unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("NetdIsReady")));
    // It did not change from false to false.
    assert_eq!(ready["lastTransitionTime"], "2026-01-01T00:00:00Z");
    let said: Condition = serde_json::from_value(ready).unwrap();
    assert!(wanted(Some(&said), &Ok(()), Duration::ZERO).is_none());
    assert!(wanted(Some(&said), &not_ready, GRACE - Duration::from_millis(1)).is_none());
    let away = wanted(Some(&said), &not_ready, GRACE).unwrap();
    assert_eq!((&away["status"], &away["reason"]), (&json!("True"), &json!("NetdIsNotReady")));
    assert_eq!(away["lastTransitionTime"], "2026-11-30T12:00:00Z");
    assert!(away["message"].as_str().unwrap().contains("overlay: no device; store: full"));
    let long = Err("ä".repeat(5000));
    let long = wanted(None, &long, GRACE).unwrap();
    assert!(long["message"].as_str().unwrap().chars().count() < 600);
}

#[test]
fn an_overwrite_that_cant_be_read_changes_nothing_and_is_named() {
    let mut known = facts(&node("n1", "10.5.1.0/24", Some("198.51.100.7"))).annotations;
    let prefix = AnnotationPrefix::default();
    for (name, value) in [("public-ip-overwrite", "junk"), ("public-ip-overwrite", "127.0.0.1")] {
        known.insert(format!("flannel.alpha.coreos.com/{name}"), value.into());
        let (found, wrong) = prefix.overwrites(&known);
        assert_eq!(found.v4, Some("198.51.100.7".parse().unwrap()), "what was announced stays");
        assert!(
            wrong.len() == 1 && wrong[0].contains(name) && wrong[0].contains(value),
            "{wrong:?}"
        );
    }
    // One family's mistake is not the other's.
    known.insert("flannel.alpha.coreos.com/public-ip-overwrite".into(), "203.0.113.5".into());
    known.insert("flannel.alpha.coreos.com/public-ipv6-overwrite".into(), "junk".into());
    let (found, wrong) = prefix.overwrites(&known);
    assert_eq!((found.v4, found.v6), (Some("203.0.113.5".parse().unwrap()), None));
    assert_eq!(wrong.len(), 1);
    known.insert("flannel.alpha.coreos.com/node-public-ip".into(), "::1".into());
    let (found, wrong) = prefix.node_public(&known);
    assert!(found == Addresses::default() && wrong[0].contains("node-public-ip"), "{wrong:?}");
}
