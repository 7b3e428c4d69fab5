//! gRPC over a Unix socket.

use std::path::Path;

use anyhow::Result;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::block_on;

/// A connection that dials when it is first used, and again when it broke.
pub fn channel(socket: &Path) -> Result<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is never looked at, but has to be there.
    let endpoint = Endpoint::from_static("http://localhost");
    Ok(block_on(async { endpoint.connect_with_connector_lazy(connector) }))
}
