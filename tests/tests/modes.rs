//! Who can read what netd's programs write, whatever their umask is. In a test program of its
//! own, because the umask is the whole process's.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::{Mode, umask};
use serde_json::json;
use testbed::{Cluster, Plan, Sandbox, case, cluster::Families, paths, service::Service, wait};

fn mode_of(path: &Path) -> Result<u32> {
    let found = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    Ok(found.permissions().mode() & 0o7777)
}

/// Everything below a directory, and itself.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut left) = (vec![directory.to_owned()], vec![directory.to_owned()]);
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if fs::symlink_metadata(&path)?.is_dir() {
                left.push(path.clone());
            }
            found.push(path);
        }
    }
    Ok(found)
}

/// Each is root's alone: files 0600, directories 0700, sockets 0600. `except`: what others use.
fn private(directory: &Path, except: &[(&str, u32)]) -> Result<usize> {
    let all = entries(directory)?;
    for path in &all {
        let kind = fs::symlink_metadata(path)?.file_type();
        let name = path.strip_prefix(directory)?.to_string_lossy().into_owned();
        let usual = if kind.is_dir() { 0o700 } else { 0o600 };
        let other = except.iter().find(|(excepted, _)| *excepted == name);
        let expected = other.map_or(usual, |(_, mode)| *mode);
        let mode = mode_of(path)?;
        ensure!(mode == expected, "{}: {mode:o}, not {expected:o}", path.display());
        ensure!(!kind.is_socket() || name.ends_with(".sock"), "{name} is left");
    }
    Ok(all.len())
}

fn hook(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(paths::built("netd-hook")?);
    command.args(arguments);
    Ok(command)
}

/// One test, so that no other is under its umask.
#[test]
fn what_is_written_under_any_umask_is_roots_alone() -> Result<()> {
    for mask in [0o000, 0o077] {
        umask(Mode::from_bits_truncate(mask));
        case(|bed| {
            // A pre-shared key for all nodes is in the cluster's configuration.
            let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
            let backend = json!({ "Type": "wireguard", "PSK": key });
            let plan = Plan::new(Families::Dual, backend).nodes(2);
            let mut cluster = Cluster::start(bed, &plan)?;
            let node = &mut cluster.nodes[0];
            let pod = Sandbox::attached(&node.host, "pod")?;
            let directory = node.host.directory().join("netd");
            // netd is started again, and makes its directories itself.
            let (state, run) = (directory.join("new/state"), directory.join("new/run"));
            let overlay = directory.join("state/overlay");
            wait::until(Duration::from_secs(10), "overlay.json", || {
                ensure!(overlay.join("overlay.json").exists());
                Ok(())
            })?;
            private(&overlay, &[])?;
            let mut own = node.host.net.command(paths::built("netd")?);
            own.arg("serve").arg("--config").arg(directory.join("netd.toml"));
            own.env("NETD_STATE_DIR", &state).env("NETD_RUN_DIR", &run);
            own.env("NETD_SOCKET", run.join("netd.sock")).env("NETD_ETCD_ENDPOINTS", "");
            own.env("NETD_METRICS_LISTEN", "off");
            pod.del(&node.host)?;
            // Two netds don't work in one network namespace.
            node.netd.service().stop(Duration::from_secs(10))?;
            let log = node.host.directory().join("own.log");
            let mut netd = Service::start("netd", own, &log)?;
            wait::until(Duration::from_secs(20), "its socket", || {
                netd.check_alive()?;
                ensure!(run.join("netd.sock").exists());
                Ok(())
            })?;
            wait::pause(Duration::from_secs(1));
            ensure!(private(&state, &[])? > 2);
            ensure!(private(&run, &[("", 0o755), ("netd.sock", 0o660)])? > 5);
            netd.stop(Duration::from_secs(10))?;
            // What others have to read: flannel's file, and what the runtime executes.
            ensure!(mode_of(&node.subnet_file())? == 0o644);
            Ok(())
        })?;
        case(|bed| {
            let installed = bed.directory().join("installed");
            let (bin, conf) = (installed.join("bin"), installed.join("net.d"));
            let socket = bed.directory().join("plugins/netd.sock");
            let docker = hook(&["docker", "--plugin-socket", &socket.display().to_string()])?;
            let mut docker = Service::start("docker", docker, &bed.directory().join("d.log"))?;
            let tunnel_dir = bed.directory().join("tunnel");
            let mut tunnel = Command::new(paths::built("netd-tunnel")?);
            tunnel.arg("--socket").arg(tunnel_dir.join("tunnel.sock"));
            tunnel.arg("--state").arg(tunnel_dir.join("tunnel.state"));
            let mut tunnel = Service::start("tunnel", tunnel, &bed.directory().join("t.log"))?;
            for path in [&socket, &tunnel_dir.join("tunnel.sock")] {
                wait::until(Duration::from_secs(10), "a socket", || {
                    ensure!(mode_of(path)? == 0o600);
                    Ok(())
                })?;
            }
            docker.check_alive()?;
            tunnel.check_alive()?;
            private(&tunnel_dir, &[("", 0o755)])?;
            private(&bed.directory().join("plugins"), &[("", 0o755)])?;
            let host = bed.host("node")?;
            let netd = testbed::Daemon::start(&host, &testbed::DaemonConfig::default())?;
            let mut install = hook(&["install", "--socket", &netd.socket().display().to_string()])?;
            install.arg("--bin-dir").arg(&bin).arg("--conf-dir").arg(&conf);
            ensure!(install.status()?.success());
            for (path, expected) in [
                (bin.clone(), 0o755),
                (bin.join("netd-hook"), 0o755),
                (conf.clone(), 0o755),
                (conf.join("10-netd.conflist"), 0o644),
            ] {
                let mode = mode_of(&path)?;
                // A directory that nobody else can write to is enough.
                let right = mode == expected || (path.is_dir() && mode & 0o022 == 0);
                ensure!(right, "{}: {mode:o}", path.display());
            }
            Ok(())
        })?;
    }
    Ok(())
}
