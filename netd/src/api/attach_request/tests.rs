#![allow(clippy::unwrap_used)]

use super::{texts::MAX_TEXT_BYTES, *};
use netd_api::annotations;

fn request() -> v1::AttachRequest {
    v1::AttachRequest {
        sandbox_id: "s1".into(),
        netns_path: "/run/netns/s1".into(),
        ..Default::default()
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let spec = attach(request()).unwrap();
    assert_eq!(spec.key.to_string(), "s1/eth0");
    assert_eq!(spec.network.as_str(), "default");
    assert!(spec.issued_at > 0);
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let port =
        v1::PortMapping { host_port: 0, container_port: 70000, protocol: 9, host_ip: "::1".into() };
    let wrong = v1::AttachRequest {
        sandbox_id: "../x".into(),
        netns_path: "relative".into(),
        interface: "0123456789abcdef".into(),
        network: "A".into(),
        addresses: vec!["10.0.0.1".into(), "::ffff:10.0.0.1".into()],
        mac: "01:00:00:00:00:00".into(),
        mtu: 70000,
        port_mappings: vec![port],
        bandwidth: Some(v1::Bandwidth { ingress_rate: 1000, ..Default::default() }),
        labels: (0..10_000).map(|i| (i.to_string(), String::new())).collect(),
        issued_at: u64::MAX,
        default_route: true,
        no_default_route: true,
        ..Default::default()
    };
    let bad = attach(wrong).unwrap_err();
    let fields: Vec<_> = bad.violations.iter().map(|v| v.field.as_str()).collect();
    for field in [
        "sandbox_id",
        "interface",
        "network",
        "netns_path",
        "addresses[1]",
        "mac",
        "port_mappings[0].host_port",
        "port_mappings[0].container_port",
        "port_mappings[0].protocol",
        "port_mappings[0].host_ip",
        "bandwidth.ingress_burst",
        "labels",
        "issued_at",
        "mtu",
        "default_route",
    ] {
        assert!(fields.contains(&field), "{field} is missing in {fields:?}");
    }
}

#[test]
fn annotations_of_netd_that_nothing_reads_are_refused() {
    let refused = |source: &str, key: &str| {
        let mut request = v1::AttachRequest { source: source.into(), ..request() };
        request.annotations = [(key.to_owned(), "blue".to_owned())].into();
        attach(request).err().map(|bad| bad.to_string()).unwrap_or_default()
    };
    for source in ["cni/netd", "nri", "oci", ""] {
        assert!(refused(source, "netd.io/netwroks").contains("did you mean"), "{source}");
        assert!(refused(source, "netd.io/").contains("annotations"), "{source}");
        assert_eq!(refused(source, "netd.io/networks"), "", "{source}");
        assert_eq!(refused(source, "example.org/netd.io/x"), "", "{source}");
    }
    for key in annotations::OF_CONTAINERS {
        assert_eq!(refused("oci", key), "");
        assert!(refused("cni/netd", key).contains(annotations::NETWORKS), "{key}");
    }
}

#[test]
fn the_largest_request_that_is_taken_fits_into_a_record() {
    use netd_store::rules::MAX_VALUE_BYTES;
    let most = |what: &str, n: usize| what.repeat(n);
    let port = |n: u32| v1::PortMapping {
        host_port: n,
        container_port: n,
        host_ip: format!("2001:db8:1111:2222:3333:4444:5555:{n:x}"),
        ..Default::default()
    };
    let words = vec![most("\"", MAX_DNS_ENTRY_BYTES); MAX_DNS_ENTRIES];
    let dns = v1::Dns {
        nameservers: words.clone(),
        search: words.clone(),
        options: words,
        domain: String::new(),
    };
    let pod = |c: &str| v1::PodIdentity {
        namespace: most(c, MAX_IDENTITY_BYTES),
        name: most(c, MAX_IDENTITY_BYTES),
        uid: most(c, MAX_IDENTITY_BYTES),
    };
    let large = |c: &str, n: usize| v1::AttachRequest {
        annotations: [("a".to_owned(), most(c, n))].into(),
        port_mappings: (60000..60000 + MAX_PORTS as u32).map(port).collect(),
        pod: Some(pod(c)),
        dns: Some(dns.clone()),
        source: most(c, MAX_SOURCE_BYTES),
        ..request()
    };
    let spec = attach(large("\u{1}", MAX_TEXT_BYTES / 6 - 1)).unwrap();
    let all = (&spec.annotations, &spec.port_mappings, &spec.pod, &spec.dns, &spec.source);
    // The ports are in the record once, the netns path and the rest are small.
    let size = serde_json::to_vec(&all).unwrap().len() + 8 * MAX_PATH_BYTES;
    assert!(size < MAX_VALUE_BYTES, "{size}");
    assert!(attach(large("\u{1}", MAX_TEXT_BYTES / 6 + 1)).is_err());
}

#[test]
fn a_port_mapped_twice_is_refused() {
    let port = v1::PortMapping { host_port: 80, container_port: 80, ..Default::default() };
    let twice = v1::AttachRequest { port_mappings: vec![port.clone(), port], ..request() };
    assert!(attach(twice).unwrap_err().to_string().contains("twice"));
}
