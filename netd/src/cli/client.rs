//! The connection to a running netd.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{Failure, output::Format};
use netd_api::DEFAULT_SOCKET;

/// What every client command takes.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// netd's socket
    #[arg(long, env = "NETD_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Give up after this long
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// A connected client.
pub type Client = Channel;

/// Connects to the socket.
pub async fn connect(socket: &Path, timeout: Duration) -> Result<Client, Failure> {
    let path = socket.to_owned();
    let unreachable =
        |reason: std::io::Error| Failure::Unreachable { socket: socket.to_owned(), reason };
    // A first connection of our own: its error is the system's, not a transport's.
    drop(UnixStream::connect(&path).await.map_err(unreachable)?);
    let connector = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://netd")
        .connect_timeout(timeout)
        .timeout(timeout)
        .connect_with_connector(connector)
        .await
        .map_err(|e| unreachable(std::io::Error::other(e)))
}

impl ClientArgs {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        connect(&self.socket, self.timeout).await
    }
}
