//! The OCI front: containers of plain runc, which no CRI runtime made.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::Endpoint;
use serde_json::json;
use testbed::{
    Bed, Daemon, DaemonConfig, Host, Namespace, Sandbox, bundle::Bundle, case, inventory,
    net::probe, stack::check_nothing_left, wait,
};

const SOON: Duration = Duration::from_secs(10);

struct Node {
    netd: Daemon,
    before: String,
    host: Host,
}

impl Node {
    fn start(bed: &Bed) -> Result<Self> {
        let host = bed.host("node")?;
        let config = DaemonConfig::default().and_network("blue", "bridge", &["10.77.0.0/24"]);
        let netd = Daemon::start(&host, &config)?;
        let before = inventory::of(&host)?;
        Ok(Self { netd, before, host })
    }

    fn endpoints_of(&self, id: &str) -> Result<Vec<Endpoint>> {
        let all = self.netd.endpoints()?;
        Ok(all.into_iter().filter(|endpoint| endpoint.sandbox_id == id).collect())
    }

    /// Until the container's own endpoint answers packets.
    fn up(&self, id: &str) -> Result<IpAddr> {
        let (address, _) = wait::until(SOON, "the container is up", || {
            let endpoints = self.endpoints_of(id)?;
            let eth0 = endpoints.iter().find(|endpoint| endpoint.interface == "eth0");
            let address = eth0.and_then(|eth0| eth0.addresses.first()).context("no eth0")?;
            let address = address.address.split('/').next().unwrap_or_default().parse()?;
            probe::ping(&self.host.net, address)?;
            Ok(address)
        })?;
        Ok(address)
    }
}

#[test]
fn a_container_of_runc_has_eth0_and_leaves_nothing_behind() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let outside = bed.host("outside")?;
        let other = Sandbox::attached(&node.host, "other")?;
        let mut bundle = Bundle::new(&node.host, "web", "ip -o address; sleep 1000")?;
        bundle.config["annotations"] = json!({
            "netd.io/network": "default,blue",
            "netd.io/ports": "8080:7000/udp",
        });
        let mut runc = bundle.run(&node.host, "web")?;
        let address = node.up("web")?;
        probe::ping(&other.net, address)?;
        let endpoints = node.endpoints_of("web")?;
        ensure!(endpoints.len() == 2, "{endpoints:?}");
        ensure!(endpoints.iter().all(|endpoint| endpoint.source == "oci"), "{endpoints:?}");
        // The namespace is found by the endpoint's path while the container lives.
        let path = endpoints.first().context("an endpoint")?.netns_path.clone();
        let _mirror = probe::Mirror::serve(&Namespace::of(path), 7000)?;
        probe::udp(&outside.net, node.host.v4.into(), 8080)?;
        wait::until(SOON, "the container sees its addresses", || {
            let printed = bundle.printed();
            ensure!(printed.contains("eth0") && printed.contains("eth1"), "{printed}");
            ensure!(printed.contains(&address.to_string()), "{printed}");
            Ok(())
        })?;
        bundle.kill("web")?;
        runc.ended(SOON)?;
        ensure!(node.endpoints_of("web")?.iter().all(|endpoint| endpoint.state == 3));
        other.del(&node.host)?;
        check_nothing_left(&node.host, &node.netd, &node.before)
    })
}

#[test]
fn two_runs_under_one_id_one_after_the_other_both_have_a_network() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let bundle = Bundle::new(&node.host, "again", "sleep 1000")?;
        let mut seen = Vec::new();
        for round in 0..3 {
            let mut runc = bundle.run(&node.host, "again")?;
            seen.push(node.up("again")?);
            bundle.kill("again")?;
            runc.ended(SOON)?;
            if round == 1 {
                node.netd.restart()?;
            }
        }
        ensure!(seen.len() == 3);
        // One that ends by itself, at once.
        let short = Bundle::new(&node.host, "short", "ip -o address show dev eth0")?;
        let status = short.run(&node.host, "short")?.ended(SOON)?;
        ensure!(status.success() && short.printed().contains("10.88."), "{}", short.printed());
        check_nothing_left(&node.host, &node.netd, &node.before)
    })
}

#[test]
fn a_container_on_the_hosts_network_or_in_a_joined_one_is_left_alone() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let script = "ip -o link; sleep 1";
        let mut hosts = Bundle::new(&node.host, "hosts", script)?;
        let namespaces = &mut hosts.config["linux"]["namespaces"];
        let list = namespaces.as_array_mut().context("no namespaces")?;
        list.retain(|namespace| namespace["type"] != "network");
        // A read-only /sys can't be mounted without a network namespace of one's own.
        let mounts = hosts.config["mounts"].as_array_mut().context("no mounts")?;
        mounts.retain(|mount| mount["destination"] != "/sys");

        let joined_net = Sandbox::bare(&node.host, "joined")?;
        let mut joined = Bundle::new(&node.host, "joined", script)?;
        for namespace in
            joined.config["linux"]["namespaces"].as_array_mut().context("no namespaces")?
        {
            if namespace["type"] == "network" {
                namespace["path"] = json!(joined_net.net.path());
            }
        }
        for (name, bundle) in [("hosts", &hosts), ("joined", &joined)] {
            let mut runc = bundle.run(&node.host, name)?;
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(700) {
                ensure!(node.netd.endpoints()?.is_empty(), "{name}: got an endpoint");
                wait::pause(Duration::from_millis(50));
            }
            let status = runc.ended(SOON)?;
            ensure!(status.success(), "{name}: {}", bundle.printed());
        }
        ensure!(hosts.printed().contains("cni0"), "{}", hosts.printed());
        let links = joined.printed().lines().filter(|line| line.contains("mtu")).count();
        ensure!(links == 1, "only lo: {}", joined.printed());
        check_nothing_left(&node.host, &node.netd, &node.before)
    })
}

#[test]
fn without_netd_the_container_does_not_start_and_says_why() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        node.netd.kill9()?;
        let bundle = Bundle::new(&node.host, "late", "ip -o link")?;
        let status = bundle.run(&node.host, "late")?.ended(SOON)?;
        ensure!(!status.success(), "{}", bundle.printed());
        ensure!(bundle.printed().contains("netd"), "{}", bundle.printed());
        node.netd.restart()?;
        let status = bundle.run(&node.host, "late")?.ended(SOON)?;
        ensure!(status.success(), "{}", bundle.printed());
        check_nothing_left(&node.host, &node.netd, &node.before)
    })
}
