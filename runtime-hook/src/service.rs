//! What the fronts that run as services (NRI, Docker) share: logging, the runtime, signals, netd's socket.

use std::{fmt::Display, future::Future, io, path::PathBuf, process::ExitCode};

use clap::builder::{OsStringValueParser, TypedValueParser};

/// Runs `work` on one thread and logs to stderr; an error is printed with the name of
/// the `netd-hook` subcommand and ends the process with exit status 1.
pub(crate) fn main<E: Display>(
    subcommand: &str,
    work: impl Future<Output = Result<(), E>>,
) -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work).map_err(|error| error.to_string()),
        Err(error) => Err(format!("can't start the async runtime: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netd-hook {subcommand}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for SIGTERM or SIGINT. Where no handler can be installed it waits forever: the
/// default action of both signals ends the process.
pub(crate) async fn terminated() {
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

/// Parses the path of netd's socket. An empty one means the default: an empty variable counts
/// as not set.
pub(crate) fn netd_socket() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|path| match path.is_empty() {
        true => PathBuf::from(netd_api::DEFAULT_SOCKET),
        false => PathBuf::from(path),
    })
}
