//! The plugin comes in the CNI version that the runtime speaks, and goes when no pod needs it.

use std::{fs, path::Path, process::Output, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::{Containerd, Daemon, DaemonConfig, Host, Sandbox, Stack, Version, case, hook, paths};

/// `netd-hook ARGUMENTS` for the directories of the host's containerd.
fn hook(host: &Host, arguments: &[&str]) -> Result<Output> {
    let mut command = host.net.command(paths::built("netd-hook")?);
    command.args(arguments);
    command.arg("--bin-dir").arg(Containerd::cni_plugins_of(host));
    command.arg("--conf-dir").arg(Containerd::cni_config_of(host));
    command.arg("--socket").arg(Daemon::socket_of(host));
    Ok(command.output()?)
}

fn installed_version(host: &Host) -> Result<String> {
    let text = fs::read(Containerd::cni_config_of(host).join("10-netd.conflist"))?;
    let list: Value = serde_json::from_slice(&text)?;
    Ok(list["cniVersion"].as_str().context("no cniVersion")?.to_owned())
}

/// containerd 2 asks netd by STATUS of CNI 1.1 whether pods can start; 1.7 knows 1.0 only. Both
/// read one conflist.
#[test]
fn each_containerd_takes_the_newest_version_that_it_speaks() -> Result<()> {
    for (version, asks) in [(Version::V1_7, false), (Version::V2_1, true)] {
        case(|bed| {
            let mut stack = Stack::start(bed, version, &DaemonConfig::default())?;
            let cri = stack.cri()?;
            cri.run_pod(testbed::cri::pod("one"))?;
            stack.netd.service().stop(Duration::from_secs(20))?;
            let ready = cri.network_ready();
            ensure!(ready.is_err() == asks, "{version:?} without netd: {ready:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_init_container_installs_before_netd_is_there() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let output = hook(&host, &["install", "--no-wait"])?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(installed_version(&host)? == "1.0.0");
        ensure!(Containerd::cni_plugins_of(&host).join("netd-hook").exists());
        Ok(())
    })
}

fn refused(host: &Host, word: &str) -> Result<()> {
    let output = hook(host, &["uninstall"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains(word), "{word} is not in {output:?}");
    ensure!(said.contains("--force"), "{said}");
    ensure!(installed_version(host).is_ok(), "nothing is removed");
    Ok(())
}

#[test]
fn the_plugin_stays_while_pods_need_it() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut netd = Daemon::start(&host, &DaemonConfig::default())?;
        hook::install(&host, Path::new("/nonexistent/containerd"))?;
        let pod = Sandbox::attached(&host, "pod")?;
        refused(&host, "test/pod")?;
        // Without netd the kernel's devices say it.
        netd.service().stop(Duration::from_secs(20))?;
        refused(&host, "device nd")?;
        netd.respawn()?;
        netd.wait_ready()?;
        pod.del(&host)?;
        let output = hook(&host, &["uninstall"])?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(installed_version(&host).is_err(), "the conflist is gone");
        ensure!(!Containerd::cni_plugins_of(&host).join("netd-hook").exists());
        Ok(())
    })
}

#[test]
fn the_plugin_goes_by_force() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let _netd = Daemon::start(&host, &DaemonConfig::default())?;
        hook::install(&host, Path::new("/nonexistent/containerd"))?;
        let _pod = Sandbox::attached(&host, "pod")?;
        let output = hook(&host, &["uninstall", "--force"])?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(installed_version(&host).is_err());
        Ok(())
    })
}

/// kube-flannel's conflist sorts before netd's: containerd would go on with it.
#[test]
fn a_conflist_that_sorts_before_is_displaced_and_put_back() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let _netd = Daemon::start(&host, &DaemonConfig::default())?;
        hook::install(&host, Path::new("/nonexistent/containerd"))?;
        let flannel = Containerd::cni_config_of(&host).join("10-flannel.conflist");
        fs::write(&flannel, "{}")?;
        let warned = hook(&host, &["install"])?;
        let said = String::from_utf8_lossy(&warned.stderr);
        ensure!(warned.status.success() && said.contains("--displace"), "{said}");
        ensure!(flannel.exists(), "moved without being asked to");
        let output = hook(&host, &["install", "--displace"])?;
        ensure!(output.status.success() && !flannel.exists(), "{output:?}");
        let output = hook(&host, &["uninstall"])?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(fs::read_to_string(&flannel)? == "{}", "it was not put back");
        Ok(())
    })
}

/// `make uninstall` without the removal of installed files, for which it has a target of its own.
fn uninstall(host: &Host, netd: &Daemon) -> Result<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/uninstall.sh");
    let run_dir = netd.socket().parent().context("a directory")?.to_owned();
    let built = paths::built("netd")?;
    let mut command = host.net.command(script);
    command.arg(built.parent().context("a directory")?).arg("netd.service");
    command.env("CNI_BIN_DIR", Containerd::cni_plugins_of(host));
    command.env("CNI_CONF_DIR", Containerd::cni_config_of(host));
    command.env("RUN_DIR", run_dir).env("NETD_PID", netd.pid().to_string());
    Ok(command.output()?)
}

#[test]
fn uninstalling_refuses_with_endpoints_and_leaves_nothing_in_the_kernel_without() -> Result<()> {
    if Path::new("/run/systemd/system").exists() {
        // It would stop this machine's own netd.
        return Ok(());
    }
    case(|bed| {
        let host = bed.host("node")?;
        let config = DaemonConfig::default().and_network("blue", "bridge", &["10.77.0.0/24"]);
        let netd = Daemon::start(&host, &config)?;
        let pod = Sandbox::attached(&host, "pod")?;
        let tables = || host.net.sh("nft list tables");
        let output = uninstall(&host, &netd)?;
        ensure!(!output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("1 endpoints exist") && said.contains("FORCE=1"), "{said}");
        ensure!(netd.status()?.ready && tables()?.contains("netd"), "nothing has happened");
        pod.del(&host)?;
        let gone = || -> Result<()> {
            let left = host.net.sh("ip -o link show")?;
            ensure!(!left.contains(": nd"), "{left}");
            Ok(())
        };
        testbed::wait::until(std::time::Duration::from_secs(10), "the pod's device", gone)?;
        let output = uninstall(&host, &netd)?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(!tables()?.contains("netd"), "{}", tables()?);
        let links = host.net.sh("ip -o link show type bridge")?;
        ensure!(links.trim().is_empty(), "{links}");
        ensure!(!netd.socket().exists(), "the run directory is gone");
        Ok(())
    })
}
