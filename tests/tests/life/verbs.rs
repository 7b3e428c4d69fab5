//! CHECK and STATUS tell the truth.

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::CheckRequest;
use serde_json::{Value, json};
use testbed::{Bed, Daemon, DaemonConfig, Host, Sandbox, case};

struct Node {
    netd: Daemon,
    pod: Sandbox,
    result: Value,
    host: Host,
}

impl Node {
    fn start(bed: &Bed, driver: &str) -> Result<Self> {
        Self::start_with(bed, &DaemonConfig::with_driver(driver))
    }

    fn start_with(bed: &Bed, config: &DaemonConfig) -> Result<Self> {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, config)?;
        let mut pod = Sandbox::bare(&host, "pod")?;
        let result = pod.add(&host)?;
        Ok(Self { netd, pod, result, host })
    }

    /// netd leaves the pod as it is, and the check says what is missing.
    fn says(&self, what: &str, damage: &str, word: &str) -> Result<()> {
        self.check(&self.result)?.ok().context("before")?;
        self.pod.net.sh(damage)?;
        for _ in 0..2 {
            let answer = self.check(&self.result)?;
            ensure!(answer.code().is_some_and(|code| code >= 100), "{what}: {answer:?}");
            ensure!(answer.json.to_string().contains(word), "{what}: {answer:?}");
            testbed::wait::pause(std::time::Duration::from_millis(300));
        }
        Ok(())
    }

    /// netd leaves the pod as it is, and the check passes.
    fn passes(&self, what: &str, change: &str) -> Result<()> {
        self.pod.net.sh(change)?;
        for _ in 0..2 {
            self.check(&self.result)?.ok().with_context(|| what.to_owned())?;
            testbed::wait::pause(std::time::Duration::from_millis(300));
        }
        Ok(())
    }

    fn check(&self, prev_result: &Value) -> Result<testbed::hook::Answer> {
        let mut call = self.pod.call("CHECK");
        let mut config = self.pod.config.clone();
        config["prevResult"] = prev_result.clone();
        call.stdin = config.to_string().into_bytes();
        call.execute(&self.host)
    }

    /// netd may mend before the check looks; its own mending is stopped by stopping
    /// the process, and the check has to see the damage once it goes on.
    fn finds(&self, what: &str, damage: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.check(&self.result)?.ok().context("before")?;
        damage(self)?;
        let answer = self.check(&self.result)?;
        // Either it is seen, or netd has put it right already, and then it is right.
        if answer.success {
            self.pod.net.sh("ip -o link show eth0").context(what.to_owned())?;
            let drift = self.netd.status()?.drift;
            ensure!(drift.iter().any(|count| count.repaired > 0), "{what}: unseen");
        } else {
            ensure!(answer.code().is_some_and(|code| code >= 100), "{what}: {answer:?}");
        }
        testbed::wait::until(std::time::Duration::from_secs(5), what, || {
            self.check(&self.result)?.ok().map(drop)
        })?;
        Ok(())
    }
}

fn in_pod(script: &'static str) -> impl FnOnce(&Node) -> Result<()> {
    move |node| node.pod.net.sh(script).map(drop)
}

#[test]
fn check_sees_every_kind_of_damage_or_it_is_mended() -> Result<()> {
    case(|bed| {
        let node = Node::start_with(bed, &DaemonConfig::default().repairing_pods())?;
        node.finds("a flushed address", in_pod("ip address flush dev eth0"))?;
        node.finds("a lost default route", in_pod("ip route delete default"))?;
        node.finds("a link that is down", in_pod("ip link set eth0 down"))?;
        node.finds("a lost bridge", |node| node.host.net.sh("ip link delete cni0").map(drop))?;
        node.finds("a lost table", |node| node.host.net.sh("nft delete table inet netd").map(drop))
    })
}

#[test]
fn check_sees_damage_of_routed_pods_too() -> Result<()> {
    case(|bed| {
        let config = DaemonConfig::with_driver("routed").repairing_pods();
        let node = Node::start_with(bed, &config)?;
        node.finds("a flushed address", in_pod("ip address flush dev eth0"))?;
        node.finds("a lost neighbour", in_pod("ip neigh flush dev eth0 nud permanent"))?;
        let v4 = node.pod.v4()?;
        node.finds("a lost host route", |node| {
            node.host.net.sh(&format!("ip route delete {v4}")).map(drop)
        })
    })
}

#[test]
fn check_says_what_is_missing_in_a_pod_that_netd_leaves_alone() -> Result<()> {
    for driver in ["bridge", "routed"] {
        for (what, damage, word) in [
            ("a flushed address", "ip -4 address flush dev eth0", "address 10.88."),
            ("flushed addresses", "ip -6 address flush dev eth0", "address fd00:88:"),
            ("a lost default route", "ip route delete default", "no route to 0.0.0.0/0"),
            ("a lost IPv6 route", "ip -6 route delete default", "no route to ::/0"),
            ("a link that is down", "ip link set eth0 down", "state is down"),
            ("another name", "ip link set eth0 down; ip link set eth0 name x", "name is x"),
        ] {
            case(|bed| Node::start(bed, driver)?.says(what, damage, word))?;
        }
    }
    Ok(())
}

#[test]
fn what_others_changed_or_added_is_no_failure_of_check() -> Result<()> {
    for driver in ["bridge", "routed"] {
        case(|bed| {
            let node = Node::start(bed, driver)?;
            node.passes("another MTU", "ip link set eth0 mtu 1300")?;
            node.passes("promiscuous", "ip link set eth0 promisc on")?;
            node.passes("lo down", "ip link set lo down")?;
            node.passes("an address", "ip address add 192.0.2.9/24 dev eth0")?;
            node.passes("a route", "ip route add 192.0.3.0/24 dev eth0")?;
            node.passes("a link", "ip link add net7 type bridge; ip link set net7 up")?;
            node.passes("another MAC", "ip link set eth0 address 02:00:00:00:00:99")?;
            // Another plugin's default route takes precedence.
            node.passes(
                "a default route",
                "ip address add 192.0.4.9/24 dev net7
                 ip route replace default via 192.0.4.1 dev net7",
            )
        })?;
    }
    Ok(())
}

#[test]
fn an_mtu_of_the_underlay_is_no_failure_of_check() -> Result<()> {
    for driver in ["bridge", "routed"] {
        case(|bed| {
            let node = Node::start(bed, driver)?;
            node.host.net.sh("ip link set eth0 mtu 1400")?;
            for _ in 0..10 {
                node.check(&node.result)?.ok()?;
                testbed::wait::pause(std::time::Duration::from_millis(50));
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn check_needs_a_result_and_compares_it() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed, "bridge")?;
        let without = node.pod.call("CHECK").execute(&node.host)?;
        ensure!(!without.success, "CHECK without prevResult");
        let mut other = node.result.clone();
        other["ips"][0]["address"] = json!("10.88.77.77/16");
        let wrong = node.check(&other)?;
        ensure!(!wrong.success && wrong.json.to_string().contains("10.88.77.77"), "{wrong:?}");
        node.pod.del(&node.host)?;
        let gone = node.check(&node.result)?;
        ensure!(!gone.success, "CHECK after DEL");
        let missing = CheckRequest { sandbox_id: node.pod.id.clone(), ..Default::default() };
        let code = node.netd.check(missing).err().map(|status| status.code());
        ensure!(code == Some(tonic::Code::NotFound), "{code:?}");
        Ok(())
    })
}

#[test]
fn status_is_50_while_netd_is_dead_and_version_needs_no_netd() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed, "bridge")?;
        let call = |command: &str| {
            let mut call = node.pod.call(command);
            call.variables.retain(|(name, _)| name == "CNI_PATH");
            call
        };
        let (status, version) = (call("STATUS"), call("VERSION"));
        status.execute(&node.host)?.ok()?;
        node.netd.kill9()?;
        let dead = status.execute(&node.host)?;
        ensure!(dead.code() == Some(50), "{dead:?}");
        let answer = version.execute(&node.host)?.ok()?;
        let versions = answer["supportedVersions"].as_array().context("no versions")?;
        for wanted in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            ensure!(versions.contains(&json!(wanted)), "{versions:?}");
        }
        node.netd.restart()?;
        status.execute(&node.host)?.ok().map(drop)
    })
}
