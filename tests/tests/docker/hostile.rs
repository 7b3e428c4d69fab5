//! Every method of the plugin, called as nobody should: no dockerd is needed for that.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::{
    Daemon, DaemonConfig, Sandbox, case, docker::Plugin, inventory, stack::check_nothing_left,
};

const METHODS: [&str; 22] = [
    "Plugin.Activate",
    "NetworkDriver.GetCapabilities",
    "NetworkDriver.AllocateNetwork",
    "NetworkDriver.FreeNetwork",
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.EndpointOperInfo",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.DiscoverNew",
    "NetworkDriver.DiscoverDelete",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
    "IpamDriver.GetCapabilities",
    "IpamDriver.GetDefaultAddressSpaces",
    "IpamDriver.RequestPool",
    "IpamDriver.ReleasePool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
    "NetworkDriver.NoSuchMethod",
];

const ID: &str = "e6e92bdf40345853f5933ad7657985747e1d52245afa69a2efd9f85959b091e8";

/// A document in which every field that any method knows is `value`.
fn all_fields(value: &Value) -> Value {
    let names = [
        "NetworkID",
        "EndpointID",
        "Options",
        "IPv4Data",
        "IPv6Data",
        "Interface",
        "SandboxKey",
        "Pool",
        "SubPool",
        "V6",
        "PoolID",
        "Address",
        "AddressSpace",
        "DiscoveryType",
    ];
    names
        .into_iter()
        .map(|name| (name.to_owned(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn documents() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        &b""[..],
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{}",
        b"{\"NetworkID\": \"\\ud800\"}",
        b"17",
    ]
    .map(<[u8]>::to_vec)
    .into();
    all.push("[".repeat(100_000).into_bytes());
    all.push(vec![b' '; 3 << 20]);
    let long = "x".repeat(200_000);
    for value in [
        Value::Null,
        json!(""),
        json!("\u{0}"),
        json!("../../etc/passwd"),
        json!(long),
        json!(-1),
        json!(u64::MAX),
        json!(true),
        json!([]),
        json!({}),
        json!([[[[]]]]),
        json!({"a": {"b": []}}),
        json!("0.0.0.0/0"),
        json!("::/0"),
        json!("255.255.255.255/32"),
        json!("/dev/zero"),
        json!(ID),
    ] {
        all.push(all_fields(&value).to_string().into_bytes());
    }
    let plausible = [
        json!({"NetworkID": ID, "Options": {"com.docker.network.generic": {"netd.bridge": "../x"}},
            "IPv4Data": [{"Pool": "10.5.0.0/24", "AddressSpace": "netd"}]}),
        json!({"NetworkID": ID, "IPv4Data": vec![json!({"Pool": "10.5.0.0/24"}); 5000]}),
        json!({"NetworkID": ID, "EndpointID": ID, "Interface": {"Address": "10.88.0.77/16",
            "MacAddress": "01:00:00:00:00:00"}}),
        json!({"NetworkID": ID, "EndpointID": ID, "Interface": {"Address": "10.88.0.1/16"}}),
        json!({"EndpointID": "pod-0", "SandboxKey": "/proc/self/ns/net"}),
        json!({"EndpointID": ID, "Options": {"com.docker.network.portmap":
            vec![json!({"Proto": 6, "Port": 80, "HostPort": 1}); 3000]}}),
        json!({"PoolID": "10.88.0.0/16@fd00::/8"}),
        json!({"PoolID": "10.88.0.0/16", "Address": "10.99.0.1"}),
        json!({"Pool": "10.88.0.0/16", "SubPool": "10.0.0.0/8"}),
    ];
    all.extend(plausible.iter().map(|value| value.to_string().into_bytes()));
    all
}

#[test]
fn every_method_answers_nonsense_with_an_error_and_leaves_nothing() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut config = DaemonConfig::default();
        config.networks += "[gc]\ngrace = \"1s\"\ninterval = \"1s\"\nunsafe_short_grace = true\n";
        let mut netd = Daemon::start(&host, &config)?;
        let before = inventory::of(&host)?;
        let mut plugin = Plugin::start(&host)?;
        // A pod whose id a caller might name.
        let pod = Sandbox::attached(&host, "pod")?;
        for method in METHODS {
            for document in documents() {
                let (status, answer) = plugin.call(method, &document)?;
                let error = answer["Err"].as_str().unwrap_or_default();
                ensure!((status == 200) == error.is_empty(), "{method}: {status} {answer}");
                ensure!(answer.is_object() && error.len() < 10_000, "{method}: {answer}");
            }
        }
        plugin.service.check_alive()?;
        netd.service().check_alive()?;
        ensure!(netd.status()?.ready);
        let endpoints = netd.endpoints()?;
        ensure!(endpoints.iter().any(|e| e.sandbox_id == pod.id), "the pod: {endpoints:?}");
        pod.net.sh("ip -o address show eth0 | grep -q 10.88.")?;
        pod.call("DEL").execute(&host)?.ok()?;
        plugin
            .call("NetworkDriver.DeleteNetwork", json!({"NetworkID": ID}).to_string().as_bytes())?;
        check_nothing_left(&host, &netd, &before)
    })
}

fn ok(plugin: &Plugin, method: &str, document: &Value) -> Result<Value> {
    let (status, answer) = plugin.call(method, document.to_string().as_bytes())?;
    ensure!(status == 200, "{method}: {status} {answer}");
    Ok(answer)
}

fn refused(plugin: &Plugin, method: &str, document: &Value) -> Result<String> {
    let (status, answer) = plugin.call(method, document.to_string().as_bytes())?;
    ensure!(status != 200, "{method} should be refused: {answer}");
    answer["Err"].as_str().map(str::to_owned).context("no Err")
}

#[test]
fn calls_are_repeated_and_come_out_of_order() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut config = DaemonConfig::default();
        config.networks += "[gc]\ngrace = \"2s\"\ninterval = \"1s\"\nunsafe_short_grace = true\n";
        let netd = Daemon::start(&host, &config)?;
        let before = inventory::of(&host)?;
        let plugin = Plugin::start(&host)?;
        let network = json!({"NetworkID": ID, "Options": {}, "IPv4Data":
            [{"Pool": "10.5.0.0/29", "Gateway": "10.5.0.1/29", "AddressSpace": "netd"}]});
        for _ in 0..2 {
            ok(&plugin, "NetworkDriver.CreateNetwork", &network)?;
        }
        let other = json!({"NetworkID": ID, "IPv4Data": [{"Pool": "10.6.0.0/24"}]});
        refused(&plugin, "NetworkDriver.CreateNetwork", &other)?;
        let endpoint = json!({"EndpointID": ID, "SandboxKey": "/nowhere/at/all"});
        for method in ["Join", "EndpointOperInfo", "ProgramExternalConnectivity"] {
            let said = refused(&plugin, &format!("NetworkDriver.{method}"), &endpoint)?;
            ensure!(said.contains("EndpointID"), "{said}");
        }
        for method in ["Leave", "DeleteEndpoint", "RevokeExternalConnectivity"] {
            ok(&plugin, &format!("NetworkDriver.{method}"), &endpoint)?;
        }
        // Five addresses; all reserved, then none is left.
        let pool = json!({"PoolID": "10.5.0.0/29"});
        let mut given = Vec::new();
        for _ in 0..5 {
            let answer = ok(&plugin, "IpamDriver.RequestAddress", &pool)?;
            given.push(answer["Address"].as_str().context("no address")?.to_owned());
        }
        given.sort();
        given.dedup();
        ensure!(given.len() == 5, "{given:?}");
        refused(&plugin, "IpamDriver.RequestAddress", &pool)?;
        let first = given.first().context("none")?.clone();
        let id = ID.replace('e', "f");
        let create = json!({"NetworkID": ID, "EndpointID": id, "Interface": {"Address": first}});
        for _ in 0..2 {
            ok(&plugin, "NetworkDriver.CreateEndpoint", &create)?;
        }
        // Released while the endpoint has it: the endpoint keeps it.
        let release = json!({"PoolID": "10.5.0.0/29", "Address": first.trim_end_matches("/29")});
        for _ in 0..2 {
            ok(&plugin, "IpamDriver.ReleaseAddress", &release)?;
        }
        refused(&plugin, "IpamDriver.RequestAddress", &pool)?;
        refused(&plugin, "NetworkDriver.DeleteNetwork", &json!({"NetworkID": ID}))?;
        let join = json!({"EndpointID": id, "SandboxKey": "/nowhere/at/all"});
        let joined = ok(&plugin, "NetworkDriver.Join", &join)?;
        ensure!(ok(&plugin, "NetworkDriver.Join", &join)? == joined, "joining again");
        let source = joined["InterfaceName"]["SrcName"].as_str().context("no SrcName")?.to_owned();
        host.net.sh(&format!("ip -o link show dev {source}"))?;
        let elsewhere = json!({"EndpointID": id, "SandboxKey": host.net.path()});
        let publish = json!({"EndpointID": id, "Options": {"com.docker.network.portmap":
            [{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}]}});
        for _ in 0..2 {
            ok(&plugin, "NetworkDriver.ProgramExternalConnectivity", &publish)?;
        }
        ok(&plugin, "NetworkDriver.Leave", &join)?;
        ok(&plugin, "NetworkDriver.Leave", &join)?;
        ok(&plugin, "NetworkDriver.Join", &elsewhere)?;
        // Nobody ends any of it: netd collects what was never used.
        testbed::wait::until(std::time::Duration::from_secs(20), "all is collected", || {
            ok(&plugin, "NetworkDriver.Leave", &join)?;
            ensure!(netd.endpoints()?.is_empty() && netd.addresses_used()? == 0, "not yet");
            Ok(())
        })?;
        ok(&plugin, "NetworkDriver.DeleteNetwork", &json!({"NetworkID": ID}))?;
        ok(&plugin, "NetworkDriver.DeleteNetwork", &json!({"NetworkID": ID}))?;
        check_nothing_left(&host, &netd, &before)
    })
}
