//! A pod gets only what the administrator lets its namespace have, however it asks.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::{
    Daemon, DaemonConfig, Sandbox, Stack, Version, case,
    cri::{self, Cri, Pod},
    wait,
};

const ALL: [&str; 5] = ["--pod-namespace", "*", "--pod-addresses", "--pod-macs", "--output=json"];

/// A containerd with a network `default` as it is made without a word about pods, and `blue`.
fn stack(version: Version, test: impl FnOnce(&mut Stack, &Cri) -> Result<()>) -> Result<()> {
    case(|bed| {
        let mut stack = Stack::start(bed, version, &DaemonConfig::plain())?;
        let cri = stack.cri()?;
        stack.netd.cli(&["network", "create", "blue", "--pool", "10.77.0.0/24"])?;
        test(&mut stack, &cri)
    })
}

/// A pod of the namespace `test` with one annotation.
fn run(cri: &Cri, name: &str, key: &str, value: &str) -> Result<Pod> {
    let mut config = cri::pod(name);
    config.annotations = [(key.to_owned(), value.to_owned())].into();
    cri.run_pod(config)
}

/// A refused pod leaves no endpoint, though its sandbox is removed a moment later.
fn nothing_attached(stack: &Stack) -> Result<()> {
    let empty = || -> Result<()> {
        let endpoints = stack.netd.endpoints()?;
        ensure!(endpoints.is_empty(), "{endpoints:?}");
        Ok(())
    };
    wait::until(Duration::from_secs(10), "nothing is attached", empty).map(drop)
}

/// The runtime was refused the pod, with these words.
fn refused(answer: Result<Pod>, words: &[&str]) -> Result<()> {
    let error = match answer {
        Ok(pod) => anyhow::bail!("pod {} runs", pod.id),
        Err(error) => format!("{error:#}"),
    };
    for word in words {
        ensure!(error.contains(word), "{word} is not in {error}");
    }
    Ok(())
}

fn pods_join_only_networks_that_are_open_to_their_namespace(version: Version) -> Result<()> {
    stack(version, |stack, cri| {
        let ask = |name| run(cri, name, "netd.io/networks", "blue");
        refused(ask("one"), &["blue", "test", "pod_namespaces", "netd network allow blue"])?;
        nothing_attached(stack)?;

        stack.netd.cli(&["network", "allow", "blue", "--pod-namespace", "other"])?;
        refused(ask("two"), &["test"])?;
        let shown = stack.netd.cli(&["network", "allow", "blue", "--pod-namespace", "test"])?;
        ensure!(shown.contains("of other, test"), "{shown}");
        let pod = ask("three")?;
        ensure!(pod.net().sh("ip -o -4 address show dev eth1")?.contains("10.77.0."));

        // Who is in stays in, over netd's restart as well.
        stack.netd.cli(&["network", "deny", "blue", "--pod-namespace", "test"])?;
        stack.netd.restart()?;
        ensure!(stack.netd.endpoints()?.len() == 2, "both endpoints of the pod");
        refused(ask("four"), &["test"])
    })
}

fn pods_choose_addresses_and_macs_only_where_the_network_lets_them(version: Version) -> Result<()> {
    stack(version, |stack, cri| {
        stack.netd.cli(&["network", "allow", "blue", "--pod-namespace", "test"])?;
        let address = r#"[{"network": "blue", "addresses": ["10.77.0.9"]}]"#;
        let mac = r#"[{"network": "blue", "mac": "02:42:00:00:00:09"}]"#;
        for (value, key) in [(address, "pod_addresses"), (mac, "pod_macs")] {
            refused(run(cri, key, "netd.io/networks", value), &["blue", "test", key])?;
        }
        nothing_attached(stack)?;
        stack.netd.cli(&["network", "allow", "blue", "--pod-addresses"])?;
        let pod = run(cri, "chosen", "netd.io/networks", address)?;
        ensure!(pod.net().sh("ip -o -4 address show dev eth1")?.contains("10.77.0.9/"));
        refused(run(cri, "still", "netd.io/networks", mac), &["pod_macs"])?;
        stack.netd.cli(&["network", "allow", "blue", "--pod-macs"])?;
        run(cri, "both", "netd.io/networks", mac).map(drop)
    })
}

fn no_pod_turns_the_gate_off_by_itself(version: Version) -> Result<()> {
    stack(version, |stack, cri| {
        let words = ["netd.io/primary", "test", "--unattached-namespace"];
        refused(run(cri, "one", "netd.io/primary", "other"), &words)?;
        run(cri, "two", "netd.io/primary", "netd")?;
        stack.nri.check_alive()
    })
}

fn annotations_that_nothing_reads_are_refused(version: Version) -> Result<()> {
    stack(version, |stack, cri| {
        for key in ["netd.io/netwroks", "netd.io/network", "netd.io/ip", "netd.io/mac"] {
            refused(run(cri, "one", key, "blue"), &[key, "netd.io/networks"])?;
        }
        run(cri, "two", "example.org/netd.io", "blue")?;
        stack.nri.check_alive()
    })
}

testbed::on_both!(
    pods_join_only_networks_that_are_open_to_their_namespace,
    pods_choose_addresses_and_macs_only_where_the_network_lets_them,
    no_pod_turns_the_gate_off_by_itself,
    annotations_that_nothing_reads_are_refused,
);

#[test]
fn the_plugin_and_the_api_obey_the_same_rule() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, &DaemonConfig::plain())?;
        netd.cli(&["network", "create", "blue", "--pool", "10.77.0.0/24"])?;
        let said = |sandbox: &Sandbox| -> Result<String> {
            let answer = sandbox.call("ADD").execute(&host)?;
            ensure!(answer.code() == Some(102), "{answer:?}");
            Ok(answer.json.to_string())
        };
        let mut pod = Sandbox::bare(&host, "pod")?;
        pod.config["network"] = json!("blue");
        let text = said(&pod)?;
        ensure!(text.contains("blue") && text.contains("pod_namespaces"), "{text}");
        let mut wishes = Sandbox::bare(&host, "wishes")?;
        wishes.config["runtimeConfig"] = json!({"ips": ["10.88.3.7"]});
        let text = said(&wishes)?;
        ensure!(text.contains("default") && text.contains("pod_addresses"), "{text}");
        wishes.config["runtimeConfig"] = json!({"mac": "02:42:00:00:00:09"});
        ensure!(said(&wishes)?.contains("pod_macs"));
        wishes.config["runtimeConfig"] = json!({});
        wishes.arguments += ";IP=10.88.3.7";
        ensure!(said(&wishes)?.contains("pod_addresses"));
        ensure!(netd.endpoints()?.is_empty(), "nothing was attached");

        // Where no pod is known, root asked.
        for sandbox in [&mut pod, &mut wishes] {
            let with_pod = sandbox.arguments.clone();
            sandbox.arguments = with_pod.replace("K8S_POD_NAMESPACE=test;", "");
            sandbox.add(&host)?;
            // The pod's own wish does not count against an endpoint that is there.
            sandbox.arguments = with_pod;
            sandbox.del(&host)?;
        }
        netd.cli(&[&["network", "allow", "blue"], &ALL[..]].concat())?;
        pod.add(&host).map(drop)
    })
}

#[test]
fn what_pods_may_do_is_configured_shown_and_kept() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut config = DaemonConfig::plain();
        config.networks += "[[network]]\nname = \"red\"\npod_namespaces = [\"shop\"]\n\
                            pod_macs = true\n[[network.pool]]\nsubnet = \"10.66.0.0/24\"\n";
        let mut netd = Daemon::start(&host, &config)?;
        let shown = |netd: &Daemon, name: &str| netd.cli(&["network", "inspect", name]);
        let red = shown(&netd, "red")?;
        ensure!(red.contains("of shop; may choose MAC addresses"), "{red}");
        ensure!(shown(&netd, "default")?.contains("of all namespaces"));
        let create =
            ["network", "create", "blue", "--pool", "10.77.0.0/24", "--pod-namespace", "a"];
        netd.cli(&create)?;
        netd.cli(&create).context("creating the same again")?;
        netd.cli(&["network", "allow", "blue", "--pod-namespace", "b", "--pod-addresses"])?;
        netd.restart()?;
        let blue = shown(&netd, "blue")?;
        ensure!(blue.contains("of a, b; may choose addresses"), "{blue}");
        ensure!(shown(&netd, "red")?.contains("of shop"));
        let bad = netd.cli(&["network", "allow", "blue", "--pod-namespace", "a b"]);
        let bad = format!("{:#}", bad.err().context("a wrong name was taken")?);
        ensure!(bad.contains("a b"), "{bad}");
        Ok(())
    })
}
