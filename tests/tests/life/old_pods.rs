//! netd comes to a node whose pods were made by `bridge` and `host-local`.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{
    Daemon, Host, Namespace, Sandbox, case,
    net::probe,
    old_plugins::{OldNetwork, OldPod, data_dir, directories},
    wait,
};

use crate::node::{SOON, config};

const SUBNETS: [&str; 2] = ["10.88.0.0/16", "fd00:88::/64"];

fn used(netd: &Daemon, count: u64) -> Result<()> {
    wait::until(SOON, "so many addresses are in use", || {
        let used = netd.addresses_used()?;
        ensure!(used == count, "{used}, not {count}");
        Ok(())
    })?;
    Ok(())
}

fn asked(host: &Host, name: &str, ip: IpAddr) -> Result<Sandbox> {
    let mut pod = Sandbox::bare(host, name)?;
    pod.config["runtimeConfig"] = json!({"ips": [ip.to_string()]});
    Ok(pod)
}

/// Twelve new pods get none of the old pods' addresses, and reach them.
fn nobody_gets(host: &Host, old: &[&OldPod]) -> Result<Vec<Sandbox>> {
    let pods: Vec<Sandbox> =
        (0..12).map(|n| Sandbox::attached(host, &format!("new{n}"))).collect::<Result<_>>()?;
    for pod in &pods {
        let twice = old.iter().find(|old| old.ips.iter().any(|ip| pod.ips.contains(ip)));
        ensure!(twice.is_none(), "{:?} given out twice: {:?}", pod.ips, twice.map(|old| &old.id));
    }
    for old in old {
        probe::ping(&pods[0].net, old.v4()?)?;
        let answer = asked(host, "thief", old.v4()?)?.call("ADD").execute(host)?;
        ensure!(!answer.success, "the address of {} was given out on request", old.id);
    }
    Ok(pods)
}

fn from_bridge_and_host_local(plugins: &Path) -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let cbr0 = OldNetwork::cbr0(plugins, &SUBNETS);
        let mut pods = Vec::new();
        for n in 0..5 {
            pods.push(OldPod::add(&host, &cbr0, &format!("old{n}"))?);
        }
        let mut netd = Daemon::start(&host, &config("bridge"))?;
        probe::ping(&pods[0].net, pods[1].v4()?)?;
        used(&netd, 10)?;
        let new = nobody_gets(&host, &pods.iter().collect::<Vec<_>>())?;
        used(&netd, 34)?;
        netd.restart()?;
        used(&netd, 34)?;
        let text = netd.cli(&["status"])?;
        ensure!(text.contains("foreign-pods") && text.contains("old0"), "{text}");
        // DEL as the runtime sends it from now on: the address, the link, host-local's file.
        let [gone, by_old, killed, stays, _] = pods.as_mut_slice() else { unreachable!() };
        gone.del_by_netd(&host)?;
        used(&netd, 32)?;
        ensure!(gone.net.sh("ip -o link show eth0").is_err(), "DEL left the interface");
        for ip in &gone.ips {
            ensure!(!cbr0.reservation(&host, *ip).exists(), "host-local's file of {ip} is left");
        }
        asked(&host, "next", gone.v4()?)?.add(&host)?;
        // The old plugin's own DEL, and the end of the namespace without any.
        by_old.del(&host, &cbr0)?;
        used(&netd, 32)?;
        killed.vanish();
        used(&netd, 30)?;
        ensure!(stays.net.sh("ip -o link show eth0").is_ok());
        drop(new);
        Ok(())
    })
}

#[test]
fn pods_of_debians_bridge_and_host_local_keep_their_addresses() -> Result<()> {
    from_bridge_and_host_local(&directories()?[0])
}

#[test]
fn pods_of_the_newest_bridge_and_host_local_keep_their_addresses() -> Result<()> {
    from_bridge_and_host_local(&directories()?[1])
}

/// A process lives in a namespace that has no path any more; a virtual machine has the
/// address behind its tap device, so that no namespace shows it.
#[test]
fn what_answers_on_the_bridge_is_held_without_a_file() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let cbr0 = OldNetwork::cbr0(&directories()?[0], &SUBNETS);
        let hidden = OldPod::add(&host, &cbr0, "hidden")?;
        let mut machine = OldPod::add(&host, &cbr0, "machine")?;
        let other = OldPod::add(&host, &cbr0, "other")?;
        fs::remove_dir_all(data_dir(&host))?;
        let mut sleeper = hidden.net.command("sleep").arg("1000").spawn()?;
        // It has to be inside before the path goes.
        wait::until(SOON, "the process is in the namespace", || {
            let name = fs::read_to_string(format!("/proc/{}/comm", sleeper.id()))?;
            ensure!(name.trim() == "sleep", "{name}");
            Ok(())
        })?;
        hidden.unmount()?;
        // As KubeVirt does: the pod's link is a port of a bridge, the guest has the address.
        let ip = machine.v4()?;
        let guest = Namespace::create(host.directory().join("guest"))?;
        let path = guest.path().display();
        machine.net.sh(&format!(
            "ip link add k6t type bridge; ip link set k6t up
             nsenter --net={path} ip link add guest type veth peer name tap
             nsenter --net={path} ip link set tap netns $$
             ip address flush dev eth0
             ip link set eth0 master k6t; ip link set tap master k6t up"
        ))?;
        guest.sh(&format!("ip link set guest up; ip address add {ip}/16 dev guest"))?;
        // Or the bridge sends the guest's frames back, and the pod's own bridge learns its MAC
        // on the wrong side.
        host.net.sh("for dev in $(ip -o link show master cni0 | cut -d: -f2 | cut -d@ -f1); do
                 bridge link set dev $dev hairpin off
             done")?;
        let gateway: IpAddr = "10.88.0.1".parse()?;
        let netd = Daemon::start(&host, &config("bridge"))?;
        wait::until(SOON, "the guest is heard", || probe::ping(&guest, gateway))?;
        let new = wait::until(SOON, "the guest's address is held", || {
            let answer = asked(&host, "thief", ip)?.call("ADD").execute(&host)?;
            ensure!(!answer.success);
            nobody_gets(&host, &[&other])
        })?;
        let taken = new.0.iter().flat_map(|pod| &pod.ips);
        let taken = taken.filter(|ip| hidden.ips.contains(ip) || machine.ips[0] == **ip);
        ensure!(taken.count() == 0, "given out twice");
        // The guest goes, and the process.
        machine.vanish();
        drop(guest);
        sleeper.kill()?;
        sleeper.wait()?;
        wait::until(SOON, "both are free", || {
            let mut next = asked(&host, "next", hidden.v4()?)?;
            next.add(&host)?;
            asked(&host, "last", ip)?.add(&host).map(drop)
        })?;
        drop(netd);
        Ok(())
    })
}

/// Files: of pods that are gone, outside of the pool, of several networks, and no
/// reservations at all; and a lock that somebody keeps.
#[test]
fn files_of_host_local_hold_what_lives_and_nothing_else() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let plugins = directories()?.remove(1);
        let cbr0 = OldNetwork::cbr0(&plugins, &SUBNETS);
        let second = OldNetwork {
            name: "second".to_owned(),
            bridge: "br-second".to_owned(),
            ..OldNetwork::cbr0(&plugins, &["10.88.7.0/24"])
        };
        let outside = OldNetwork {
            name: "outside".to_owned(),
            bridge: "br-outside".to_owned(),
            ..OldNetwork::cbr0(&plugins, &["10.99.0.0/24"])
        };
        let lives = OldPod::add(&host, &cbr0, "lives")?;
        let elsewhere = OldPod::add(&host, &second, "elsewhere")?;
        let far = OldPod::add(&host, &outside, "far")?;
        let mut stale = OldPod::add(&host, &cbr0, "stale")?;
        let fresh = host.directory().join("cni/networks/cbr0/10.88.0.40");
        stale.vanish();
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        let directory = data_dir(&host).join("cbr0");
        for ip in &stale.ips {
            let file = fs::File::options().write(true).open(directory.join(ip.to_string()))?;
            file.set_modified(old)?;
        }
        // Garbage of every kind, some of which would block or fill a careless reader.
        fs::write(directory.join("10.88.0.300"), "x")?;
        fs::write(directory.join("notes.txt"), "x")?;
        fs::write(directory.join("10.88.0.50"), vec![0xff; 5 << 20])?;
        fs::File::options().write(true).open(directory.join("10.88.0.50"))?.set_modified(old)?;
        nix::unistd::mkfifo(&directory.join("10.88.0.51"), nix::sys::stat::Mode::S_IRWXU)?;
        fs::create_dir(directory.join("10.88.0.52"))?;
        std::os::unix::fs::symlink("/dev/zero", directory.join("10.88.0.53"))?;
        std::os::unix::fs::symlink(&directory, directory.join("loop"))?;
        fs::write(data_dir(&host).join("no-directory"), "x")?;
        // Being made at this moment: host-local was called, bridge is still at work.
        fs::write(&fresh, "making\r\neth0")?;
        let lock = fs::File::options().read(true).open(directory.join("lock"))?;
        let _locked = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, error)| error)?;

        let netd = Daemon::start(&host, &config("bridge"))?;
        let old_pods = [&lives, &elsewhere];
        let pods = nobody_gets(&host, &old_pods[..1])?;
        let held: Vec<IpAddr> = old_pods.iter().flat_map(|pod| pod.ips.clone()).collect();
        ensure!(held.len() == 3);
        let answer = asked(&host, "thief", elsewhere.v4()?)?.call("ADD").execute(&host)?;
        ensure!(!answer.success, "an address of another bridge's pod");
        ensure!(pods.iter().any(|pod| pod.ips.contains(&stale.ips[0])), "a dead pod's is held");
        // An hour old and of nobody: the file is left as it is.
        ensure!(directory.join(stale.ips[0].to_string()).exists());
        // The one that was being made never came up: it is held for the grace period only.
        asked(&host, "dead", "10.88.0.50".parse()?)?.add(&host)?;
        wait::until(SOON, "the unfinished one is free", || {
            asked(&host, "later", "10.88.0.40".parse()?)?.add(&host).map(drop)
        })?;
        let text = netd.cli(&["status"])?;
        ensure!(!text.contains(&far.v4()?.to_string()), "outside of every pool: {text}");
        // host-local's file of a pod outside goes with its DEL all the same.
        far.del_by_netd(&host)?;
        ensure!(!outside.reservation(&host, far.v4()?).exists());
        Ok(())
    })
}
