//! What another program takes away on the host is back within a second; inside a pod it is left
//! as it is, unless the network says `repair = "pod"`.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use netd_api::v1::GetStatusResponse;
use testbed::{Bed, Daemon, DaemonConfig, Host, Sandbox, case, inventory, net::probe, wait};

const LIMIT: Duration = Duration::from_secs(1);

struct Node {
    netd: Daemon,
    one: Sandbox,
    two: Sandbox,
    outside: Host,
    host: Host,
}

impl Node {
    fn start(bed: &Bed, driver: &str) -> Result<Self> {
        Self::start_with(bed, &DaemonConfig::with_driver(driver))
    }

    fn start_with(bed: &Bed, config: &DaemonConfig) -> Result<Self> {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        let netd = Daemon::start(&host, config)?;
        let (one, two) = (Sandbox::attached(&host, "one")?, Sandbox::attached(&host, "two")?);
        Ok(Self { netd, one, two, outside, host })
    }

    fn pings(&self) -> Result<()> {
        let outside = [IpAddr::from(self.outside.v4), self.outside.v6.into()];
        for to in [self.two.v4()?, self.two.v6()?].into_iter().chain(outside) {
            probe::ping(&self.one.net, to)?;
        }
        Ok(())
    }

    /// Breaks something and waits until the kernel's state is as it was and packets flow.
    fn repairs(&self, what: &str, breakage: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.pings()?;
        let before = inventory::of(&self.host)?;
        let inside = self.inside()?;
        let repaired = self.repaired()?;
        breakage(self)?;
        let broken = Instant::now();
        wait::until(LIMIT, what, || {
            let difference = inventory::difference(&before, &inventory::of(&self.host)?)
                + &inventory::difference(&inside, &self.inside()?);
            ensure!(difference.is_empty(), "(- before, + now)\n{difference}");
            Ok(())
        })?;
        wait::until(LIMIT, "packets flow again", || self.pings())?;
        let took = broken.elapsed();
        ensure!(took < 2 * LIMIT, "{what}: {took:?}");
        ensure!(self.repaired()? > repaired, "{what}: not counted as drift");
        Ok(())
    }

    /// Changes something in the first pod, and expects that netd lets it be, that it is seen, and
    /// that a restart does not change that.
    fn leaves(&mut self, what: &str, change: &str) -> Result<()> {
        self.pings()?;
        let host = inventory::of(&self.host)?;
        let repaired = self.repaired()?;
        let before = self.state()?;
        self.one.net.sh(change)?;
        let inside = self.settled_state()?;
        ensure!(inside != before, "{what}: put back at once");
        for restart in [false, true] {
            if restart {
                self.netd.kill9()?;
                self.netd.restart()?;
            }
            wait::pause(LIMIT);
            let difference = inventory::difference(&inside, &self.state()?);
            ensure!(difference.is_empty(), "{what}: inside (- before, + now)\n{difference}");
            let difference = inventory::difference(&host, &inventory::of(&self.host)?);
            ensure!(difference.is_empty(), "{what}: on the host (- before, + now)\n{difference}");
        }
        let shown = self.netd.cli(&["endpoint", "inspect", &self.one.id])?;
        ensure!(shown.contains("changed inside"), "{what}: {shown}");
        ensure!(self.repaired()? == repaired, "{what}: counted as drift");
        Ok(())
    }

    /// The state once nothing changes any more: the kernel tells of a port's carrier up to a second
    /// later.
    fn settled_state(&self) -> Result<String> {
        let mut last = self.state()?;
        let settled = wait::until(Duration::from_secs(20), "the pod's links settle", || {
            wait::pause(Duration::from_millis(1500));
            let now = self.state()?;
            let before = std::mem::replace(&mut last, now);
            ensure!(before == last, "{}", inventory::difference(&before, &last));
            Ok(())
        });
        settled?;
        Ok(last)
    }

    /// All of the first pod's links, addresses, routes and rules.
    fn state(&self) -> Result<String> {
        let text = self.one.net.sh(
            "ip -o -d link | sed 's/ *numtxqueues.*//; s/[a-z_]*_timer *[0-9.]*//g'
             ip -o address | sed 's/ *valid_lft.*//'
             ip route show table all; ip -6 route show table all; ip rule; ip -6 rule
             ip neigh show nud permanent",
        )?;
        let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.sort_unstable();
        Ok(lines.join("\n"))
    }

    /// Addresses and routes in the first pod.
    fn inside(&self) -> Result<String> {
        // A pair that was made again has another index.
        let text = self.one.net.sh(
            "ip -o address show dev eth0 scope global | sed 's/ *valid_lft.*//; s/^[0-9]*: //'
             ip route; ip -6 route | grep -v fe80::/64",
        )?;
        let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.sort_unstable();
        Ok(lines.join("\n"))
    }

    fn repaired(&self) -> Result<u64> {
        Ok(self.netd.status()?.drift.iter().map(|count| count.repaired).sum())
    }
}

fn on_host(script: &'static str) -> impl FnOnce(&Node) -> Result<()> {
    move |node| node.host.net.sh(script).map(drop)
}

fn in_pod(script: &'static str) -> impl FnOnce(&Node) -> Result<()> {
    move |node| node.one.net.sh(script).map(drop)
}

fn case_of(driver: &str, what: &str, breakage: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
    case(|bed| Node::start(bed, driver)?.repairs(what, breakage))
}

#[test]
fn a_deleted_bridge_comes_back_with_its_ports() -> Result<()> {
    case_of("bridge", "cni0 is back", on_host("ip link delete cni0"))
}

#[test]
fn a_bridge_that_was_set_down_is_up_again() -> Result<()> {
    case_of("bridge", "cni0 is up", on_host("ip link set cni0 down"))
}

#[test]
fn a_deleted_table_comes_back_with_its_elements() -> Result<()> {
    case_of("bridge", "the table is back", on_host("nft delete table inet netd"))
}

#[test]
fn a_flushed_ruleset_comes_back() -> Result<()> {
    case_of("bridge", "the ruleset is back", on_host("nft flush ruleset"))
}

/// Where the network says so.
fn repaired_in_pod(driver: &str, what: &str, script: &'static str) -> Result<()> {
    case(|bed| {
        let config = DaemonConfig::with_driver(driver).repairing_pods();
        Node::start_with(bed, &config)?.repairs(what, in_pod(script))
    })
}

#[test]
fn flushed_addresses_of_a_pod_come_back_with_its_routes() -> Result<()> {
    repaired_in_pod("bridge", "eth0 has its addresses", "ip address flush dev eth0")
}

#[test]
fn flushed_addresses_of_a_routed_pod_come_back_with_its_routes() -> Result<()> {
    repaired_in_pod("routed", "eth0 has its addresses", "ip address flush dev eth0")
}

#[test]
fn a_deleted_default_route_of_a_pod_comes_back() -> Result<()> {
    repaired_in_pod("bridge", "the default route is back", "ip route delete default")
}

/// gVisor takes addresses and routes into a stack of its own.
const GVISOR: &str = "ip address flush dev eth0; ip route flush table main";
/// KubeVirt's bridge binding.
const KUBEVIRT: &str = "ip address flush dev eth0; ip link set eth0 down
     ip link set eth0 name eth0-nic; ip link set eth0-nic address 02:00:00:00:00:07
     ip link add k6t-eth0 type bridge; ip link set k6t-eth0 addrgenmode none
     ip link set eth0-nic master k6t-eth0
     ip link set eth0-nic up; ip link set k6t-eth0 up
     ip link add eth0 type bridge";

fn left(driver: &str, what: &str, change: &str) -> Result<()> {
    case(|bed| Node::start(bed, driver)?.leaves(what, change))
}

#[test]
fn what_gvisor_takes_away_stays_away() -> Result<()> {
    left("bridge", "gVisor", GVISOR)
}

#[test]
fn what_gvisor_takes_away_from_a_routed_pod_stays_away() -> Result<()> {
    left("routed", "gVisor", GVISOR)
}

#[test]
fn the_pair_of_a_virtual_machine_is_left_in_its_bridge() -> Result<()> {
    left("bridge", "KubeVirt", KUBEVIRT)
}

#[test]
fn the_pair_of_a_routed_virtual_machine_is_left_in_its_bridge() -> Result<()> {
    left("routed", "KubeVirt", KUBEVIRT)
}

#[test]
fn what_an_administrator_of_the_pod_changes_is_left() -> Result<()> {
    let change = "ip link set eth0 mtu 1300; ip link set eth0 promisc on; ip link set lo down
         ip route replace default dev eth0; ip rule add from all table main prio 5
         ip -6 route delete default";
    left("bridge", "an administrator", change)
}

#[test]
fn a_pair_that_is_lost_is_made_again_with_all_that_is_inside() -> Result<()> {
    case_of("bridge", "the pair is back", in_pod("ip link delete eth0"))
}

#[test]
fn a_routed_pair_that_is_lost_is_made_again_with_all_that_is_inside() -> Result<()> {
    case_of("routed", "the pair is back", in_pod("ip link delete eth0"))
}

#[test]
fn a_gateway_address_that_was_removed_comes_back() -> Result<()> {
    case_of("bridge", "the gateway's address is back", on_host("ip address flush dev cni0"))
}

#[test]
fn a_port_taken_off_its_bridge_is_put_back() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed, "bridge")?;
        let endpoints = node.netd.endpoints()?;
        let port = endpoints.iter().find(|endpoint| endpoint.sandbox_id == node.one.id);
        let port = port.map(|endpoint| endpoint.host_interface.clone()).unwrap_or_default();
        node.repairs("the port's bridge", |node| {
            node.host.net.sh(&format!("ip link set {port} nomaster")).map(drop)
        })
    })
}

#[test]
fn a_host_route_of_a_routed_pod_comes_back() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed, "routed")?;
        let (v4, v6) = (node.one.v4()?, node.one.v6()?);
        node.repairs("the host's routes", |node| {
            node.host.net.sh(&format!("ip route delete {v4}; ip -6 route delete {v6}")).map(drop)
        })
    })
}

#[test]
fn forwarding_that_was_turned_off_is_on_again() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed, "bridge")?;
        node.pings()?;
        node.host.net.sh("sysctl -qw net.ipv4.ip_forward=0")?;
        wait::until(LIMIT, "forwarding is on", || node.pings())?;
        Ok(())
    })
}

/// Another agent that removes a table whenever netd has made it, and one that takes a link's
/// MTU for its own.
#[test]
fn who_fights_with_netd_gets_few_repairs_and_is_told() -> Result<()> {
    const FIGHT: Duration = Duration::from_secs(8);
    case(|bed| {
        let node = Node::start(bed, "bridge")?;
        let link = &node.netd.endpoints()?[0].host_interface;
        let before = node.repaired()?;
        let logged = |word: &str| node.netd.logged().matches(word).count();
        let lines = logged("put back");
        let start = Instant::now();
        while start.elapsed() < FIGHT {
            node.host.net.sh(&format!(
                "nft delete table arp netd 2>/dev/null || true; ip link set {link} mtu 1400"
            ))?;
        }
        let told = |status: &GetStatusResponse, what: &str| {
            format!("{status:?}").contains(&format!("{what} is being fought over"))
        };
        let status = node.netd.status()?;
        ensure!(told(&status, "the firewall"), "{status:?}");
        let repairs = node.repaired()? - before;
        ensure!(repairs < 150, "{repairs} repairs");
        ensure!(logged("put back") - lines < 150, "{} lines", logged("put back") - lines);
        // It never gives up.
        wait::until(Duration::from_secs(8), "the last word is netd's", || {
            node.host.net.sh("nft list table arp netd").map(drop)
        })?;
        wait::until(Duration::from_secs(8), "packets flow", || node.pings())?;
        Ok(())
    })
}
