//! The start: what must not keep netd from serving, and that a signal ends it at any moment.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::Mode;
use testbed::{Daemon, DaemonConfig, Host, Sandbox, case, paths, wait};

const SOON: Duration = Duration::from_secs(10);
/// Longer than the longest time between two attempts to listen.
const RETRIED: Duration = Duration::from_secs(25);
/// A start that is ended takes no longer, however it is stuck.
const AT_ONCE: Duration = Duration::from_secs(3);

fn with_top(top: &str) -> DaemonConfig {
    DaemonConfig { top: top.to_owned(), ..DaemonConfig::default() }
}

/// What `/readyz` answers.
fn readyz(host: &Host, address: SocketAddr) -> Result<String> {
    host.net.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

/// netd serves although it can't listen on `address`, says so, and listens after `free`.
fn serves_without_metrics(
    host: &Host,
    netd: &Daemon,
    address: &str,
    free: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let metrics = || -> Result<_> {
        let parts = netd.status()?.components;
        parts.into_iter().find(|part| part.name == "metrics").context("no component metrics")
    };
    Sandbox::attached(host, "pod")?.del(host)?;
    ensure!(netd.status()?.ready, "not ready without metrics");
    let part = metrics()?;
    ensure!(!part.ready && part.reason.contains(address), "{part:?}");
    ensure!(netd.logged().contains(&format!("metrics_listen {address}")), "not in the log");
    let said = doctor_says(host, netd)?;
    ensure!(said.contains(&format!("metrics_listen {address}")), "{said}");
    free()?;
    wait::until(RETRIED, "metrics are served", || {
        let answer = readyz(host, address.parse()?)?;
        ensure!(answer.contains("200 OK") && answer.ends_with("ok\n"), "{answer}");
        ensure!(metrics()?.ready);
        Ok(())
    })?;
    Ok(())
}

fn doctor_says(host: &Host, netd: &Daemon) -> Result<String> {
    let mut doctor = host.net.command(paths::built("netd")?);
    let output = doctor.arg("doctor").env("NETD_SOCKET", netd.socket()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_metrics_address_that_another_process_has_ends_nothing() -> Result<()> {
    case(|bed| {
        for (name, taken) in [("exact", "127.0.0.1:9479"), ("wildcard", "0.0.0.0:9479")] {
            let host = bed.host(name)?;
            let other = host.net.run(|| Ok(TcpListener::bind(taken)?))?;
            let netd = Daemon::start(&host, &DaemonConfig::default())?;
            serves_without_metrics(&host, &netd, "127.0.0.1:9479", || {
                drop(other);
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_metrics_address_may_appear_later() -> Result<()> {
    case(|bed| {
        let host = bed.host("v4")?;
        let config = with_top("metrics_listen = \"203.0.113.9:9479\"");
        let netd = Daemon::start(&host, &config)?;
        serves_without_metrics(&host, &netd, "203.0.113.9:9479", || {
            host.net.sh("ip address add 203.0.113.9/32 dev lo").map(drop)
        })?;
        let host = bed.host("v6")?;
        host.net.sh("ip address del ::1/128 dev lo")?;
        let netd = Daemon::start(&host, &with_top("metrics_listen = \"[::1]:9479\""))?;
        serves_without_metrics(&host, &netd, "[::1]:9479", || {
            host.net.sh("ip address add ::1/128 dev lo").map(drop)
        })
    })
}

#[test]
fn a_metrics_port_that_netd_may_not_have_ends_nothing() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let config = with_top("metrics_listen = \"127.0.0.1:80\"");
        let netd = Daemon::start_confined(&host, &config, "netd.service")?;
        serves_without_metrics(&host, &netd, "127.0.0.1:80", || {
            host.net.sh("sysctl -qw net.ipv4.ip_unprivileged_port_start=80").map(drop)
        })
    })
}

/// Launches netd with a FIFO in the place of a file, at which its start waits for ever.
fn stuck_at(host: &Host, config: &DaemonConfig, file: &str) -> Result<Daemon> {
    let path = host.directory().join("netd").join(file);
    fs::create_dir_all(path.parent().context("no parent")?)?;
    nix::unistd::mkfifo(&path, Mode::S_IRWXU)?;
    Daemon::launch(host, config)
}

fn in_a_cluster(host: &Host) -> DaemonConfig {
    // Nothing answers there.
    let networks = format!(
        "[etcd]\nendpoints = [\"http://192.0.2.250:2379\"]\nusername = \"netd\"\n\
         password_file = \"{0}/netd/password\"\n[overlay]\nsubnet_file = \"{0}/subnet.env\"\n",
        host.directory().display()
    );
    DaemonConfig { networks, ..DaemonConfig::default() }
}

fn ends_at_once(netd: &mut Daemon) -> Result<()> {
    let start = Instant::now();
    let status = netd.service().stop(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}: {}", netd.logged());
    ensure!(start.elapsed() < AT_ONCE, "only after {:?}", start.elapsed());
    ensure!(!netd.logged().contains("panicked"), "{}", netd.logged());
    Ok(())
}

#[test]
fn sigterm_ends_a_start_that_is_stuck_wherever_it_is() -> Result<()> {
    /// The store, the firewall's thread, and three files of the cluster's part.
    const FILES: [&str; 5] = [
        "run/endpoints.boot",
        "run/firewall.json",
        "password",
        "state/overlay-identity.json",
        "state/overlay/node-id",
    ];
    case(|bed| {
        for (number, file) in FILES.into_iter().enumerate() {
            let host = bed.host(&format!("node{number}"))?;
            let config = in_a_cluster(&host);
            fs::create_dir_all(host.directory().join("netd"))?;
            if file != "password" {
                fs::write(host.directory().join("netd/password"), "secret\n")?;
            }
            let mut netd = stuck_at(&host, &config, file)?;
            wait::pause(Duration::from_secs(1));
            netd.service().check_alive()?;
            ends_at_once(&mut netd).with_context(|| file)?;
        }
        Ok(())
    })
}

#[test]
fn sigterm_ends_a_start_whose_etcd_is_out_of_reach() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let config = in_a_cluster(&host);
        fs::create_dir_all(host.directory().join("netd"))?;
        fs::write(host.directory().join("netd/password"), "secret\n")?;
        let mut netd = Daemon::launch(&host, &config)?;
        wait::pause(Duration::from_millis(700));
        netd.service().check_alive()?;
        ends_at_once(&mut netd)
    })
}

/// From before the handler is there, when the signal itself ends the process, to a netd that
/// serves.
#[test]
fn sigterm_ends_a_start_at_any_moment() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut netd = Daemon::launch(&host, &DaemonConfig::default())?;
        for after in [0, 3, 6, 10, 15, 20, 30, 45, 70, 100, 200] {
            netd.service().stop(SOON)?;
            netd.respawn()?;
            wait::pause(Duration::from_millis(after));
            let start = Instant::now();
            let status = netd.service().stop(Duration::from_secs(20))?;
            let by_signal = status.signal() == Some(libc::SIGTERM);
            ensure!(status.success() || by_signal, "after {after} ms: {status}");
            ensure!(start.elapsed() < AT_ONCE, "{after} ms: only after {:?}", start.elapsed());
        }
        netd.restart()?;
        Sandbox::attached(&host, "pod")?.del(&host)
    })
}

/// The NETD_* variables that a command names in its help.
fn variables(program: &Path, command: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(program).args(command).arg("--help").output()?;
    let help = String::from_utf8(output.stdout)?;
    let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split('=').next());
    Ok(named.filter(|name| name.starts_with("NETD_")).map(str::to_owned).collect())
}

/// Arguments of each command that reads variables, with which it ends by itself: what ends it
/// is found after the command line has been read.
fn commands(scratch: &Path) -> Vec<(&'static str, Vec<&'static str>, Vec<String>)> {
    let text = |given: &[&str]| given.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let file = scratch.join("file").display().to_string();
    let below_a_file = format!("{file}/netd.sock");
    vec![
        ("netd", vec!["serve"], text(&["--check-config"])),
        ("netd", vec!["doctor"], text(&["-o", "json"])),
        ("netd", vec!["status"], vec![]),
        ("netd", vec!["network", "list"], vec![]),
        ("netd", vec!["node", "list"], vec![]),
        ("netd", vec!["docker-opts"], text(&["-f", &below_a_file, "-d", &below_a_file])),
        ("netd-tunnel", vec![], text(&["--log", "a=b=c"])),
        ("netd-tunnel", vec![], text(&["--socket", &below_a_file])),
        ("netd-hook", vec!["nri"], text(&["--idx", "xx"])),
        ("netd-hook", vec!["docker"], text(&["--plugin-socket", &below_a_file])),
    ]
}

/// An environment file of a unit leaves a variable out by an empty value.
#[test]
fn every_variable_counts_as_unset_when_it_is_empty() -> Result<()> {
    /// clap's, for a command line that it refuses.
    const USAGE: i32 = 2;
    case(|bed| {
        fs::write(bed.directory().join("file"), "")?;
        let mut tried = std::collections::BTreeSet::new();
        for (program, command, arguments) in commands(bed.directory()) {
            let path = paths::built(program)?;
            for name in variables(&path, &command)? {
                // What is given on the command line would hide what the variable does.
                let flag = format!("--{}", name.trim_start_matches("NETD_TUNNEL_").to_lowercase());
                if arguments.contains(&flag) {
                    continue;
                }
                let done = Command::new(&path)
                    .args(&command)
                    .args(&arguments)
                    .env(&name, "")
                    .stdin(Stdio::null())
                    .output()?;
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                ensure!(done.status.code() != Some(USAGE), "{program} with {name}=: {said}");
                ensure!(
                    command != ["serve"] || done.status.success(),
                    "{program} with {name}=: {said}"
                );
                tried.insert(format!("{program} {name}"));
            }
        }
        // All 29 of `netd serve`, netd-tunnel's four, and NETD_SOCKET of the fronts.
        ensure!(tried.len() >= 34, "{tried:?}");
        Ok(())
    })
}
