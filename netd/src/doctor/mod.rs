//! The command `netd doctor`: finds out why pods on this node get no network, what does not
//! work because of it, and how to fix it.
//!
//! Each check has a part that reads the system and a pure part that judges what was read.
//! The checks change nothing on the node; the kernel's features are tried in a network
//! namespace of their own (see `kernel_features`).

mod cidr;
mod cni;
mod containerd;
mod daemon;
mod finding;
mod firewall;
mod kernel;
mod kube_proxy;
mod privileges;
mod sysctls;
mod unit;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use crate::client::path_or_empty;
use crate::config::{Override, Sources, load};
use crate::terminal::{EXIT_NOT_READY, Failure, Format, print, print_json};
use finding::{Finding, Report};
use netd_api::DEFAULT_SOCKET;
use netd_domain::Network;

/// Arguments of `netd doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// netd's configuration [default: /etc/netd/netd.toml]
    #[arg(long, env = "NETD_CONFIG", value_parser = path_or_empty(), value_name = "FILE")]
    config: Option<PathBuf>,
    /// netd's socket [default: the configuration's]
    #[arg(long, env = "NETD_SOCKET", value_name = "PATH")]
    socket: Option<String>,
    /// containerd's configuration
    #[arg(long, default_value = "/etc/containerd/config.toml", value_name = "FILE")]
    containerd_config: PathBuf,
    /// The containerd program, which is asked for its version and configuration
    #[arg(long, default_value = "containerd", value_name = "PROGRAM")]
    containerd: String,
    /// A table for people or JSON for programs
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Makes every check and prints the findings.
pub(crate) async fn run(args: DoctorArgs) -> Result<ExitCode, Failure> {
    let report = examine(&args).await;
    match args.output {
        Format::Table => print(&report.text())?,
        Format::Json => print_json(&report)?,
    }
    Ok(if report.healthy() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_READY) })
}

async fn examine(args: &DoctorArgs) -> Report {
    let mut findings = vec![];
    let config = configuration(args, &mut findings);
    findings.extend(privileges::check());
    findings.extend(kernel::check());
    let netd = daemon::ask(&config.socket, Duration::from_secs(3)).await;
    findings.extend(daemon::judge(&netd));
    findings.extend(daemon::stale(&netd, &daemon::host_links()));
    let ruleset = firewall::read(&config.networks);
    let kube_proxy = kube_proxy::runs(&ruleset);
    findings.extend(sysctls::check(&config.networks, netd.is_ok(), kube_proxy));
    let running = netd.as_ref().map(daemon::networks).unwrap_or_default();
    findings.extend(cidr::check(&config.networks, &running));
    let uplink = firewall::uplink();
    findings.extend(firewall::judge(&ruleset, &config.networks, uplink.as_deref()));
    let runtime = containerd::read(&args.containerd_config, &args.containerd);
    findings.extend(containerd::judge(&runtime));
    findings.extend(cni::check(&runtime.cni()));
    Report::new(findings)
}

/// What the checks need from the configuration.
struct Checked {
    socket: PathBuf,
    networks: Vec<Network>,
}

/// The configuration; the defaults if it has errors, so that the other checks can be made.
fn configuration(args: &DoctorArgs, findings: &mut Vec<Finding>) -> Checked {
    const CHECK: &str = "configuration";
    let file = args.config.as_deref().filter(|p| !p.as_os_str().is_empty());
    let socket = args.socket.iter().filter(|s| !s.is_empty());
    let overrides = socket.map(|value| Override {
        path: "socket",
        origin: "--socket or NETD_SOCKET".to_owned(),
        value: value.clone(),
    });
    match load(file, overrides.collect()) {
        Ok(config) => {
            findings.push(Finding::ok(CHECK, "it has no errors"));
            Checked { socket: config.socket, networks: config.networks }
        }
        Err(invalid) => {
            findings.extend(invalid.violations.iter().map(|v| {
                Finding::fail(CHECK, format!("{}: {}", v.field, v.problem))
                    .breaks("netd does not start")
                    .fix("correct it; netd serve --check-config prints the errors that are left")
            }));
            Checked { socket: DEFAULT_SOCKET.into(), networks: default_networks() }
        }
    }
}

/// The networks of a netd without any configuration.
fn default_networks() -> Vec<Network> {
    let empty = Sources { hostname: "localhost".to_owned(), ..Default::default() };
    empty.config().map(|config| config.networks).unwrap_or_default()
}

#[cfg(test)]
mod tests;
