use proptest::prelude::*;

use super::*;
use crate::{BackendConfig, LeaseAttrs, Subnets, WireguardMode};

fn read(json: &str) -> config::Read {
    config::parse(json.as_bytes()).unwrap()
}

fn refused(json: &str) -> String {
    config::parse(json.as_bytes()).unwrap_err().to_string()
}

#[test]
fn defaults_are_flannels() {
    let read = read(r#"{"Network":"10.5.3.7/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#);
    let (v4, v6) = (read.config.v4.unwrap(), read.config.v6.unwrap());
    assert_eq!((v4.network.to_string().as_str(), v4.subnet_len), ("10.5.0.0/16", 24));
    assert_eq!((v4.min.to_string(), v4.max.to_string()), ("10.5.1.0".into(), "10.5.255.0".into()));
    assert_eq!((v6.network.to_string().as_str(), v6.subnet_len), ("fd00:5::/48", 64));
    assert_eq!(v6.min.to_string(), "fd00:5:0:1::");
    assert_eq!(v6.max.to_string(), "fd00:5:0:ffff::");
    assert_eq!(read.config.backend, BackendConfig::Udp { port: 8285 });
    assert!(read.warnings.is_empty());
}

#[test]
fn a_small_network_is_cut_in_four() {
    for (network, len, min, max) in [
        ("10.5.0.0/22", 24, "10.5.1.0", "10.5.3.0"),
        ("10.5.0.0/23", 25, "10.5.0.128", "10.5.1.128"),
        ("10.5.0.0/28", 30, "10.5.0.4", "10.5.0.12"),
    ] {
        let v4 = read(&format!(r#"{{"Network":"{network}"}}"#)).config.v4.unwrap();
        assert_eq!((v4.subnet_len, v4.min.to_string().as_str()), (len, min), "{network}");
        assert_eq!(v4.max.to_string(), max, "{network}");
    }
    let v6 = read(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/124"}"#);
    let v6 = v6.config.v6.unwrap();
    assert_eq!((v6.subnet_len, v6.min.to_string().as_str()), (126, "fd00::4"));
}

#[test]
fn every_backend_with_every_option() {
    let backend = |json: &str| {
        read(&format!(r#"{{"Network":"10.5.0.0/16","Backend":{json}}}"#)).config.backend
    };
    let vxlan = BackendConfig::Vxlan {
        vni: 1,
        port: 8472,
        gbp: false,
        learning: false,
        direct_routing: false,
        mtu: None,
    };
    assert_eq!(backend(r#"{"Type":"VXLAN","Port":0,"MTU":0}"#), vxlan);
    let all = r#"{"type":"vxlan","VNI":4096,"Port":4789,"GBP":true,"Learning":true,
        "DirectRouting":true,"MTU":9000}"#;
    let vxlan = BackendConfig::Vxlan {
        vni: 4096,
        port: 4789,
        gbp: true,
        learning: true,
        direct_routing: true,
        mtu: Some(9000),
    };
    assert_eq!(backend(all), vxlan);
    assert_eq!(backend(r#"{"Type":"host-gw"}"#), BackendConfig::HostGw);
    assert_eq!(backend(r#"{"Type":"alloc"}"#), BackendConfig::Alloc);
    assert_eq!(backend(r#"{"Type":"udp","Port":9}"#), BackendConfig::Udp { port: 9 });
    let ipip = BackendConfig::Ipip { direct_routing: true };
    assert_eq!(backend(r#"{"Type":"ipip","DirectRouting":true}"#), ipip);
    let all = r#"{"Type":"wireguard","Mode":"auto","PSK":"","ListenPort":1,"ListenPortV6":2,
        "MTU":1400,"PersistentKeepaliveInterval":25}"#;
    let wireguard = BackendConfig::Wireguard {
        mode: WireguardMode::Auto,
        preshared_key: None,
        port: 1,
        port_v6: 2,
        mtu: Some(1400),
        keepalive: 25,
    };
    assert_eq!(backend(all), wireguard);
    let all = r#"{"Type":"extension","PreStartupCommand":"a","PostStartupCommand":"b",
        "SubnetAddCommand":"c","SubnetRemoveCommand":"d"}"#;
    let [pre_startup, post_startup, subnet_add, subnet_remove] =
        ["a", "b", "c", "d"].map(Into::into);
    let extension =
        BackendConfig::Extension { pre_startup, post_startup, subnet_add, subnet_remove };
    assert_eq!(backend(all), extension);
}

#[test]
fn unknown_keys_are_warned_about() {
    let json = r#"{"Network":"10.5.0.0/16","EnableNFTables":true,"Future":1,
        "Backend":{"Type":"vxlan","Colour":"red","Port":null}}"#;
    let warnings = read(json).warnings;
    assert_eq!(warnings, ["Backend.Colour: unknown key, ignored", "Future: unknown key, ignored"]);
}

/// Each key wrong in turn: the message names the key, the value, and what is right.
#[test]
fn every_key_is_checked() {
    let network = r#""Network":"10.5.0.0/16""#;
    for (json, wanted) in [
        ("", "config: not JSON: EOF"),
        ("[]", "config: not a JSON object"),
        ("{}", "Network: missing; it is needed as long as EnableIPv4 is true"),
        (r#"{"EnableIPv4":false}"#, "EnableIPv4: false, and so is EnableIPv6"),
        (r#"{"EnableIPv6":true,$}"#, "IPv6Network: missing"),
        (r#"{"EnableIPv4":"yes",$}"#, "EnableIPv4: \"yes\" is neither true nor false"),
        (r#"{"EnableNFTables":1,$}"#, "EnableNFTables: 1 is neither true nor false"),
        (r#"{"Network":5}"#, "Network: 5 is not a string"),
        (r#"{"Network":"10.5.0.0"}"#, "Network: \"10.5.0.0\" is not an IPv4 network"),
        (r#"{"Network":"fd00::/48"}"#, "Network: \"fd00::/48\" is not an IPv4 network"),
        (r#"{"Network":"127.0.0.0/8"}"#, "Network: 127.0.0.0/8 is a loopback range"),
        (r#"{"Network":"0.0.0.0/0"}"#, "Network: 0.0.0.0/0 is an unspecified range"),
        (r#"{"Network":"10.5.0.0/29"}"#, "Network: a /29 is too small; it must be a /28"),
        (r#"{"SubnetLen":31,$}"#, "SubnetLen: 31 is too long; at most 30"),
        (r#"{"SubnetLen":17,$}"#, "SubnetLen: 17 leaves no room for four subnets in a /16"),
        (r#"{"SubnetLen":-1,$}"#, "SubnetLen: -1 is not a whole number in 0..=255"),
        (r#"{"SubnetLen":"24",$}"#, "SubnetLen: \"24\" is not a whole number"),
        (r#"{"SubnetMin":"10.6.0.0",$}"#, "SubnetMin: 10.6.0.0 is outside Network"),
        (r#"{"SubnetMin":"10.5.1.1",$}"#, "SubnetMin: 10.5.1.1 is not the first address of a /24"),
        (r#"{"SubnetMax":"x",$}"#, "SubnetMax: \"x\" is not an IPv4 address"),
        (
            r#"{"SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0",$}"#,
            "SubnetMax: 10.5.8.0 is before SubnetMin, 10.5.9.0",
        ),
        (r#"{"Backend":5,$}"#, "Backend: not an object"),
        (r#"{"Backend":{},$}"#, "Backend.Type: missing; one of vxlan, host-gw"),
        (r#"{"Backend":{"Type":"ipsec"},$}"#, "Backend.Type: \"ipsec\" is not supported; one of"),
        (r#"{"Backend":{"Type":"tencent-vpc"},$}"#, "Backend.Type: \"tencent-vpc\" is not"),
        (r#"{"Backend":{"Type":"vxlan","VNI":16777216},$}"#, "Backend.VNI: 16777216 is not"),
        (
            r#"{"Backend":{"Type":"vxlan","VNI":16777215},$}"#,
            "Backend.VNI: 16777215 is above 9999999: flannel.16777215 is too long",
        ),
        (r#"{"Backend":{"Type":"vxlan","Port":65536},$}"#, "Backend.Port: 65536 is not"),
        (r#"{"Backend":{"Type":"vxlan","GBP":"no"},$}"#, "Backend.GBP: \"no\" is neither"),
        (r#"{"Backend":{"Type":"vxlan","MTU":100},$}"#, "Backend.MTU: 100 is not a whole number"),
        (r#"{"Backend":{"Type":"udp","Port":0},$}"#, "Backend.Port: 0 is not a whole number in 1"),
        (r#"{"Backend":{"Type":"wireguard","Mode":"v4"},$}"#, "Backend.Mode: \"v4\" is none of"),
        (r#"{"Backend":{"Type":"wireguard","PSK":"secret"},$}"#, "Backend.PSK: not 32 bytes in"),
        (
            r#"{"Backend":{"Type":"wireguard","PersistentKeepaliveInterval":1.5},$}"#,
            "Backend.PersistentKeepaliveInterval: 1.5 is not a whole number",
        ),
        (
            r#"{"Backend":{"Type":"extension","SubnetAddCommand":[]},$}"#,
            "Backend.SubnetAddCommand: a list is not a string",
        ),
    ] {
        let problem = refused(&json.replace('$', network));
        assert!(problem.starts_with(wanted), "{json}: {problem}");
        assert!(!problem.contains("; SubnetL"), "{json}: one mistake, one message: {problem}");
    }
    assert!(!refused(&"x".repeat(LONGEST + 1)).contains("xx"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let json = r#"{"Network":"x","SubnetLen":"y","EnableIPv6":true,"IPv6Network":"fd00::/48",
        "IPv6SubnetLen":200,"Backend":{"Type":"vxlan","VNI":-1,"Port":"z"}}"#;
    let fields: Vec<_> = config::parse(json.as_bytes())
        .unwrap_err()
        .violations
        .into_iter()
        .map(|v| v.field)
        .collect();
    let wanted = ["SubnetLen", "Network", "IPv6SubnetLen", "Backend.VNI", "Backend.Port"];
    let mut sorted = fields.clone();
    sorted.sort();
    let mut expected = wanted.map(String::from).to_vec();
    expected.sort();
    assert_eq!(sorted, expected, "{fields:?}");
}

#[test]
fn names_of_leases() {
    for name in
        ["10.5.52.0-24", "10.5.52.0-24&fc00:5:0:7::-64", "0.0.0.0-0&fd00::-64", "10.0.0.0-8"]
    {
        assert_eq!(key::name(&key::parse(name).unwrap()), name);
    }
    // Another spelling of an address is taken, and written as it ought to be.
    let read = key::parse("10.5.52.0-24&FC00:5:0:7:0:0:0:0-64").unwrap();
    assert_eq!(key::name(&read), "10.5.52.0-24&fc00:5:0:7::-64");
    for bad in [
        "",
        "config",
        "10.5.52.0",
        "10.5.52.0-",
        "10.5.52.0/24",
        "10.5.52.0-33",
        "10.5.52.0-31",
        "10.5.52.0-0",
        "10.5.52.0-024",
        "10.5.52.0-+24",
        "10.5.52.1-24",
        "10.5.052.0-24",
        "10.5.52-24",
        "x10.5.52.0-24",
        "10.5.52.0-24 ",
        "10.5.52.0-24&",
        "10.5.52.0-24&fc00::-64&fc00::-64",
        "10.5.52.0-24&fc00::1-64",
        "10.5.52.0-24&::ffff:0:0-96",
        "0.0.0.0-0",
        "fc00::-64",
        "10.5.52.0-24&10.5.53.0-24",
    ] {
        let problem = key::parse(bad).unwrap_err().to_string();
        assert!(problem.contains("a lease is named like"), "{problem}");
    }
    assert!(key::parse(&"1".repeat(1 << 20)).unwrap_err().to_string().len() < 300);
}

#[test]
fn values_are_read_leniently_but_typed() {
    let json = r#"{"publicip":"192.0.2.3","Future":{"a":[1]},"BackendType":"","BackendData":null}"#;
    let attrs = value::parse(json.as_bytes()).unwrap();
    let wanted =
        LeaseAttrs { public_v4: Some("192.0.2.3".parse().unwrap()), ..LeaseAttrs::default() };
    assert_eq!(attrs, wanted);
    for (json, wanted) in [
        ("", "value: not JSON: EOF"),
        ("5", "value: not a JSON object"),
        (r#"{"PublicIP":5}"#, "PublicIP: 5 is not a string"),
        (r#"{"PublicIP":"::1"}"#, "PublicIP: \"::1\" is not an IPv4 address"),
        (r#"{"PublicIPv6":"1.2.3.4"}"#, "PublicIPv6: \"1.2.3.4\" is not an IPv6 address"),
        (r#"{"BackendType":{}}"#, "BackendType: an object is not a string"),
        (r#"{"PublicIP":"192.0.2.3"}x"#, "value: not JSON: trailing"),
    ] {
        let problem = value::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(problem.starts_with(wanted), "{json}: {problem}");
    }
    let huge = format!(r#"{{"PublicIP":"192.0.2.3","x":"{}"}}"#, "x".repeat(LONGEST));
    assert!(value::parse(huge.as_bytes()).unwrap_err().to_string().contains("at most 65536"));
    // Deeper than any reader's stack.
    let deep = format!(r#"{{"BackendData":{}"#, "[".repeat(60_000));
    assert!(value::parse(deep.as_bytes()).is_err());
}

#[test]
fn subnet_env_is_flannels() {
    for golden in [include_str!("golden/subnet.env"), include_str!("golden/subnet-dual.env")] {
        let read = subnet_env::SubnetEnv::parse(golden).unwrap();
        assert_eq!(read.render(), golden);
        assert_eq!(read.subnets().unwrap().v4.unwrap().to_string(), "10.5.52.0/24");
    }
    let odd = "# by hand\n FLANNEL_MTU=\"1400\"\r\nFLANNEL_IPMASQ='false'\n\nOTHER=1";
    let read = subnet_env::SubnetEnv::parse(odd).unwrap();
    assert_eq!((read.mtu, read.ip_masq, read.subnets()), (1400, false, None));
    let bad = "FLANNEL_SUBNET=10.5.52.1\nFLANNEL_MTU=-1\n";
    let problem = subnet_env::SubnetEnv::parse(bad).unwrap_err().to_string();
    assert_eq!(
        problem,
        "FLANNEL_NETWORK: missing; FLANNEL_SUBNET: \"10.5.52.1\" is unreadable; \
         FLANNEL_MTU: \"-1\" is unreadable; FLANNEL_IPMASQ: missing"
    );
}

prop_compose! {
    fn subnets()(v4 in any::<u32>(), l4 in 1u8..=30, v6 in any::<u128>(), l6 in 1u8..=126,
                 which in 0..3) -> Subnets {
        let v4 = ipnet::Ipv4Net::new(v4.into(), l4).unwrap().trunc();
        let v6 = ipnet::Ipv6Net::new(v6.into(), l6).unwrap().trunc();
        Subnets { v4: (which != 1).then_some(v4), v6: (which != 0).then_some(v6) }
    }
}

proptest! {
    #[test]
    fn names_come_back(subnets in subnets()) {
        let mapped = subnets.v6.is_some_and(|n| n.addr().to_ipv4_mapped().is_some());
        prop_assume!(!mapped);
        prop_assert_eq!(key::parse(&key::name(&subnets)).unwrap(), subnets);
    }

    #[test]
    fn hostile_text_never_panics(text in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = key::parse(&text);
        let _ = key::parse(&format!("10.5.0.0-24&{text}"));
        let _ = subnet_env::SubnetEnv::parse(&text);
        let _ = subnet_env::SubnetEnv::parse(&format!("FLANNEL_SUBNET={text}"));
        let _ = value::parse(&bytes);
        let _ = config::parse(&bytes);
    }

    #[test]
    fn any_network_with_any_length_is_answered(base in any::<u32>(), prefix in 0u8..=32,
            len in 0u16..300, min in any::<u32>(), v6 in any::<u128>(), prefix6 in 0u8..=128) {
        let (network, min) = (std::net::Ipv4Addr::from(base), std::net::Ipv4Addr::from(min));
        let v6 = std::net::Ipv6Addr::from(v6);
        let json = format!(r#"{{"Network":"{network}/{prefix}","SubnetLen":{len},
            "SubnetMin":"{min}","EnableIPv6":true,"IPv6Network":"{v6}/{prefix6}",
            "IPv6SubnetLen":{len},"IPv6SubnetMax":"{v6}"}}"#);
        if let Ok(read) = config::parse(json.as_bytes()) {
            let v4 = read.config.v4.unwrap();
            prop_assert!(v4.network.contains(&v4.min) && v4.network.contains(&v4.max));
            prop_assert!(v4.min <= v4.max);
        }
    }

    #[test]
    fn values_come_back(v4 in any::<Option<u32>>(), v6 in any::<Option<u128>>(),
            kind in prop::option::of("[ -~]{1,20}"), text in prop::option::of(".{0,40}")) {
        let attrs = LeaseAttrs {
            public_v4: v4.filter(|n| *n != 0).map(Into::into),
            public_v6: v6.filter(|n| *n != 0).map(Into::into),
            backend_type: kind,
            data_v4: text.clone().map(|t| serde_json::Value::String(t).into()),
            data_v6: text
                .map(|t| serde_json::json!({"Port": 5, "PublicKey": t, "a": [1]}).into()),
        };
        let json = value::format(&attrs);
        prop_assert_eq!(value::parse(json.as_bytes()).unwrap(), attrs, "{}", json);
    }
}
