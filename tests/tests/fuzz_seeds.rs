//! The fuzzers' seeds, as ordinary tests: every seed of `fuzz/seeds` goes through the
//! entry point that its fuzzer has. `NETD_WRITE_SEEDS=1` writes those that are made
//! here again; the netlink ones are captures of a kernel's answers.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use netd::fuzzing;
use netd_api::{hook, ttrpc, v1};
use netd_domain::{
    AttachSpec, Bandwidth, Dns, Driver, Endpoint, EndpointKey, NetnsId, Network, Phase,
    PodIdentity, Pool, PortMapping, Protocol, Tombstone, attach::Assigned, network::NetworkOptions,
};
use prost::Message as _;
use serde_json::{Value, json};

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
fn seeds_of_stored_records_are_taken() {
    replay("stored_records", fuzzing::records);
}

#[test]
fn seeds_of_grpc_requests_are_taken() {
    replay("grpc_requests", fuzzing::requests);
}

#[test]
fn seeds_of_hook_requests_are_taken() {
    replay("hook_requests", fuzzing::hook);
}

#[test]
fn seeds_of_netlink_messages_are_taken() {
    replay("netlink_messages", fuzzing::netlink);
}

#[test]
fn seeds_of_overlay_leases_are_taken() {
    replay("overlay_leases", fuzzing::leases);
}

/// What a damaged record may say in the place of any value.
fn hostile() -> Vec<Value> {
    let texts = [
        "",
        "/",
        "eth0",
        "lo",
        "nd0123456789ab",
        "attached",
        "bridge",
        "a\"b",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "10.1.0.5",
        "fd00:1::5",
        "::ffff:10.1.0.5",
        "fe80::1",
        "224.0.0.1",
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8",
        "10.1.0.5/32",
        "ffff::/16",
        "fd00::/125",
        "10.1.0.5/99",
    ];
    let numbers = [0, 1, 65535, u64::from(u32::MAX), i64::MAX as u64, u64::MAX];
    let mut all = vec![Value::Null, json!(-1), json!(i64::MIN), json!(true), json!([]), json!({})];
    all.extend(texts.map(Value::from));
    all.extend(numbers.map(Value::from));
    all
}

/// Calls `each` with every version of `root` in which one value, inner or outer, is
/// another one, or is there twice in its list.
fn one_wrong(root: &Value, each: &mut dyn FnMut(&Value)) {
    fn walk(root: &Value, at: &str, each: &mut dyn FnMut(&Value)) {
        let Some(here) = root.pointer(at) else { return };
        let mut change = |value: Value| {
            let mut changed = root.clone();
            *changed.pointer_mut(at).unwrap() = value;
            each(&changed);
        };
        hostile().into_iter().for_each(&mut change);
        match here {
            Value::Array(list) => {
                change(Value::Array([list.as_slice(), list].concat()));
                (0..list.len()).for_each(|i| walk(root, &format!("{at}/{i}"), each));
            }
            Value::Object(fields) => {
                fields.keys().for_each(|key| walk(root, &format!("{at}/{key}"), each));
            }
            _ => {}
        }
    }
    walk(root, "", each);
}

#[test]
fn whatever_one_value_of_a_stored_record_is_start_survives_it() {
    let mut tried = 0;
    for (_, seed) in records() {
        let lines: Vec<&[u8]> = seed.split(|b| *b == b'\n').collect();
        for (i, line) in lines.iter().enumerate() {
            one_wrong(&serde_json::from_slice(line).unwrap(), &mut |record| {
                let record = record.to_string().into_bytes();
                let mut all = lines.clone();
                all[i] = &record;
                fuzzing::records(&all.join(&b'\n'));
                tried += 1;
            });
        }
    }
    assert!(tried > 5_000, "{tried}");
}

#[test]
fn whatever_one_value_of_the_overlay_is_leases_are_taken() {
    let mut tried = 0;
    for file in fs::read_dir(folder("overlay_leases")).unwrap() {
        let seed = fs::read_to_string(file.unwrap().path()).unwrap();
        let lines: Vec<&str> = seed.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let name = line.split_inclusive(' ').next().filter(|_| i > 0).unwrap_or_default();
            let Ok(json) = serde_json::from_str(&line[name.len()..]) else { continue };
            one_wrong(&json, &mut |wrong| {
                let wrong = format!("{name}{wrong}");
                let mut all = lines.clone();
                all[i] = &wrong;
                fuzzing::leases(all.join("\n").as_bytes());
                tried += 1;
            });
        }
    }
    assert!(tried > 3_000, "{tried}");
}

fn network(name: &str, driver: Driver, subnets: &[&str]) -> Network {
    let pool = |s: &&str| Pool::new(s.parse().unwrap(), None, (None, None), vec![]).unwrap();
    let options = NetworkOptions { driver, masquerade: true, ..Default::default() };
    let pools = subnets.iter().map(pool).collect();
    Network::new(name.parse().unwrap(), pools, options).unwrap()
}

fn endpoint(network: &Network, sandbox: &str, ips: &[&str], sequence: u64) -> Endpoint {
    let key = EndpointKey { sandbox: sandbox.parse().unwrap(), ifname: "eth0".parse().unwrap() };
    let host_ip = Some("192.0.2.1".parse().unwrap());
    let port =
        PortMapping { host_port: 80, container_port: 8080, protocol: Protocol::Tcp, host_ip };
    let spec = AttachSpec {
        key: key.clone(),
        netns_path: Some("/run/netns/x".into()),
        network: network.name.clone(),
        pod: PodIdentity { namespace: "a".into(), name: "b".into(), uid: "c".into() },
        labels: BTreeMap::from([("app".into(), "b".into())]),
        annotations: BTreeMap::new(),
        addresses: vec![],
        mac: None,
        mtu: None,
        port_mappings: vec![port],
        bandwidth: Bandwidth { egress_rate: 8000, egress_burst: 80_000, ..Default::default() },
        dns: Dns::default(),
        default_route: Default::default(),
        issued_at: sequence,
        source: "cni/pods".into(),
    };
    let ips: Vec<std::net::IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    let pool = |ip| network.pools.iter().find(|p| p.subnet.contains(ip)).unwrap();
    let assigned: Vec<_> = ips.iter().map(|ip| Assigned { ip: *ip, pool: pool(ip) }).collect();
    Endpoint {
        wiring: spec.build_wiring(network, &assigned, 1450, true).unwrap().into(),
        key,
        network: spec.network,
        phase: if sequence % 2 == 1 { Phase::Attached } else { Phase::Detaching },
        netns_path: spec.netns_path,
        netns: Some(NetnsId { dev: 4, inode: 4_026_532_000, cookie: None }),
        pod: spec.pod,
        labels: spec.labels,
        annotations: spec.annotations,
        dns: spec.dns,
        fixed_mtu: false,
        created_at: 1_700_000_000,
        issued_at: spec.issued_at,
        source: spec.source,
        sequence,
        path_is_foreign: false,
        request: None,
        labels_of_api: false,
        named_ports: Vec::new(),
        runtime_placed: None,
    }
}

fn tombstone(network: &Network, sandbox: &str, ip: &str) -> Tombstone {
    let key = EndpointKey { sandbox: sandbox.parse().unwrap(), ifname: "eth0".parse().unwrap() };
    Tombstone {
        key,
        issued_at: 3,
        released_at: 1_700_000_001,
        network: Some(network.name.clone()),
        addresses: vec![ip.parse().unwrap()],
        sequence: 9,
    }
}

fn records() -> Vec<(&'static str, Vec<u8>)> {
    let json = |record: &dyn erased::Json| record.json();
    let bridge = network("default", Driver::Bridge, &["10.1.0.0/16", "fd00:1::/64"]);
    let routed = network("blue", Driver::Routed, &["10.2.0.0/29", "10.3.0.0/24"]);
    let one = endpoint(&bridge, "s1", &["10.1.0.5", "fd00:1::5"], 1);
    let two = endpoint(&routed, "s2", &["10.3.0.5"], 3);
    let ending = endpoint(&routed, "s3", &["10.2.0.2"], 4);
    let gone = tombstone(&bridge, "s4", "10.1.0.9");
    vec![
        ("bridge.json", [json(&bridge), json(&one), json(&gone)].join(&b'\n')),
        ("routed.json", [json(&routed), json(&two), json(&ending)].join(&b'\n')),
        ("network.json", json(&network("v6", Driver::Routed, &["fd00:9::/112"]))),
    ]
}

/// Records of different types in one list.
mod erased {
    pub(crate) trait Json {
        fn json(&self) -> Vec<u8>;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> Vec<u8> {
            serde_json::to_vec(self).unwrap()
        }
    }
}

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let port = v1::PortMapping {
        host_port: 53,
        container_port: 53,
        protocol: v1::Protocol::Udp.into(),
        host_ip: "192.0.2.1".into(),
    };
    let attach = v1::AttachRequest {
        sandbox_id: "s1".into(),
        netns_path: "/run/netns/x".into(),
        interface: "eth1".into(),
        network: "blue".into(),
        pod: Some(v1::PodIdentity { namespace: "a".into(), ..Default::default() }),
        labels: [("app".to_owned(), "b".to_owned())].into(),
        addresses: vec!["10.1.0.9/16".into(), "fd00:1::9".into()],
        mac: "0a:58:0a:01:00:09".into(),
        mtu: 1400,
        port_mappings: vec![port],
        bandwidth: Some(v1::Bandwidth {
            ingress_rate: 8000,
            ingress_burst: 80_000,
            ..Default::default()
        }),
        dns: Some(v1::Dns { nameservers: vec!["10.96.0.10".into()], ..Default::default() }),
        no_default_route: true,
        issued_at: 1,
        source: "nri".into(),
        ..Default::default()
    };
    let pool = v1::Pool {
        subnet: "10.9.0.0/24".into(),
        gateway: "10.9.0.1".into(),
        range_start: "10.9.0.10".into(),
        range_end: "10.9.0.99".into(),
        reserved: vec!["10.9.0.16/28".into(), "10.9.0.50".into()],
    };
    let other = v1::Pool { subnet: "fd00:9::/64".into(), ..Default::default() };
    let network = v1::Network {
        name: "green".into(),
        driver: v1::Driver::Bridge.into(),
        pools: vec![pool, other],
        bridge: "br-green".into(),
        mtu: 1400,
        masquerade: true,
        ..Default::default()
    };
    let sandbox = v1::Sandbox { id: "s1".into(), ..Default::default() };
    vec![
        ("attach", attach.encode_to_vec()),
        (
            "network",
            v1::CreateNetworkRequest { network: Some(network), force: false }.encode_to_vec(),
        ),
        ("annotate", v1::AnnotateRequest { sandbox: Some(sandbox) }.encode_to_vec()),
    ]
}

/// Calls as the plugin makes them; see [`fuzzing::hook`] for the first two bytes.
fn hook_calls() -> Vec<(&'static str, Vec<u8>)> {
    let call = |stream, service: &str, method: &str, payload: Vec<u8>, with_netns| {
        let (key, value) = (hook::NETNS_KEY.into(), hook::NETNS_IS_DESCRIPTOR.into());
        let metadata = if with_netns { vec![ttrpc::KeyValue { key, value }] } else { vec![] };
        let timeout_nano = 30_000_000_000;
        let (service, method) = (service.into(), method.into());
        let request = ttrpc::Request { service, method, payload, timeout_nano, metadata };
        ttrpc::encode(stream, ttrpc::REQUEST, &request.encode_to_vec())
    };
    let endpoints = "netd.v1.EndpointService";
    let attach = requests().remove(0).1;
    let detach = v1::DetachRequest { sandbox_id: "s1".into(), ..Default::default() };
    let attach = call(1, endpoints, "Attach", attach, true);
    let detach = call(3, endpoints, "Detach", detach.encode_to_vec(), false);
    let too_long = vec![0x40, 0, 0, 1, 0, 0, 0, 1, ttrpc::REQUEST, 0];
    let sent = |size: u8, descriptors: u8, frames: &[&Vec<u8>]| {
        frames.iter().fold(vec![size, descriptors], |all, frame| [all, frame.to_vec()].concat())
    };
    vec![
        ("attach", sent(255, 1, &[&attach, &detach])),
        ("pieces", sent(0, 1, &[&attach])),
        ("no_descriptor", sent(255, 0, &[&attach, &detach])),
        ("two_descriptors", sent(15, 3, &[&attach])),
        ("too_long", sent(255, 0, &[&too_long])),
    ]
}

#[test]
fn seeds_are_what_this_release_writes() {
    let all = [
        ("stored_records", records()),
        ("grpc_requests", requests()),
        ("hook_requests", hook_calls()),
    ];
    for (target, seeds) in all {
        for (name, bytes) in seeds {
            let path = folder(target).join(name);
            if std::env::var_os("NETD_WRITE_SEEDS").is_some() {
                fs::write(&path, &bytes).unwrap();
            }
            let there = fs::read(&path).unwrap();
            assert!(there == bytes, "{path:?} is stale; NETD_WRITE_SEEDS=1 rewrites it");
        }
    }
}
