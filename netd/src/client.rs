//! The connection to a running netd.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use netd_api::DEFAULT_SOCKET;

use crate::terminal::{Failure, Format};

/// Arguments of every command that calls netd.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// netd's socket
    #[arg(long, env = "NETD_SOCKET", default_value = DEFAULT_SOCKET, value_parser = socket_path(), value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// A table for people or JSON for programs
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// How long connecting and each call may take
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

pub(crate) type Client = Channel;

/// Connects to netd. Connecting and each call may take `timeout`.
pub(crate) async fn connect(socket: &Path, timeout: Duration) -> Result<Client, Failure> {
    let path = socket.to_owned();
    let unreachable =
        |reason: std::io::Error| Failure::Unreachable { socket: socket.to_owned(), reason };
    // This first connection shows the system's own error; tonic would wrap it.
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

/// Parses a path that may be empty: an empty variable counts as not set.
pub(crate) fn path_or_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Parses the path of netd's socket; an empty one means [`DEFAULT_SOCKET`].
pub(crate) fn socket_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|path| match path.is_empty() {
        true => PathBuf::from(DEFAULT_SOCKET),
        false => PathBuf::from(path),
    })
}

impl ClientArgs {
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        connect(&self.socket, self.timeout).await
    }
}
