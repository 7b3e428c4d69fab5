//! netd with the capabilities that its unit gives it, and no others.

use anyhow::{Result, ensure};
use testbed::{Daemon, Sandbox, block_on, case, net::probe};

use crate::node::config;

const UNIT: &str = "netd.service";

/// The effective set of a process, as in /proc/PID/status.
fn effective(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Ok(u64::from_str_radix(line.unwrap_or_default().trim(), 16)?)
}

#[test]
fn netd_attaches_repairs_and_detaches_with_its_unit_s_capabilities() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let netd = Daemon::start_confined(&host, &config("bridge").repairing_pods(), UNIT)?;
        let held = effective(netd.pid())?;
        // CAP_SYS_MODULE and CAP_KILL, say, are not among them.
        ensure!(held != 0 && held & (1 << 16 | 1 << 5) == 0, "{held:x}");
        let (one, two) = (Sandbox::attached(&host, "one")?, Sandbox::attached(&host, "two")?);
        probe::ping(&one.net, two.v4()?)?;
        probe::ping(&one.net, two.v6()?)?;
        ensure!(netd.status()?.ready, "{:?}", netd.status()?.components);
        // Its events tell of a sandbox's inside only with CAP_NET_BROADCAST.
        one.net.sh("ip address flush dev eth0")?;
        testbed::wait::until(std::time::Duration::from_secs(10), "put back", || {
            probe::ping(&one.net, two.v4()?)
        })?;
        // By the path of a process, as people name it: that is CAP_SYS_PTRACE.
        let by_path = Sandbox::bare(&host, "by-path")?;
        let mut inside = by_path.net.command("sleep").arg("60").spawn()?;
        let netns_path = format!("/proc/{}/ns/net", inside.id());
        testbed::wait::until(std::time::Duration::from_secs(5), "it is inside", || {
            use std::os::unix::fs::MetadataExt as _;
            ensure!(std::fs::metadata(&netns_path)?.ino() == by_path.net.inode()?);
            Ok(())
        })?;
        let request = netd_api::v1::AttachRequest { netns_path, ..by_path.request() };
        let attached = block_on(netd.endpoint_service()?.attach(request));
        inside.kill()?;
        inside.wait()?;
        attached?;
        one.del(&host)?;
        two.del(&host)?;
        let doctor = host
            .net
            .command("setpriv")
            .args(testbed::unit::setpriv(UNIT)?)
            .arg(testbed::paths::built("netd")?)
            .arg("doctor")
            .output()?;
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        ensure!(said.contains("CAP_NET_BROADCAST") && !said.contains("is missing"), "{said}");
        Ok(())
    })
}

#[test]
fn a_netd_without_a_capability_says_which_and_what_for() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        for (name, purpose) in [
            ("net_admin", "make links, routes and rules"),
            ("net_broadcast", "follow netlink events"),
            ("sys_admin", "enter pods' network namespaces"),
        ] {
            let output = host
                .net
                .command("timeout")
                .args([
                    "20",
                    "setpriv",
                    "--bounding-set",
                    &format!("-{name}"),
                    "--inh-caps",
                    &format!("-{name}"),
                ])
                .arg(testbed::paths::built("netd")?)
                .args(["serve", "--state-dir", &host.directory().join("s").display().to_string()])
                .args(["--run-dir", &host.directory().join("r").display().to_string()])
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let named = format!("CAP_{} is missing", name.to_uppercase());
            ensure!(said.contains(&named) && said.contains(purpose), "{name}: {said}");
        }
        Ok(())
    })
}
