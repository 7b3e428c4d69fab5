//! The Docker front: libnetwork's remote network driver and IPAM driver (CNM), for
//! `docker network create -d netd [--ipam-driver netd]`.
//!
//! dockerd calls it by HTTP over a Unix socket in its plugin directory, a JSON document
//! each way. The front translates and keeps nothing: what a call needs is in the call,
//! or netd knows it.
//!
//! - A Docker network is the netd network `docker-` and the first 12 digits of its id, or
//!   with `-o netd.network=NAME` one that netd has already, shared with pods. Which one an
//!   endpoint is in follows from its address: networks of a node don't overlap.
//! - A Docker endpoint is a netd endpoint whose `sandbox_id` is Docker's EndpointID: CNM
//!   makes endpoints before it tells the sandbox.
//! - A pool's id is its subnet, and the part of it that `--ip-range` allows.
//!
//! Why libnetwork moves the interface and netd finds it afterwards: at Join the sandbox's
//! namespace does not exist yet on dockerd 20.10 (it is made by a hook of the container's
//! start, after Join), on 28.5 it does; and libnetwork sets addresses and routes only on
//! an interface that it has moved. So netd makes the pair with both ends on the host, and
//! sees by its carrier and the path of Join (SandboxKey) that it has arrived. From then on
//! it looks after it as after a pod's, but for the routes, which libnetwork changes as
//! networks are connected and disconnected.
//!
//! Who owns which state: netd networks, addresses, pairs, rules, host ports; libnetwork
//! the names, addresses and routes inside the sandbox, and which endpoint leads out (it
//! tells netd by ProgramExternalConnectivity); Docker's store what a container wants.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::PathBuf, process::ExitCode};

use sd_notify::NotifyState;
use tokio::net::{UnixListener, UnixStream};

mod endpoint;
mod ipam;
mod netd;
mod network;
mod offers;
mod options;
mod ports;
pub mod server;
mod wire;

pub use netd::Netd;

/// Where dockerd looks for plugins that are no containers.
const PLUGIN: &str = "/run/docker/plugins/netd.sock";

/// Options of the Docker front.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The socket to serve; its name is the driver's
    #[arg(long = "plugin-socket", value_name = "PATH", default_value = PLUGIN)]
    pub socket: PathBuf,
    /// netd's socket
    #[arg(
        long = "netd-socket",
        value_name = "PATH",
        env = "NETD_SOCKET",
        default_value = netd_api::DEFAULT_SOCKET
    )]
    pub netd_socket: PathBuf,
}

/// The front as a process: serves until it is told to stop.
pub fn main(options: &Options) -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.and_then(|runtime| runtime.block_on(run(options)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("netd-hook docker: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> io::Result<()> {
    let listener = listen(options).await.map_err(|e| {
        io::Error::new(e.kind(), format!("can't serve {}: {e}", options.socket.display()))
    })?;
    // netd may start later: calls wait for it.
    let _unheard = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!(socket = %options.socket.display(), "serving dockerd");
    tokio::select! {
        never = server::serve(listener, Netd::new(&options.netd_socket)) => match never {},
        () = terminated() => {
            // dockerd finds no plugin then, rather than one that does not answer.
            fs::remove_file(&options.socket)
        }
    }
}

/// Takes the place of a front that has ended, but not of one that serves.
async fn listen(options: &Options) -> io::Result<UnixListener> {
    let path = &options.socket;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"));
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Who may speak here may do with networks what they like.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
