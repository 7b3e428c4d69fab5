//! `install` and `uninstall`: the CNI plugin and its conflist on a node.
//!
//! The conflist is what tells a runtime that the node has a network, so it is put in
//! place last, and only when netd is ready.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use netd_cni::rpc::Netd;

use crate::{
    cni::config::{DEFAULT_NETWORK, DEFAULT_TIMEOUT, MOST_TIMEOUT, check_socket},
    error::HookError,
};
use place::Placed;

pub mod conflist;
pub mod place;

/// The plugin's name in the binary directory and in `type` of the conflist.
pub const PLUGIN: &str = "netd-hook";

/// The program that is put there, which is the CNI front alone.
const PROGRAM: &str = "netd-cni";

/// How often netd is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Where the two files go.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// Directory of CNI plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub bin_dir: PathBuf,
    /// Directory of CNI configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub conf_dir: PathBuf,
    /// File name of the conflist; runtimes take the first in alphabetical order
    #[arg(long, value_name = "NAME", default_value = "10-netd.conflist",
          value_parser = conflist::file_name)]
    pub conf_name: String,
}

/// Options of `netd-hook install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    #[command(flatten)]
    places: Places,
    /// netd's socket
    #[arg(long, value_name = "PATH", default_value = netd_api::DEFAULT_SOCKET,
          value_parser = |path: &str| check_socket(path).map(|()| path.to_owned()))]
    socket: String,
    /// netd's network
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NETWORK,
          value_parser = conflist::network)]
    network: String,
    /// Seconds that netd has for each call
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT,
          value_parser = clap::value_parser!(u64).range(1..=MOST_TIMEOUT))]
    timeout: u64,
    /// Seconds to wait until netd is ready
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
    /// Version of the conflist: containerd 1.7 knows 1.0.0; 2.0 and later 1.1.0 too,
    /// and then ask netd for its status
    #[arg(long, value_name = "VERSION", default_value = "1.0.0",
          value_parser = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])]
    cni_version: String,
}

/// Options of `netd-hook uninstall`.
#[derive(Debug, clap::Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    places: Places,
}

/// Puts the binary and then the conflist in place; says what it did on stdout.
pub fn install(args: &InstallArgs) -> ExitCode {
    report(try_install(args))
}

/// Removes the conflist and then the binary; says what it did on stdout.
pub fn uninstall(args: &UninstallArgs) -> ExitCode {
    report(try_uninstall(&args.places))
}

fn report(outcome: Result<(), HookError>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("netd-hook: {error}");
    if !error.details().is_empty() {
        eprintln!("netd-hook: {}", error.details());
    }
    ExitCode::FAILURE
}

fn try_install(args: &InstallArgs) -> Result<(), HookError> {
    let places = &args.places;
    let target = places.conf_dir.join(&places.conf_name);
    ours_or_absent(&target)?;
    wait_until_ready(&args.socket, Duration::from_secs(args.wait))?;
    say(&place::put(&places.bin_dir, PLUGIN, &program()?, 0o755)?);
    let settings = conflist::Settings {
        cni_version: &args.cni_version,
        network: &args.network,
        socket: &args.socket,
        timeout: args.timeout,
    };
    let text = conflist::render(&settings);
    say(&place::put(&places.conf_dir, &places.conf_name, text.as_bytes(), 0o644)?);
    for other in conflist::before(&places.conf_dir, &places.conf_name)? {
        eprintln!(
            "netd-hook: warning: {} sorts before {}: runtimes that take the first configuration \
             will not use netd; remove it or choose another --conf-name",
            other.display(),
            places.conf_name
        );
    }
    Ok(())
}

fn try_uninstall(places: &Places) -> Result<(), HookError> {
    ours_or_absent(&places.conf_dir.join(&places.conf_name))?;
    say(&place::remove(&places.conf_dir, &places.conf_name)?);
    say(&place::remove(&places.bin_dir, PLUGIN)?);
    Ok(())
}

/// The plugin beside this program; where it is not built (see deploy/install.mk), this one,
/// which does the same.
fn program() -> Result<Vec<u8>, HookError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|e| HookError::io(format!("can't read {}", path.display()), e))
    };
    let own = env::current_exe().map_err(|e| HookError::io("can't find this program", e))?;
    let beside = own.with_file_name(PROGRAM);
    if beside.exists() {
        return read(&beside);
    }
    eprintln!("netd-hook: no {} here: using this program, which is slower", beside.display());
    // A program that was replaced while it runs has no path any more.
    read(Path::new("/proc/self/exe"))
}

fn say(placed: &Placed) {
    println!("{placed}");
}

/// Never overwrites or removes somebody else's configuration.
fn ours_or_absent(path: &Path) -> Result<(), HookError> {
    match place::existing(path)? {
        Some(bytes) if !conflist::is_ours(&bytes) => Err(HookError::io(
            format!("{} is not netd's", path.display()),
            format!(
                "no plugin in it has the type \"{PLUGIN}\"; remove it or choose another --conf-name"
            ),
        )),
        _ => Ok(()),
    }
}

/// Asks until netd is ready or the time is over; then the last answer is the error.
fn wait_until_ready(socket: &str, wait: Duration) -> Result<(), HookError> {
    const CALL: Duration = Duration::from_secs(5);
    let end = Instant::now() + wait;
    loop {
        match Netd::connect(socket, CALL).and_then(|mut netd| netd.ready()) {
            Err(error) if Instant::now() >= end => return Err(error),
            #[allow(clippy::disallowed_methods)] // nothing else is on this thread
            Err(_) => thread::sleep(ASK_EVERY),
            Ok(()) => return Ok(()),
        }
    }
}
