#![allow(clippy::unwrap_used)]

use super::*;
use netd_domain::{Driver, Invalid};

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
fn hints_are_automatic_or_as_set() {
    let hints = |text| parse(text).unwrap().kernel_hints;
    assert_eq!((hints(""), hints("kernel_hints = \"auto\"")), (None, None));
    assert_eq!(
        (hints("kernel_hints = true"), hints("kernel_hints = false")),
        (Some(true), Some(false))
    );
    assert_eq!(hints("kernel_hints = \"false\""), Some(false));
}

#[test]
fn nothing_configured_gives_a_working_node() {
    let c = parse("").unwrap();
    assert_eq!(c.node, "node-1");
    assert_eq!(c.socket.to_str(), Some("/run/netd/netd.sock"));
    assert_eq!(c.metrics_listen.unwrap().to_string(), "127.0.0.1:9479");
    assert_eq!((c.gc.grace.as_secs(), c.gc.interval.as_secs()), (300, 60));
    assert_eq!(c.host_local_dir, Some("/var/lib/cni/networks".into()));
    assert_eq!((c.hostport_mark, c.kube_proxy_mark), (0x2000, 0x4000));
    let [net] = c.networks.as_slice() else { panic!("one network") };
    assert_eq!((net.name.as_str(), net.bridge.as_str()), ("default", "cni0"));
    assert!(net.masquerade && net.pools.len() == 2);
}

/// The path in the error, a word of it, and the text that has it.
const WRONG: [(&str, &str, &str); 53] = [
    ("node", "no DNS name", "node = \"a_b\""),
    ("node", "not a text", "node = 5"),
    ("socket", "absolute", "socket = \"netd.sock\""),
    ("socket", "..", "socket = \"/run/../netd.sock\""),
    ("socket", "names no file", "socket = \"/\""),
    ("socket", "the hooks' socket", "socket = \"/run/netd/hook.sock\""),
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
    ("host_local_dir", "absolute", "host_local_dir = \"cni\""),
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
    ("kernel_hints", "\"auto\"", "kernel_hints = \"yes\""),
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
    (
        "network[0].pod_namespaces",
        "not a list",
        "network = [{name=\"a\", pod_namespaces=\"shop\", pool=[{subnet=\"10.1.0.0/16\"}]}]",
    ),
    (
        "network[0].pod_namespaces[1]",
        "neither the name",
        "network = [{name=\"a\", pod_namespaces=[\"b\", \"c d\"], pool=[{subnet=\"10.1.0.0/16\"}]}]",
    ),
    (
        "network[0].pod_addresses",
        "true nor false",
        "network = [{name=\"a\", pod_addresses=1, pool=[{subnet=\"10.1.0.0/16\"}]}]",
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
fn a_network_says_which_pods_may_use_it() {
    let access = |keys: &str| {
        let text = format!("network = [{{{keys}, pool=[{{subnet=\"10.1.0.0/16\"}}]}}]");
        let access = parse(&text).unwrap().networks.remove(0).access();
        (access.namespaces().collect::<Vec<_>>().join(","), access.addresses, access.macs)
    };
    assert_eq!(access("name=\"default\""), ("*".into(), false, false));
    assert_eq!(access("name=\"blue\""), (String::new(), false, false));
    assert_eq!(access("name=\"default\", pod_namespaces=[]"), (String::new(), false, false));
    let blue = "name=\"blue\", pod_namespaces=[\"b\", \"a\"], pod_addresses=true, pod_macs=true";
    assert_eq!(access(blue), ("a,b".into(), true, true));
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
    // Of etcd and Kubernetes one can be the cluster's truth.
    let is_kubernetes = |l: &&str| l.starts_with("kubeconfig = ") || l.starts_with("api_url = ");
    let lines = example.lines().map(|l| if is_key(l) { &l[2..] } else { l });
    let lines = lines.filter(|l| !is_kubernetes(l));
    // The example's network has pools, an overlay's has none.
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text.replace("network = \"default\"", "network = \"pods\"");
    let c = parse(&text).unwrap();
    assert_eq!(etcd(c.overlay.as_ref().unwrap()).endpoints.len(), 2);
    assert_eq!(c.node, "node-1");
    assert_eq!(c.socket_group, Some(SocketGroup::Name("netd".into())));
    assert_eq!(c.networks[0].pools[0].range_start.to_string(), "10.244.1.0");
}

#[test]
fn the_example_turns_to_kubernetes_by_one_word() {
    let example = include_str!("../../../deploy/netd.toml");
    // The example's network has pools, an overlay's has none.
    let text = example.replace("network = \"default\"", "network = \"pods\"");
    let c = parse(&text.replace("enabled = false", "enabled = true")).unwrap();
    assert!(matches!(c.overlay.unwrap().source, ClusterSource::Kubernetes(_)));
}

fn etcd(overlay: &Overlay) -> &Etcd {
    match &overlay.source {
        ClusterSource::Etcd(etcd) => etcd,
        ClusterSource::Kubernetes(_) => panic!("{overlay:?}"),
    }
}

#[test]
fn kubernetes_makes_the_node_part_of_its_cluster() {
    let c = parse("[kubernetes]\nenabled = true\nkubeconfig = \"/etc/netd/kubeconfig\"").unwrap();
    let overlay = c.overlay.unwrap();
    let ClusterSource::Kubernetes(kubernetes) = &overlay.source else { panic!("{overlay:?}") };
    assert_eq!(kubernetes.net_conf.to_str(), Some("/etc/kube-flannel/net-conf.json"));
    assert_eq!(kubernetes.access.kubeconfig, Some("/etc/netd/kubeconfig".into()));
    assert!(kubernetes.network_condition && kubernetes.access.url.is_none());
    assert!(c.networks[0].leased.is_some());
    assert!(parse("[kubernetes]\nenabled = false").unwrap().overlay.is_none());
}

#[test]
fn what_contradicts_kubernetes_is_refused_with_the_key() {
    let on = "[kubernetes]\nenabled = true\n";
    for (text, key, says) in [
        ("[kubernetes]\nkubeconfig = \"/k\"".to_owned(), "kubernetes.enabled", "kubeconfig"),
        (format!("{on}[overlay]\npod_cidr = \"node\""), "overlay.pod_cidr", "podCIDRs"),
        ("[overlay]\npod_cidr = \"node\"".to_owned(), "etcd.endpoints", "needed"),
        (format!("{on}api_url = \"192.0.2.1:6443\""), "kubernetes.api_url", "https://"),
        (
            format!("{on}annotation_prefix = \"flannel\""),
            "kubernetes.annotation_prefix",
            "flannel.",
        ),
        (format!("{on}net_conf = \"relative\""), "kubernetes.net_conf", "relative"),
        (format!("{on}nodes = 3"), "kubernetes.nodes", "unknown"),
        (format!("{on}[etcd]\nendpoints = [\"http://e:2379\"]"), "etcd.endpoints", "one of both"),
        (format!("{on}[etcd]\nca_file = \"/ca\""), "etcd.endpoints", "useless"),
        (format!("{on}[overlay]\npod_cidr = \"10.5.1.0/24\""), "overlay.pod_cidr", "podCIDRs"),
        (format!("{on}[overlay]\ndocker0 = true"), "overlay.docker0", "podCIDRs"),
    ] {
        let bad = parse(&text).unwrap_err();
        let found = bad.violations.iter().any(|v| v.field == key && v.problem.contains(says));
        assert!(found, "{text}: {bad:?}");
    }
}

#[test]
fn with_etcd_the_subnets_can_be_the_nodes() {
    let etcd = "[etcd]\nendpoints = [\"http://10.0.0.1:2379\"]\n";
    let text = format!("{etcd}[overlay]\npod_cidr = \"node\"\n[kubernetes]\nkubeconfig = \"/k\"");
    let overlay = parse(&text).unwrap().overlay.unwrap();
    assert!(matches!(overlay.source, ClusterSource::Etcd(_)) && overlay.pod_cidr.is_empty());
    assert_eq!(overlay.pod_cidr_of_node.unwrap().kubeconfig, Some("/k".into()));
    let one = format!("{etcd}[overlay]\npod_cidr = [\"node\"]");
    assert!(parse(&one).unwrap().overlay.unwrap().pod_cidr_of_node.is_some());
    let mixed = format!("{etcd}[overlay]\npod_cidr = \"node, 10.1.0.0/24\"");
    assert!(parse(&mixed).unwrap_err().to_string().contains("beside"), "{mixed}");
    let chosen = parse(etcd).unwrap().overlay.unwrap();
    assert!(chosen.pod_cidr_of_node.is_none());
}

#[test]
fn etcd_endpoints_make_the_node_part_of_a_cluster_and_its_default_network_leased() {
    let c = parse("[etcd]\nendpoints = [\"http://10.0.0.1:2379\"]").unwrap();
    let overlay = c.overlay.unwrap();
    assert_eq!(etcd(&overlay).prefix, "/coreos.com/network");
    assert_eq!(etcd(&overlay).netd_prefix, "/netd/v1");
    assert_eq!(overlay.lease_ttl.as_secs(), 86400);
    assert_eq!(overlay.tunnel_socket.to_str(), Some("/run/netd/tunnel.sock"));
    assert_eq!(overlay.subnet_file.unwrap().to_str(), Some("/run/flannel/subnet.env"));
    let [net] = c.networks.as_slice() else { panic!("one network") };
    assert!(net.leased.is_some() && net.pools.is_empty() && net.masquerade);
    assert!(parse("").unwrap().overlay.is_none());
}

#[test]
fn a_leased_network_beside_others_is_the_named_one() {
    let text = "[etcd]\nendpoints=[\"http://e:2379\"]\n[overlay]\nnetwork=\"pods\"\n\
        subnet_file=\"off\"\n[[network]]\nname=\"default\"\npool=[{subnet=\"10.1.0.0/16\"}]\n\
        [[network]]\nname=\"pods\"\ndriver=\"routed\"";
    let c = parse(text).unwrap();
    let leased: Vec<_> = c.networks.iter().map(|n| (n.name.as_str(), n.leased.is_some())).collect();
    assert_eq!(leased, [("default", false), ("pods", true)]);
    assert_eq!(c.overlay.unwrap().subnet_file, None);
}

#[test]
fn each_wrong_key_of_the_overlay_is_named() {
    let e = "endpoints=[\"https://e:2379\"]";
    let wrong: [(&str, &str, String); 21] = [
        ("etcd.endpoints", "needed", "[overlay]\npublic_ip=\"10.0.0.1\"".into()),
        ("etcd.endpoints", "URL", "[etcd]\nendpoints=[\"10.0.0.1:2379\"]".into()),
        ("etcd.endpoints", "URL", "[etcd]\nendpoints=[\"http://e:2379/x\"]".into()),
        ("etcd.endpoints", "0 URLs", "[etcd]\nendpoints=[]".into()),
        ("etcd.endpoints", "mixed", "[etcd]\nendpoints=\"http://a:1,https://b:1\"".into()),
        ("etcd.endpoints", "https", "[etcd]\nendpoints=\"http://a:1\"\nca_file=\"/x\"".into()),
        ("etcd.key_file", "together", format!("[etcd]\n{e}\ncert_file=\"/x\"")),
        ("etcd.cert_file", "together", format!("[etcd]\n{e}\nkey_file=\"/x\"")),
        ("etcd.password_file", "together", format!("[etcd]\n{e}\nusername=\"x\"")),
        ("etcd.prefix", "prefix", format!("[etcd]\n{e}\nprefix=\"network\"")),
        ("etcd.netd_prefix", "must not", format!("[etcd]\n{e}\nnetd_prefix=\"/coreos.com\"")),
        ("etcd.timeout", "between", format!("[etcd]\n{e}\ntimeout=\"1ms\"")),
        ("etcd.endpoint", "endpoints", format!("[etcd]\n{e}\nendpoint=\"x\"")),
        (
            "overlay.public_ip",
            "reached",
            format!("[etcd]\n{e}\n[overlay]\npublic_ip=\"127.0.0.1\""),
        ),
        ("overlay.public_ipv6", "IPv6", format!("[etcd]\n{e}\n[overlay]\npublic_ipv6=\"1.2.3.4\"")),
        (
            "overlay.pod_cidr",
            "host bits",
            format!("[etcd]\n{e}\n[overlay]\npod_cidr=\"10.1.1.1/24\""),
        ),
        (
            "overlay.pod_cidr",
            "second",
            format!("[etcd]\n{e}\n[overlay]\npod_cidr=\"10.1.1.0/24,10.1.2.0/24\""),
        ),
        ("overlay.lease_ttl", "between", format!("[etcd]\n{e}\n[overlay]\nlease_ttl=\"1s\"")),
        ("overlay.docker0", "neither", format!("[etcd]\n{e}\n[overlay]\ndocker0=\"x\"")),
        ("overlay.subnet_file", "absolute", format!("[etcd]\n{e}\n[overlay]\nsubnet_file=\"x\"")),
        (
            "network[0].pool",
            "leases",
            format!(
                "[etcd]\n{e}\n[[network]]\nname=\"default\"\npool=[{{subnet=\"10.1.0.0/16\"}}]"
            ),
        ),
    ];
    for (path, word, text) in wrong {
        let err = parse(&text).unwrap_err();
        let hit = err.violations.iter().find(|v| v.field == path);
        assert!(hit.is_some_and(|v| v.problem.contains(word)), "{text}: {err}");
    }
}
