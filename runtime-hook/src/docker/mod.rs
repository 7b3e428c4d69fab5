//! The Docker front: libnetwork's remote network driver and IPAM driver (CNM), for
//! `docker network create -d netd [--ipam-driver netd]`.
//!
//! dockerd calls it by HTTP over a Unix socket in its plugin directory and sends a JSON
//! document with each call. The front translates calls and stores nothing: what a call
//! needs is in the call itself or known to netd.
//!
//! - A Docker network is the netd network `docker-` plus the first 12 digits of its id, or,
//!   with `-o netd.network=NAME`, an existing netd network that it shares with pods. The
//!   address of an endpoint decides which network it is in: networks of a node don't overlap.
//! - A Docker endpoint is a netd endpoint whose `sandbox_id` is Docker's EndpointID, because
//!   CNM creates endpoints before it names the sandbox.
//! - The id of a pool is its subnet, followed by the part of it that `--ip-range` allows.
//!
//! libnetwork moves the interface into the sandbox, and netd finds it there afterwards. There
//! are two reasons. At Join the sandbox's namespace does not exist yet on dockerd 20.10, where
//! a hook of the container's start creates it after Join; on 28.5 it exists. And libnetwork
//! sets addresses and routes only on an interface that it has moved itself. So netd creates
//! the veth pair with both ends on the host, and learns from the carrier and from the path in
//! Join (SandboxKey) that the interface has arrived. From then on netd repairs the endpoint as
//! it repairs a pod's, except for the routes, which libnetwork changes whenever networks are
//! connected or disconnected.
//!
//! Ownership of state: netd owns networks, addresses, veth pairs, firewall rules and host
//! ports. libnetwork owns the names, addresses and routes inside the sandbox, and decides
//! which endpoint is the gateway (it tells netd by ProgramExternalConnectivity). Docker's own
//! store holds what a container asked for.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use sd_notify::NotifyState;
use tokio::net::{UnixListener, UnixStream};

use crate::service;

mod endpoint;
mod error;
mod ipam;
mod netd;
mod network;
mod options;
mod pool_backoff;
mod ports;
pub mod server;
mod types;

pub use netd::NetdClient;

/// The directory in which dockerd looks for plugins that are not containers.
const DEFAULT_PLUGIN_SOCKET: &str = "/run/docker/plugins/netd.sock";

/// Arguments of `netd-hook docker`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Socket to serve; its file name is the name of the driver
    #[arg(long = "plugin-socket", value_name = "PATH", default_value = DEFAULT_PLUGIN_SOCKET)]
    socket: PathBuf,
    /// netd's socket
    #[arg(
        long = "netd-socket",
        value_name = "PATH",
        env = "NETD_SOCKET",
        value_parser = crate::service::netd_socket(),
        default_value = netd_api::DEFAULT_SOCKET
    )]
    netd_socket: PathBuf,
}

/// Serves dockerd until SIGTERM.
pub fn main(args: &Args) -> ExitCode {
    service::main("docker", run(args))
}

async fn run(args: &Args) -> io::Result<()> {
    let path = args.socket.display();
    let listener = listen(args)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("can't listen on {path}: {e}")))?;
    // netd may start later: calls wait for it.
    let _no_systemd = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!(socket = %path, "serving dockerd on {path}");
    tokio::select! {
        never = server::serve(listener, NetdClient::new(&args.netd_socket)) => match never {},
        () = service::terminated() => {
            // Without the socket dockerd reports a missing plugin instead of one that hangs.
            fs::remove_file(&args.socket)
        }
    }
}

/// Replaces the socket of a front that has ended, but not of one that still accepts.
async fn listen(args: &Args) -> io::Result<UnixListener> {
    let path = &args.socket;
    // dockerd's own directory (/run/docker), which others may pass and not read; if it is there
    // it keeps its mode.
    if let Some(dockers) = path.parent().and_then(Path::parent) {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(dockers)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        let reason = "another process listens on it; stop it or choose another --plugin-socket";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
    }
    // A caller of this socket can create and delete networks.
    let listener = netd_api::socket::listen(path, 0o600, "d", |_| Ok(()))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
