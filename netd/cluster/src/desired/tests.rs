use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Instant,
};

use proptest::prelude::*;

use super::*;
use crate::{
    Subnets,
    backend::tests::{lease, local},
    flannel::key,
};
use netd_domain::{
    IfName, Mac,
    overlay::{OverlayObject, OverlayRoute, TunnelPeerName, WireguardPeer},
};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const V4: &[Family] = &[Family::V4];

fn vxlan(ip: u8, mac: u8) -> String {
    format!(
        r#"{{"PublicIP":"192.0.2.{ip}","BackendType":"vxlan",
            "BackendData":{{"VNI":1,"VtepMAC":"aa:00:00:00:00:{mac:02x}"}}}}"#
    )
}

fn node(backend: &str) -> Desired {
    Desired::new(local(backend, V4)).unwrap()
}

fn set(desired: &mut Desired, name: &str, value: &str) -> Delta {
    let created = age(desired, name);
    desired.set(name, created, lease(name, value))
}

/// As etcd counts: a key that is there keeps its revision, a new one gets the next.
fn age(desired: &Desired, name: &str) -> Revision {
    let next = || desired.entries.values().map(|e| e.rank.created()).max().unwrap_or(0) + 1;
    desired.entries.get(name).map_or_else(next, |entry| entry.rank.created())
}

fn problems(desired: &Desired) -> BTreeMap<String, String> {
    desired.problems().map(|(key, problem)| (key.to_owned(), problem.to_string())).collect()
}

/// What the kernel and the tunnel process hold after deltas: one neighbour an address,
/// one route a destination, whoever asked for them.
#[derive(Debug, Default, PartialEq)]
struct World {
    neighbours: HashMap<(IfName, IpAddr), Mac>,
    fdb: HashSet<OverlayObject>,
    routes: HashMap<IpNet, OverlayRoute>,
    wireguard: BTreeMap<(IfName, [u8; 32]), Vec<u8>>,
    tunnels: BTreeMap<TunnelPeerName, TunnelPeer>,
}

impl World {
    fn add(&mut self, object: OverlayObject) {
        match object {
            OverlayObject::Neighbour { device, ip, mac } => {
                self.neighbours.insert((device, ip), mac);
            }
            OverlayObject::Route(route) => {
                self.routes.insert(route.destination, route);
            }
            fdb @ OverlayObject::Fdb { .. } => {
                self.fdb.insert(fdb);
            }
        }
    }

    fn remove(&mut self, object: &OverlayObject) {
        let there = match object {
            OverlayObject::Neighbour { device, ip, .. } => {
                self.neighbours.remove(&(device.clone(), *ip)).is_some()
            }
            OverlayObject::Route(route) => self.routes.remove(&route.destination).is_some(),
            fdb @ OverlayObject::Fdb { .. } => self.fdb.remove(fdb),
        };
        assert!(there, "{object:?} is not there");
    }

    fn apply(&mut self, delta: Delta) {
        delta.kernel.add.into_iter().for_each(|object| self.add(object));
        delta.kernel.remove.iter().for_each(|object| self.remove(object));
        for (device, peer) in delta.kernel.set_wireguard {
            self.wireguard.insert((device, peer.public_key), written(&peer));
        }
        for (device, key) in delta.kernel.remove_wireguard {
            assert!(self.wireguard.remove(&(device, key)).is_some());
        }
        for peer in delta.tunnels_set {
            self.tunnels.insert(peer.name(), peer);
        }
        for name in delta.tunnels_removed {
            assert!(self.tunnels.remove(&name).is_some());
        }
    }

    fn of(desired: &Desired) -> Self {
        let mut world = Self::default();
        let state = desired.state();
        let count = state.objects.len();
        state.objects.into_iter().for_each(|object| world.add(object));
        let places = world.neighbours.len() + world.fdb.len() + world.routes.len();
        assert_eq!(count, places, "two objects for one place");
        let peers = state.wireguard.into_iter();
        world.wireguard =
            peers.map(|(device, peer)| ((device, peer.public_key), written(&peer))).collect();
        world.tunnels = desired.tunnels().map(|peer| (peer.name(), peer)).collect();
        world
    }
}

fn written(peer: &WireguardPeer) -> Vec<u8> {
    format!("{peer:?}").into_bytes()
}

#[test]
fn an_identical_lease_changes_nothing() {
    let mut desired = node(VXLAN);
    assert_eq!(set(&mut desired, "10.5.8.0-24", &vxlan(8, 8)).kernel.add.len(), 3);
    assert!(set(&mut desired, "10.5.8.0-24", &vxlan(8, 8)).is_empty());
    let reordered = r#"{"BackendData":{"VtepMAC":"aa:00:00:00:00:08","VNI":1},
        "PublicIPv6":null,"BackendType":"vxlan","PublicIP":"192.0.2.8"}"#;
    assert!(set(&mut desired, "10.5.8.0-24", reordered).is_empty());
    assert_eq!(desired.remove("10.5.8.0-24").kernel.remove.len(), 3);
    assert!(desired.remove("10.5.8.0-24").is_empty());
    assert!(desired.state().objects.is_empty());
}

#[test]
fn a_new_mac_or_address_is_followed() {
    let mut desired = node(VXLAN);
    set(&mut desired, "10.5.8.0-24", &vxlan(8, 8));
    let delta = set(&mut desired, "10.5.8.0-24", &vxlan(8, 9)).kernel;
    // The neighbour is replaced, the route stays.
    assert!(
        matches!(&delta.add[..], [OverlayObject::Neighbour { .. }, OverlayObject::Fdb { .. }]),
        "{delta:?}"
    );
    assert!(matches!(&delta.remove[..], [OverlayObject::Fdb { .. }]), "{delta:?}");
    let delta = set(&mut desired, "10.5.8.0-24", &vxlan(7, 9)).kernel;
    assert_eq!((delta.add.len(), delta.remove.len()), (1, 1));
}

#[test]
fn a_node_of_several_leases_has_one_forwarding_entry() {
    let mut desired = node(VXLAN);
    set(&mut desired, "10.5.8.0-24", &vxlan(8, 8));
    assert_eq!(set(&mut desired, "10.5.9.0-24", &vxlan(8, 8)).kernel.add.len(), 2);
    assert_eq!(desired.remove("10.5.8.0-24").kernel.remove.len(), 2);
    assert_eq!(desired.remove("10.5.9.0-24").kernel.remove.len(), 3);
}

#[test]
fn what_contradicts_an_earlier_lease_waits_for_it_to_go() {
    let mut desired = node(VXLAN);
    set(&mut desired, "10.5.8.0-24", &vxlan(8, 8));
    for (name, value, wanted) in [
        (
            "10.5.8.0-25",
            vxlan(9, 9),
            "key: 10.5.8.0/25 overlaps 10.5.8.0/24 of lease 10.5.8.0-24, which was there before",
        ),
        ("10.5.0.0-19", vxlan(10, 10), "key: 10.5.0.0/19 overlaps 10.5.8.0/24 of lease"),
        (
            "10.5.9.0-24",
            vxlan(11, 8),
            "BackendData.VtepMAC: aa:00:00:00:00:08 is at 192.0.2.11 here and at 192.0.2.8 in",
        ),
        ("10.5.52.0-25", vxlan(12, 12), "key: 10.5.52.0/25 overlaps 10.5.52.0/24 of this node"),
        ("10.6.8.0-24", vxlan(13, 13), "key: 10.6.8.0/24 is outside the cluster's network"),
        ("10.0.0.0-8", vxlan(14, 14), "key: 10.0.0.0/8 is outside the cluster's network"),
        ("0.0.0.0-0&fd00::-64", vxlan(15, 15), "key: no subnet of a family"),
        ("10.5.16.0-24", vxlan(3, 16), "PublicIP: 192.0.2.3 is this node's own address"),
    ] {
        assert!(set(&mut desired, name, &value).is_empty(), "{name}");
        let problem = &problems(&desired)[name];
        assert!(problem.starts_with(wanted), "{problem}");
        assert!(matches!(desired.peer(name).unwrap().state, PeerState::Problem(_)));
        assert_eq!(desired.peer_plan(name), None);
    }
    // Nobody else was held up.
    assert_eq!(set(&mut desired, "10.5.40.0-24", &vxlan(40, 40)).kernel.add.len(), 3);
    // The first goes: the second is in force, those that contradict it are not.
    let delta = desired.remove("10.5.8.0-24").kernel;
    // Of the addresses' neighbours one is replaced.
    assert_eq!((delta.add.len(), delta.remove.len()), (6, 2), "{delta:?}");
    let left = problems(&desired);
    assert!(!left.contains_key("10.5.8.0-25") && !left.contains_key("10.5.9.0-24"), "{left:?}");
    assert!(left["10.5.0.0-19"].contains("overlaps 10.5.8.0/25 of lease 10.5.8.0-25"), "{left:?}");
}

#[test]
fn an_unreadable_value_removes_nothing() {
    let mut desired = node(VXLAN);
    set(&mut desired, "10.5.8.0-24", &vxlan(8, 8));
    let before = desired.state();
    let unreadable = || PeerProblem::new("value", "not JSON");
    desired.refuse("10.5.8.0-24", unreadable());
    desired.refuse("junk", unreadable());
    assert_eq!(desired.state(), before);
    assert_eq!(problems(&desired).len(), 2);
    let peer = desired.peer("10.5.8.0-24").unwrap();
    assert_eq!((peer.state, peer.refused), (PeerState::InForce, Some(&unreadable())));
    assert!(set(&mut desired, "10.5.8.0-24", &vxlan(8, 8)).is_empty());
    desired.remove("junk");
    assert!(problems(&desired).is_empty());
}

#[test]
fn own_leases_are_not_routed_to() {
    let mut desired = node(VXLAN);
    assert!(set(&mut desired, "10.5.52.0-24", &vxlan(3, 3)).is_empty());
    assert_eq!(desired.peer("10.5.52.0-24").unwrap().state, PeerState::Own);
    assert!(set(&mut desired, "10.5.52.0-24", &vxlan(9, 3)).is_empty());
    let problem = &problems(&desired)["10.5.52.0-24"];
    assert!(problem.starts_with("PublicIP: 192.0.2.9 claims this node's own subnet"), "{problem}");
}

#[test]
fn addresses_are_looked_up() {
    let mut desired = node(VXLAN);
    for (name, n) in [("10.5.52.0-24", 3), ("10.5.8.0-24", 8), ("10.5.9.0-26", 9)] {
        set(&mut desired, name, &vxlan(n, n));
    }
    let whose = |ip: &str| desired.lookup(ip.parse().unwrap()).map(|(key, _)| key.to_owned());
    assert_eq!(whose("10.5.8.255").as_deref(), Some("10.5.8.0-24"));
    assert_eq!(whose("10.5.9.63").as_deref(), Some("10.5.9.0-26"));
    assert_eq!(whose("10.5.52.7").as_deref(), Some("10.5.52.0-24"));
    for nobodys in ["10.5.9.64", "10.5.7.255", "10.5.10.0", "fd00::1"] {
        assert_eq!(whose(nobodys), None, "{nobodys}");
    }
}

#[test]
fn leases_of_one_key_are_one_tunnel_peer() {
    let mut desired = node(r#"{"Type":"wireguard"}"#);
    let value = |ip: u8| {
        format!(
            r#"{{"PublicIP":"192.0.2.{ip}","BackendType":"wireguard",
            "BackendData":{{"PublicKey":"CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg="}}}}"#
        )
    };
    set(&mut desired, "10.5.8.0-24", &value(8));
    let delta = set(&mut desired, "10.5.9.0-24", &value(8)).kernel;
    assert_eq!(delta.set_wireguard[0].1.allowed.len(), 2);
    assert!(set(&mut desired, "10.5.10.0-24", &value(9)).is_empty());
    assert!(problems(&desired)["10.5.10.0-24"].starts_with(
        "BackendData.PublicKey: the same key is at 192.0.2.9:51820 here and at 192.0.2.8:51820 in"
    ));
    assert_eq!(desired.remove("10.5.8.0-24").kernel.set_wireguard[0].1.allowed.len(), 1);
    // The last of the node's leases goes; the one that waited has the key.
    let delta = desired.remove("10.5.9.0-24").kernel;
    assert_eq!(delta.set_wireguard[0].1.endpoint.to_string(), "192.0.2.9:51820");
    assert_eq!(desired.remove("10.5.10.0-24").kernel.remove_wireguard.len(), 1);
}

#[test]
fn commands_are_run_when_leases_come_change_and_go() {
    let mut desired =
        node(r#"{"Type":"extension","SubnetAddCommand":"add","SubnetRemoveCommand":"remove"}"#);
    let value = |ip: u8| format!(r#"{{"PublicIP":"192.0.2.{ip}","BackendType":"extension"}}"#);
    let lines = |delta: Delta| delta.commands.into_iter().map(|c| c.line).collect::<Vec<_>>();
    assert_eq!(lines(set(&mut desired, "10.5.8.0-24", &value(8))), ["add"]);
    assert!(set(&mut desired, "10.5.8.0-24", &value(8)).is_empty());
    assert_eq!(lines(set(&mut desired, "10.5.8.0-24", &value(9))), ["remove", "add"]);
    assert_eq!(desired.commands().count(), 1);
    assert_eq!(lines(desired.remove("10.5.8.0-24")), ["remove"]);
}

#[test]
fn another_configuration_takes_the_same_leases() {
    let mut desired = node(VXLAN);
    set(&mut desired, "10.5.8.0-24", &vxlan(8, 8));
    desired.refuse("junk", PeerProblem::new("value", "not JSON"));
    let direct = local(r#"{"Type":"vxlan","DirectRouting":true}"#, V4);
    let new = desired.with_local(direct).unwrap();
    assert_eq!((new.state().objects.len(), new.problems().count()), (1, 1));
}

/// What a change costs doesn't grow with the number of leases.
#[test]
fn ten_thousand_leases_one_by_one() {
    const MANY: u32 = 10_000;
    let mut desired = node(r#"{"Type":"vxlan"}"#);
    desired = desired
        .with_local({
            let mut local = desired.local().clone();
            let range = local.cluster.v4.as_mut().unwrap();
            range.network = "10.0.0.0/8".parse().unwrap();
            local
        })
        .unwrap();
    let value = |i: u32| {
        let [_, a, b, c] = i.to_be_bytes();
        format!(
            r#"{{"PublicIP":"172.16.{b}.{c}","BackendType":"vxlan",
            "BackendData":{{"VNI":1,"VtepMAC":"aa:00:00:{a:02x}:{b:02x}:{c:02x}"}}}}"#
        )
    };
    let leases: Vec<_> = (1..=MANY)
        .map(|i| {
            let name = format!("10.{}.{}.0-24", 64 + (i >> 8), i & 0xff);
            (name.clone(), lease(&name, &value(i)))
        })
        .collect();
    let time = |desired: &mut Desired, part: &[(String, Lease)]| {
        let start = Instant::now();
        for (name, lease) in part {
            assert_eq!(desired.set(name, 1, lease.clone()).kernel.add.len(), 3);
        }
        start.elapsed()
    };
    let first = time(&mut desired, &leases[..1000]);
    time(&mut desired, &leases[1000..9000]);
    let last = time(&mut desired, &leases[9000..]);
    assert_eq!(desired.state().objects.len(), 30_000);
    assert!(last < first * 8 + std::time::Duration::from_millis(200), "{first:?} {last:?}");
    let start = Instant::now();
    for (name, lease) in &leases {
        assert!(desired.set(name, 1, lease.clone()).is_empty());
    }
    println!("1000 leases: first {first:?}, last {last:?}; 10000 renewals {:?}", start.elapsed());
}

#[derive(Debug, Clone)]
enum Op {
    Set(usize, Revision, usize),
    Remove(usize),
    Refuse(usize),
}

const NAMES: [&str; 12] = [
    "10.5.52.0-24",
    "10.5.52.0-25",
    "10.5.8.0-24",
    "10.5.8.0-25",
    "10.5.8.128-25",
    "10.5.8.0-24&fd00:5:0:8::-64",
    "10.5.9.0-24",
    "10.5.10.0-24&fd00:5:0:8::-64",
    "10.5.0.0-20",
    "10.6.0.0-24",
    "0.0.0.0-0&fd00:5:0:9::-64",
    "10.5.52.0-24&fd00:5:0:7::-64",
];

const BACKENDS: [&str; 8] = [
    VXLAN,
    r#"{"Type":"vxlan","DirectRouting":true}"#,
    r#"{"Type":"host-gw"}"#,
    r#"{"Type":"udp"}"#,
    r#"{"Type":"wireguard"}"#,
    r#"{"Type":"wireguard","Mode":"auto"}"#,
    r#"{"Type":"extension","SubnetAddCommand":"a","SubnetRemoveCommand":"r"}"#,
    r#"{"Type":"alloc"}"#,
];

/// One of a few values, so that leases contradict each other often.
fn value(n: usize, backend: &str) -> String {
    let kind = backend.split('"').nth(3).unwrap_or_default();
    let ip = [8, 9, 3][n % 3];
    let mac = 8 + (n / 3) % 2;
    let key = [
        "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=",
        "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=",
    ][(n / 3) % 2];
    let data = match (kind, n / 6) {
        (_, 3) => "5".to_owned(),
        ("vxlan", _) => format!(r#"{{"VNI":{},"VtepMAC":"aa:00:00:00:00:{mac:02x}"}}"#, 1 + n / 12),
        ("wireguard", _) => format!(r#"{{"PublicKey":"{key}","Port":{}}}"#, 4000 + n / 12),
        _ => "\"x\"".to_owned(),
    };
    let kind = match kind {
        "udp" | "alloc" => String::new(),
        _ => format!(r#""BackendType":"{kind}","#),
    };
    let far = if n % 5 == 4 { "198.51.100" } else { "192.0.2" };
    format!(
        r#"{{"PublicIP":"{far}.{ip}","PublicIPv6":"2001:db8::{ip}",{kind}
            "BackendData":{data},"BackendV6Data":{data}}}"#
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..NAMES.len(), 0..6i64, 0usize..24)
            .prop_map(|(name, created, value)| Op::Set(name, created, value)),
        2 => (0..NAMES.len()).prop_map(Op::Remove),
        1 => (0..NAMES.len()).prop_map(Op::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// However the leases came, what follows from them is what follows from those that
    /// are left, in whatever order; and the deltas lead there.
    #[test]
    fn deltas_lead_where_the_leases_do(ops in prop::collection::vec(op(), 0..60),
            backend in 0..BACKENDS.len(), dual in any::<bool>(), kernel in any::<bool>()) {
        let backend = BACKENDS[backend];
        let families = if dual { &Family::ALL[..] } else { V4 };
        let mut local = local(backend, families);
        local.kernel_wireguard = kernel;
        local.blackhole = dual;
        local.subnets.push(Subnets { v4: Some("10.5.60.0/24".parse().unwrap()), v6: None });
        let mut desired = Desired::new(local.clone()).unwrap();
        let mut world = World::of(&desired);
        let mut left: BTreeMap<&str, (Revision, Lease)> = BTreeMap::new();
        let mut running: BTreeSet<String> = BTreeSet::new();
        for op in ops {
            let delta = match op {
                Op::Set(name, created, n) => {
                    let lease = lease(NAMES[name], &value(n, backend));
                    left.insert(NAMES[name], (created, lease.clone()));
                    desired.set(NAMES[name], created, lease)
                }
                Op::Remove(name) => {
                    left.remove(NAMES[name]);
                    desired.remove(NAMES[name])
                }
                Op::Refuse(name) => {
                    desired.refuse(NAMES[name], PeerProblem::new("value", "not JSON"));
                    Delta::default()
                }
            };
            for command in &delta.commands {
                let about = format!("{:?}", (&command.env, &command.stdin));
                let changed = if command.line == "a" { running.insert(about) } else { running.remove(&about) };
                prop_assert!(changed);
            }
            world.apply(delta);
            prop_assert_eq!(&world, &World::of(&desired));
        }
        let mut fresh = Desired::new(local).unwrap();
        for (name, (created, lease)) in &left {
            fresh.set(name, *created, lease.clone());
            prop_assert_eq!(key::parse(name).unwrap(), lease.subnets);
        }
        prop_assert_eq!(fresh.state(), desired.state());
        prop_assert_eq!(World::of(&fresh), world);
        prop_assert_eq!(fresh.commands().count(), running.len());
        let wrong = |d: &Desired| {
            let all = d.peers().filter(|(_, p)| matches!(p.state, PeerState::Problem(_)));
            all.map(|(key, _)| key.to_owned()).collect::<Vec<_>>()
        };
        prop_assert_eq!(wrong(&fresh), wrong(&desired));
    }
}
