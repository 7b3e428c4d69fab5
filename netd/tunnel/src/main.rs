//! The process.

use std::{io, os::fd::OwnedFd, process::ExitCode, sync::Arc};

use netd_api::tunnel::v1::tunnel_service_server::TunnelServiceServer;
use netd_tunnel::{
    cli::Args,
    fd_store::FdStore,
    listener::{self, ListenError},
    manager::Manager,
    service::Service,
    state::StateFile,
};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("--log: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("can't start: {0}")]
    Start(#[from] io::Error),
    #[error("gRPC server: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// A request holds at most this much, bytes: 100,000 peers and more.
const MAX_BYTES: usize = 64 << 20;
/// Queues of a device, unless told otherwise.
const MAX_QUEUES: usize = 16;

fn main() -> ExitCode {
    let args = Args::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netd-tunnel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&args.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    // Before any thread: the environment is read.
    let inherited: Vec<(String, OwnedFd)> = netd_tunnel::sys::inherited_fds();
    // The packets have threads of their own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(serve(args, inherited))
}

async fn serve(args: Args, inherited: Vec<(String, OwnedFd)>) -> Result<(), Error> {
    // First: whoever has the socket has the tunnels.
    let listener = listener::open(&args.socket)?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let queues = args.queues.map_or(cores.min(MAX_QUEUES), usize::from);
    let manager = Manager::start(StateFile::new(&args.state), FdStore::new(inherited), queues);
    let service = TunnelServiceServer::new(Service::new(Arc::new(manager)))
        .max_decoding_message_size(MAX_BYTES);
    tell(NotifyState::Ready);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tell(NotifyState::Stopping);
    };
    let server = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(listener::accept(listener));
    tokio::select! {
        served = server => served?,
        // Devices stay; a call that is under way is made again by netd.
        () = stop => {}
    }
    Ok(())
}

/// Without systemd this does nothing.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}
