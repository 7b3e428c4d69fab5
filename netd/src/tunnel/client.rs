//! Calls netd-tunnel, over a connection that is made again when it breaks.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use netd_api::tunnel::v1::{self as pb, tunnel_service_client::TunnelServiceClient};
use tokio::net::UnixStream;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{
    error::{self, TunnelError},
    message,
    types::{PeerChange, Tunnel, TunnelStatus},
};
use netd_domain::IfName;

/// How long a call may take, reconnecting included. 10,000 WireGuard peers at once take
/// about a second.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Wait before a call whose connection broke is tried once more.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// A connection to netd-tunnel, made at the first call and again when it breaks.
#[derive(Debug)]
pub struct TunnelClient {
    socket: PathBuf,
    channel: OnceLock<Channel>,
}

impl TunnelClient {
    /// Does not connect yet: netd-tunnel need not run.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned(), channel: OnceLock::new() }
    }

    /// Makes the tunnel, or changes the one with the same device. Its peers stay.
    ///
    /// # Errors
    /// See [`TunnelError`]; nothing was changed then.
    pub async fn configure(&self, tunnel: &Tunnel) -> Result<(), TunnelError> {
        let request = pb::ConfigureRequest { tunnel: Some(message::tunnel(tunnel)) };
        self.call(|mut client| {
            let request = request.clone();
            async move { client.configure(request).await }
        })
        .await
        .map(drop)
    }

    /// Changes peers of the tunnel with this device.
    ///
    /// # Errors
    /// See [`TunnelError`]; nothing was changed then. [`TunnelError::Invalid`] names each
    /// peer that is wrong as `set[index]`, so that the others can be set without it.
    pub async fn update_peers(
        &self,
        device: &IfName,
        change: &PeerChange,
    ) -> Result<(), TunnelError> {
        let request = message::change(device, change)?;
        self.call(|mut client| {
            let request = request.clone();
            async move { client.update_peers(request).await }
        })
        .await
        .map(drop)
    }

    /// Ends the tunnel and removes its device; nothing happens if it does not exist.
    ///
    /// # Errors
    /// See [`TunnelError`].
    pub async fn remove(&self, device: &IfName) -> Result<(), TunnelError> {
        let request = pb::RemoveRequest { device: device.to_string() };
        self.call(|mut client| {
            let request = request.clone();
            async move { client.remove(request).await }
        })
        .await
        .map(drop)
    }

    /// The tunnels, their peers and counters.
    ///
    /// # Errors
    /// See [`TunnelError`].
    pub async fn status(&self) -> Result<TunnelStatus, TunnelError> {
        let answer = self
            .call(|mut client| async move { client.get_status(pb::GetStatusRequest {}).await })
            .await?;
        let pb::GetStatusResponse { version, started_at, tunnels } = answer;
        Ok(TunnelStatus { version, started_at, tunnels })
    }

    /// Makes a call, twice if the connection breaks: every call is idempotent.
    async fn call<T, F>(
        &self,
        make: impl Fn(TunnelServiceClient<Channel>) -> F,
    ) -> Result<T, TunnelError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = async {
            match make(self.client()?).await {
                // netd-tunnel was restarted since the last call.
                Err(status) if error::is_broken(&status) => {
                    tokio::time::sleep(RECONNECT_DELAY).await;
                    Ok(make(self.client()?).await)
                }
                answer => Ok(answer),
            }
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, attempt)
            .await
            .map_err(|_| TunnelError::Deadline { socket: self.socket.clone() })??;
        answer.map(Response::into_inner).map_err(|status| error::of(&self.socket, &status))
    }

    fn client(&self) -> Result<TunnelServiceClient<Channel>, TunnelError> {
        // Not in `new`, which may be called outside of a tokio runtime.
        let channel = self.channel.get_or_init(|| {
            let socket = self.socket.clone();
            let connector = service_fn(move |_| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            });
            Endpoint::from_static("http://netd-tunnel").connect_with_connector_lazy(connector)
        });
        Ok(TunnelServiceClient::new(channel.clone()))
    }
}
