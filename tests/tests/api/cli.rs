//! netd as people type it, against a running daemon.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::{Containerd, case, hook, paths, wait};

use crate::node::{LIMIT, Node};

impl Node {
    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.netd.cli(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("{arguments:?}: {printed}"))
    }

    /// For what may fail: the whole outcome. In the host's namespace, as doctor looks there.
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let config = self.host.directory().join("netd/netd.toml");
        let mut command = self.host.net.command(paths::built("netd")?);
        command.args(arguments).env("NETD_SOCKET", self.netd.socket()).env("NETD_CONFIG", config);
        Ok(command.output()?)
    }

    fn fails(&self, arguments: &[&str], said: &str) -> Result<()> {
        let output = self.run(arguments)?;
        let messages = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{arguments:?} succeeded");
        ensure!(messages.contains(said), "{arguments:?} does not say {said}: {messages}");
        ensure!(!messages.contains("panicked"), "{messages}");
        Ok(())
    }
}

/// Wherever in the document it is.
fn mentions(value: &Value, text: &str) -> bool {
    value.to_string().contains(text)
}

#[test]
fn status_is_for_people_and_for_programs() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let table = node.netd.cli(&["status"])?;
        ensure!(table.contains("ready"), "{table}");
        let json = node.json(&["status"])?;
        ensure!(json["ready"] == Value::Bool(true), "{json}");
        node.netd.kill9()?;
        node.fails(&["status"], "netd.sock")
    })
}

#[test]
fn networks_are_made_shown_and_deleted() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let create = [
            "network",
            "create",
            "blue",
            "--pool",
            "10.77.0.0/24,gateway=10.77.0.9,range=10.77.0.100-10.77.0.110,reserved=10.77.0.105",
            "--pool",
            "fd00:77::/64",
            "--driver",
            "routed",
        ];
        node.netd.cli(&create)?;
        node.netd.cli(&create).context("an identical one again")?;
        let list = node.netd.cli(&["network", "list"])?;
        ensure!(list.contains("blue") && list.contains("default"), "{list}");
        let blue = node.json(&["network", "inspect", "blue"])?;
        ensure!(mentions(&blue, "10.77.0.9") && mentions(&blue, "routed"), "{blue}");
        ensure!(mentions(&node.json(&["network", "list"])?, "fd00:77::/64"));
        node.fails(&["network", "create", "red", "--pool", "10.77.0.128/25"], "blue")?;
        node.fails(&["network", "create", "red", "--pool", "junk"], "junk")?;
        node.fails(&["network", "inspect", "nowhere"], "nowhere")?;
        node.netd.cli(&["network", "delete", "blue"])?;
        ensure!(!node.netd.cli(&["network", "list"])?.contains("blue"));
        node.nothing_left()
    })
}

#[test]
fn endpoints_are_attached_shown_and_detached() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let netns = pod.net.path().display().to_string();
        node.netd.cli(&[
            "endpoint",
            "attach",
            &pod.id,
            &netns,
            "--address",
            "10.88.0.50",
            "--mac",
            "02:00:00:00:00:50",
            "-p",
            "8080:80/tcp",
            "--pod",
            "shop/web",
            "--label",
            "app=web",
        ])?;
        let shown = pod.net.sh("ip -o address show dev eth0; ip -o link show dev eth0")?;
        ensure!(shown.contains("10.88.0.50/") && shown.contains("02:00:00:00:00:50"), "{shown}");
        let list = node.netd.cli(&["endpoint", "list"])?;
        ensure!(list.contains("10.88.0.50") && list.contains("web"), "{list}");
        let inspect = node.json(&["endpoint", "inspect", &pod.id])?;
        // What a list prints is enough of it; what several ids begin with is not.
        let begin = &pod.id[..pod.id.len() - 1];
        ensure!(node.json(&["endpoint", "inspect", begin])? == inspect, "by the beginning");
        let mut other = pod.request();
        other.sandbox_id = format!("{begin}-and-more");
        let net = testbed::Namespace::create(node.host.directory().join("other"))?;
        other.netns_path = net.path().display().to_string();
        node.netd.attach(other.clone())?;
        node.fails(&["endpoint", "inspect", begin], "2 sandboxes")?;
        let detach =
            netd_api::v1::DetachRequest { sandbox_id: other.sandbox_id, ..Default::default() };
        node.netd.detach(detach)?;
        for part in ["10.88.0.50", "02:00:00:00:00:50", "8080", "app"] {
            ensure!(mentions(&inspect, part), "{part}: {inspect}");
        }
        ensure!(mentions(&node.json(&["endpoint", "list", "--pod", "web"])?, &pod.id));
        ensure!(!mentions(&node.json(&["endpoint", "list", "--pod", "other"])?, &pod.id));
        ensure!(!mentions(&node.json(&["endpoint", "list", "-n", "other"])?, &pod.id));
        node.netd.cli(&["endpoint", "detach", &pod.id])?;
        // Shown as detaching until its link is gone.
        wait::until(LIMIT, "it is not shown any more", || {
            node.fails(&["endpoint", "inspect", &pod.id], &pod.id)
        })?;
        node.fails(&["endpoint", "attach", "x", "/tmp"], "/tmp")?;
        node.nothing_left()
    })
}

#[test]
fn watch_prints_a_json_document_a_line() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let mut watch = Command::new(paths::built("netd")?)
            .args(["endpoint", "watch", "-o", "json"])
            .env("NETD_SOCKET", node.netd.socket())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(watch.stdout.take().context("no stdout")?).lines();
        node.netd.attach(pod.request())?;
        let found = lines.by_ref().take(5).find_map(|line| {
            let line = line.ok()?;
            let event: Value = serde_json::from_str(&line).ok()?;
            mentions(&event, &pod.id).then_some(event)
        });
        watch.kill()?;
        watch.wait()?;
        found.map(drop).context("the attach was not printed")
    })
}

#[test]
fn doctor_ends_with_0_only_when_nothing_is_broken() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        hook::install(&node.host, Path::new("/nonexistent/containerd"))?;
        let config = node.host.directory().join("containerd.toml");
        let plugins = Containerd::cni_plugins_of(&node.host);
        let conflists = Containerd::cni_config_of(&node.host);
        fs::write(
            &config,
            format!(
                "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n\
                 bin_dirs = ['{}']\nconf_dir = '{}'\n",
                plugins.display(),
                conflists.display()
            ),
        )?;
        let config = config.display().to_string();
        let program = paths::fetched("containerd-2.1")?.join("usr/bin/containerd");
        let program = program.display().to_string();
        let arguments = ["doctor", "--containerd-config", &config, "--containerd", &program];
        let healthy = node.run(&[&arguments[..], &["-o", "json"]].concat())?;
        let report: Value = serde_json::from_slice(&healthy.stdout)?;
        let findings = report["findings"].as_array().context("no findings")?;
        let failed = findings.iter().filter(|finding| finding["severity"] == "fail");
        ensure!(healthy.status.success() && failed.count() == 0, "{report}");
        let netd = findings.iter().find(|finding| finding["check"] == "netd");
        ensure!(netd.is_some_and(|netd| netd["severity"] == "ok"), "{report}");
        node.netd.kill9()?;
        let broken = node.run(&arguments)?;
        ensure!(!broken.status.success(), "a dead netd is broken");
        let said = String::from_utf8_lossy(&broken.stdout);
        ensure!(said.contains("netd.sock"), "{said}");
        Ok(())
    })
}
