#![allow(clippy::unwrap_used)]

use super::*;
use crate::domain::{Driver, Invalid};

fn parse(text: &str) -> Result<Config, Invalid> {
    with(text, &[])
}

fn with(text: &str, overrides: &[(&'static str, &str)]) -> Result<Config, Invalid> {
    let overrides = overrides
        .iter()
        .map(|(path, value)| Override {
            path,
            origin: format!("--{path}"),
            value: (*value).to_owned(),
        })
        .collect();
    let (text, hostname) = (text.to_owned(), "Node-1".to_owned());
    Sources { file: "t.toml".into(), text, overrides, hostname }.config()
}

#[test]
fn nothing_configured_gives_a_working_node() {
    let c = parse("").unwrap();
    assert_eq!(c.node, "node-1");
    assert_eq!(c.socket.to_str(), Some("/run/netd/netd.sock"));
    assert_eq!(c.metrics_listen.unwrap().to_string(), "127.0.0.1:9479");
    assert_eq!((c.gc.grace.as_secs(), c.gc.interval.as_secs()), (300, 60));
    assert_eq!((c.hostport_mark, c.kube_proxy_mark), (0x2000, 0x4000));
    let [net] = c.networks.as_slice() else { panic!("one network") };
    assert_eq!((net.name.as_str(), net.bridge.as_str()), ("default", "cni0"));
    assert!(net.masquerade && net.pools.len() == 2);
}

/// The path in the error, a word of it, and the text that has it.
const WRONG: [(&str, &str, &str); 47] = [
    ("node", "no DNS name", "node = \"a_b\""),
    ("node", "not a text", "node = 5"),
    ("socket", "absolute", "socket = \"netd.sock\""),
    ("socket", "..", "socket = \"/run/../netd.sock\""),
    ("socket", "names no file", "socket = \"/\""),
    ("socket_group", "neither", "socket_group = \"a b\""),
    ("socket_group", "neither", "socket_group = -1"),
    ("state_dir", "absolute", "state_dir = \"x\""),
    ("run_dir", "control", "run_dir = \"/x\\u0000y\""),
    ("metrics_listen", "port", "metrics_listen = \"127.0.0.1\""),
    ("metrics_listen", "off", "metrics_listen = \"none\""),
    ("log", "[log]", "log = 1"),
    ("log.format", "auto", "log.format = \"xml\""),
    ("log.filter", "info", "log.filter = \"inof\""),
    ("log.filter", "log filter", "log.filter = \"netd=loud\""),
    ("log.filtre", "filter", "log.filtre = \"info\""),
    ("gc.grace", "4m", "gc.grace = \"1m\""),
    ("gc.grace", "unit", "gc.grace = 300"),
    ("gc.grace", "no duration", "gc.grace = \"5 parsecs\""),
    ("gc.grace", "between", "gc.grace = \"800days\""),
    ("gc.interval", "between", "gc.interval = \"0s\""),
    ("gc.unsafe_short_grace", "true nor false", "gc.unsafe_short_grace = 1"),
    ("tombstone_ttl", "4m", "tombstone_ttl = \"1s\""),
    ("hostport_mark", "one of 32 bits", "hostport_mark = 3"),
    ("hostport_mark", "kube_proxy_mark", "hostport_mark = 0x4000"),
    ("kube_proxy_mark", "one of 32 bits", "kube_proxy_mark = \"0xg\""),
    ("underlay", "15 bytes", "underlay = \"a234567890123456\""),
    ("sockt", "\"socket\"", "sockt = \"/x\""),
    ("networks", "\"network\"", "[[networks]]\nname = \"a\""),
    ("network", "[[network]]", "network = 1"),
    ("network[0]", "[[network]]", "network = [1]"),
    ("network[0].name", "needs a name", "[[network]]\npool = [{subnet=\"10.1.0.0/16\"}]"),
    ("network[0].name", "a-z", "network = [{name=\"A\", pool=[{subnet=\"10.1.0.0/16\"}]}]"),
    ("network[0].pool", "at least one", "network = [{name=\"a\"}]"),
    (
        "network[0].driver",
        "routed",
        "network = [{name=\"a\", driver=\"b\", pool=[{subnet=\"10.1.0.0/16\"}]}]",
    ),
    (
        "network[0].bridge",
        "15",
        "network = [{name=\"a\", bridge=\"a234567890123456\", pool=[{subnet=\"10.1.0.0/16\"}]}]",
    ),
    (
        "network[0].bridge",
        "no bridge",
        "network = [{name=\"a\", driver=\"routed\", bridge=\"b\", pool=[{subnet=\"10.1.0.0/16\"}]}]",
    ),
    ("network[0].mtu", "576", "network = [{name=\"a\", mtu=5, pool=[{subnet=\"10.1.0.0/16\"}]}]"),
    (
        "network[0].mtu",
        "number",
        "network = [{name=\"a\", mtu=-5, pool=[{subnet=\"10.1.0.0/16\"}]}]",
    ),
    (
        "network[0].masquerade",
        "internal",
        "network = [{name=\"a\", masquerade=true, internal=true, pool=[{subnet=\"10.1.0.0/16\"}]}]",
    ),
    (
        "network[0].internal",
        "true nor false",
        "network = [{name=\"a\", internal=\"no\", pool=[{subnet=\"10.1.0.0/16\"}]}]",
    ),
    ("network[0].pool[0].subnet", "needs a subnet", "network = [{name=\"a\", pool=[{}]}]"),
    (
        "network[0].pool[0].subnet",
        "host bits",
        "network = [{name=\"a\", pool=[{subnet=\"10.1.0.1/16\"}]}]",
    ),
    (
        "network[0].pool[0].gateway",
        "outside",
        "network = [{name=\"a\", pool=[{subnet=\"10.1.0.0/16\", gateway=\"10.2.0.1\"}]}]",
    ),
    (
        "network[0].pool[0].range_start",
        "IP address",
        "network = [{name=\"a\", pool=[{subnet=\"10.1.0.0/16\", range_start=\"x\"}]}]",
    ),
    (
        "network[0].pool[0].reserved",
        "address or a subnet",
        "network = [{name=\"a\", pool=[{subnet=\"10.1.0.0/16\", reserved=[\"x\"]}]}]",
    ),
    (
        "network[0].pool[1].subnet",
        "overlaps",
        "network = [{name=\"a\", pool=[{subnet=\"10.1.0.0/16\"},{subnet=\"10.1.2.0/24\"}]}]",
    ),
];

#[test]
fn each_wrong_key_is_refused_under_its_own_path() {
    for (path, word, text) in WRONG {
        let found = parse(text).unwrap_err().violations;
        let [one] = found.as_slice() else { panic!("{text}: {found:?}") };
        assert_eq!(one.field, path, "{text}: {one:?}");
        assert!(one.problem.contains(word), "{text}: {one:?}");
    }
}

#[test]
fn all_errors_of_all_sources_come_at_once_with_their_origin() {
    let text = "socket = \"x\"\n[gc]\ngrace = \"1s\"\n[[network]]\nname = \"A\"\nnope = 1";
    let found = with(text, &[("log.format", "xml")]).unwrap_err().violations;
    let fields: Vec<_> = found.iter().map(|v| v.field.as_str()).collect();
    let want = ["socket", "log.format", "gc.grace", "network[0].name", "network[0].nope"];
    assert_eq!(fields, want);
    assert!(found[1].problem.contains("(from --log.format)"), "{found:?}");
}

#[test]
fn overrides_go_before_the_file() {
    let text = "node = \"from-file\"\nmetrics_listen = \"[::1]:1\"\n[gc]\ngrace = \"10m\"";
    let given = [
        ("node", "from-flag"),
        ("gc.unsafe_short_grace", "true"),
        ("gc.grace", "2s"),
        ("metrics_listen", "off"),
        ("hostport_mark", "0x10000"),
    ];
    let c = with(text, &given).unwrap();
    assert_eq!((c.node.as_str(), c.gc.grace.as_secs()), ("from-flag", 2));
    assert_eq!((c.metrics_listen, c.hostport_mark), (None, 0x10000));
}

#[test]
fn an_override_does_not_hide_a_table_of_the_wrong_kind() {
    let err = with("gc = 5", &[("gc.grace", "10m")]).unwrap_err();
    assert_eq!(err.violations[0].field, "gc");
}

#[test]
fn networks_must_differ_in_name_bridge_and_subnets() {
    let text = r#"
        [[network]]
        name = "a"
        bridge = "br0"
        pool = [{ subnet = "10.1.0.0/16" }, { subnet = "fd00:1::/64" }]
        [[network]]
        name = "b"
        bridge = "br0"
        pool = [{ subnet = "10.2.0.0/16" }, { subnet = "fd00::/16" }]
        [[network]]
        name = "a"
        driver = "routed"
        pool = [{ subnet = "10.3.0.0/16" }]"#;
    let err = parse(text).unwrap_err();
    let fields: Vec<_> = err.violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["network[1].bridge", "network[1].pool[1].subnet", "network[2].name"]);
}

#[test]
fn networks_become_domain_networks() {
    let text = r#"
        [[network]]
        name = "blue"
        driver = "routed"
        mtu = 1400
        internal = true
        [[network.pool]]
        subnet = "10.9.0.0/24"
        gateway = "10.9.0.254"
        range_start = "10.9.0.10"
        range_end = "10.9.0.20"
        reserved = ["10.9.0.11", "10.9.0.16/30"]"#;
    let net = parse(text).unwrap().networks.remove(0);
    assert_eq!((net.driver, net.mtu, net.masquerade), (Driver::Routed, Some(1400), false));
    assert_eq!(net.pools[0].gateway.to_string(), "10.9.0.254");
    assert_eq!(net.pools[0].reserved[0].to_string(), "10.9.0.11/32");
}

#[test]
fn bad_toml_names_file_and_line() {
    let err = parse("node = \"a\"\nnode = ").unwrap_err();
    assert_eq!(err.violations[0].field, "t.toml:2");
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(
        parse(&format!("node = \"{}\"", "x".repeat(1 << 18))).unwrap_err().to_string().len() < 300
    );
}

#[test]
fn a_host_without_a_usable_name_must_set_one() {
    let sources = Sources { hostname: "bad_name".into(), ..Default::default() };
    let err = sources.config().unwrap_err();
    assert!(err.violations[0].problem.contains("set node"), "{err}");
}

#[test]
fn only_the_default_file_may_be_absent() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone.toml");
    assert!(load(Some(&gone), vec![]).unwrap_err().violations[0].field.ends_with("gone.toml"));
    assert!(load(Some(dir.path()), vec![]).unwrap_err().to_string().contains("regular file"));
    let file = dir.path().join("n.toml");
    std::fs::write(&file, "node = \"n\"").unwrap();
    assert_eq!(load(Some(&file), vec![]).unwrap().node, "n");
    std::fs::write(&file, b"\xff\xfe").unwrap();
    assert!(load(Some(&file), vec![]).is_err());
    std::fs::write(&file, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(load(Some(&file), vec![]).unwrap_err().to_string().contains("larger"));
}

#[test]
fn the_documented_example_says_the_defaults() {
    let example = include_str!("../../../deploy/netd.toml");
    assert_eq!(parse(example).unwrap(), parse("").unwrap());
}

#[test]
fn what_the_example_leaves_out_as_a_comment_can_be_put_in() {
    let example = include_str!("../../../deploy/netd.toml");
    let is_key = |l: &str| {
        l.strip_prefix("# ")
            .is_some_and(|rest| rest.split_once(" = ").is_some_and(|(k, _)| !k.contains(' ')))
    };
    let lines = example.lines().map(|l| if is_key(l) { &l[2..] } else { l });
    let text = lines.collect::<Vec<_>>().join("\n");
    let c = parse(&text).unwrap();
    assert_eq!(c.node, "node-1");
    assert_eq!(c.socket_group, Some(SocketGroup::Name("netd".into())));
    assert_eq!(c.networks[0].pools[0].range_start.to_string(), "10.244.1.0");
}
