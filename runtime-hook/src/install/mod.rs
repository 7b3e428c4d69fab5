//! `netd-hook install` and `uninstall`: the CNI plugin and its conflist on a node.
//!
//! A runtime considers the node's network ready when the conflist exists, so it is written
//! last, and only when netd is ready, unless it is a pod's init container, which netd's own
//! container waits for: then the runtime asks netd (STATUS), or its first pods are tried again.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use netd_cni::rpc::Netd;

use crate::{
    cni::config::{DEFAULT_NETWORK, DEFAULT_TIMEOUT, MAX_TIMEOUT, check_socket},
    error::HookError,
};
use atomic_file::FileChange;
use conflist::PLUGIN;
use containerd::DEFAULT_BIN_DIR;

mod atomic_file;
mod conflist;
mod containerd;
mod displaced;
mod endpoints_left;

/// The executable that is installed under the name [`PLUGIN`]: the CNI front alone.
const PROGRAM: &str = "netd-cni";

/// The value of `--cni-version` that leaves it to the runtime.
const AUTO: &str = "auto";

/// Between two questions whether netd is ready.
const READY_INTERVAL: Duration = Duration::from_millis(250);
/// Limit of one such question.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the two files are installed.
#[derive(Debug, clap::Args)]
struct InstallPaths {
    /// Directory of CNI plugins [default: where containerd looks for them, else /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Directory of CNI configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// File name of the conflist; runtimes use the first one in alphabetical order
    #[arg(long, value_name = "NAME", default_value = "10-netd.conflist",
          value_parser = conflist::file_name)]
    conf_name: String,
    /// The program to ask where containerd looks for plugins
    #[arg(long, value_name = "PROGRAM", default_value = "containerd")]
    containerd: String,
}

impl InstallPaths {
    /// Where the plugin is to be.
    fn bin_dir(&self) -> PathBuf {
        let asked = || containerd::plugin_dir(&self.containerd);
        self.bin_dir.clone().or_else(asked).unwrap_or_else(|| DEFAULT_BIN_DIR.into())
    }
}

/// Options of `netd-hook install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    #[command(flatten)]
    paths: InstallPaths,
    /// netd's socket; the plugin uses the hooks' socket beside it
    #[arg(long, value_name = "PATH", default_value = netd_api::DEFAULT_SOCKET,
          value_parser = |path: &str| check_socket(path).map(|()| path.to_owned()))]
    socket: String,
    /// netd's network
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NETWORK,
          value_parser = conflist::network_name)]
    network: String,
    /// Limit of each call of netd, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT,
          value_parser = clap::value_parser!(u64).range(1..=MAX_TIMEOUT))]
    timeout: u64,
    /// How long to wait until netd is ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
    /// Neither ask nor wait for netd: in an init container, before netd can be there
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// CNI version of the conflist; auto: the newest that the runtime speaks, of 1.0.0 and
    /// 1.1.0, with which it asks netd for its status
    #[arg(long, value_name = "VERSION", default_value = AUTO,
          value_parser = [AUTO, "0.3.1", "0.4.0", "1.0.0", "1.1.0"])]
    cni_version: String,
    /// Move configurations of other plugins aside that sort before this one, as
    /// 10-flannel.conflist does; `uninstall` puts them back
    #[arg(long)]
    displace: bool,
}

/// Options of `netd-hook uninstall`.
#[derive(Debug, clap::Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    paths: InstallPaths,
    /// netd's socket, to ask which pods still need the plugin
    #[arg(long, value_name = "PATH", default_value = netd_api::DEFAULT_SOCKET)]
    socket: String,
    /// Remove them although pods still need the plugin to be stopped
    #[arg(long)]
    force: bool,
}

/// Installs the executable and then the conflist, and prints what it did.
pub fn install(args: &InstallArgs) -> ExitCode {
    report(try_install(args))
}

/// Removes the conflist and then the executable, and prints what it did.
pub fn uninstall(args: &UninstallArgs) -> ExitCode {
    report(try_uninstall(args))
}

fn report(result: Result<(), HookError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("netd-hook: {error}");
    if !error.details().is_empty() {
        eprintln!("netd-hook: {}", error.details());
    }
    ExitCode::FAILURE
}

fn try_install(args: &InstallArgs) -> Result<(), HookError> {
    let paths = &args.paths;
    let target = paths.conf_dir.join(&paths.conf_name);
    check_not_foreign(&target)?;
    if !args.no_wait {
        wait_until_ready(&args.socket, Duration::from_secs(args.wait))?;
    }
    print(&atomic_file::write(&paths.bin_dir(), PLUGIN, &program()?, 0o755)?);
    let settings = conflist::Settings {
        cni_version: Some(args.cni_version.as_str()).filter(|version| *version != AUTO),
        network: &args.network,
        socket: &args.socket,
        timeout: args.timeout,
    };
    let text = conflist::render(&settings);
    print(&atomic_file::write(&paths.conf_dir, &paths.conf_name, text.as_bytes(), 0o644)?);
    for other in conflist::sorting_before(&paths.conf_dir, &paths.conf_name)? {
        if args.displace {
            println!("{}", displaced::displace(&other)?);
            continue;
        }
        eprintln!(
            "netd-hook: warning: {} sorts before {}, so runtimes use it instead of netd; give \
             --displace, remove it, or choose another --conf-name",
            other.display(),
            paths.conf_name
        );
    }
    Ok(())
}

fn try_uninstall(args: &UninstallArgs) -> Result<(), HookError> {
    let paths = &args.paths;
    check_not_foreign(&paths.conf_dir.join(&paths.conf_name))?;
    if !args.force {
        check_unused(&args.socket)?;
    }
    print(&atomic_file::remove(&paths.conf_dir, &paths.conf_name)?);
    displaced::put_back(&paths.conf_dir)?.iter().for_each(|moved| println!("{moved}"));
    let bin_dir = paths.bin_dir();
    print(&atomic_file::remove(&bin_dir, PLUGIN)?);
    // Where it was before containerd was asked, or before its configuration was changed.
    let usual = Path::new(DEFAULT_BIN_DIR);
    if paths.bin_dir.is_none() && bin_dir != usual {
        print(&atomic_file::remove(usual, PLUGIN)?);
    }
    Ok(())
}

/// Refuses to take the plugin from pods that can't be stopped without it.
fn check_unused(socket: &str) -> Result<(), HookError> {
    const SHOWN: usize = 5;
    let left = endpoints_left::endpoints_left(socket)?;
    if left.is_empty() {
        return Ok(());
    }
    let more = if left.len() > SHOWN { ", ..." } else { "" };
    let shown = left.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let problem = format!(
        "{} endpoints still need the plugin to be detached: {shown}{more}; stop their pods first \
         (kubectl drain), or give --force and detach them by `netd endpoint detach`",
        left.len()
    );
    Err(HookError::io("nothing was removed", problem))
}

/// The content of `netd-cni` beside this executable. Where it was not built (see
/// deploy/install.mk), this executable takes its place, because it serves CNI as well.
fn program() -> Result<Vec<u8>, HookError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|e| HookError::io(format!("can't read {}", path.display()), e))
    };
    let own = env::current_exe()
        .map_err(|e| HookError::io("can't find the path of this executable", e))?;
    let beside = own.with_file_name(PROGRAM);
    if beside.exists() {
        return read(&beside);
    }
    eprintln!("netd-hook: {} does not exist; installing the slower netd-hook", beside.display());
    // The path of an executable that was replaced while it runs no longer exists.
    read(Path::new("/proc/self/exe"))
}

fn print(change: &FileChange) {
    println!("{change}");
}

/// Refuses to overwrite or remove a configuration that is not netd's.
fn check_not_foreign(path: &Path) -> Result<(), HookError> {
    match atomic_file::read(path)? {
        Some(bytes) if !conflist::is_ours(&bytes) => Err(HookError::io(
            format!("{} is not netd's", path.display()),
            format!(
                "it has no plugin of type \"{PLUGIN}\"; remove the file or choose another --conf-name"
            ),
        )),
        _ => Ok(()),
    }
}

/// Waits until netd is ready. After `wait` the last answer is the error.
fn wait_until_ready(socket: &str, wait: Duration) -> Result<(), HookError> {
    let end = Instant::now() + wait;
    loop {
        match Netd::connect(socket, READY_TIMEOUT).and_then(|mut netd| netd.ready("")) {
            Err(error) if Instant::now() >= end => return Err(error),
            #[allow(clippy::disallowed_methods)] // no async task runs on this thread
            Err(_) => thread::sleep(READY_INTERVAL),
            Ok(()) => return Ok(()),
        }
    }
}
