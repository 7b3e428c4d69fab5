//! Speaks to netd-tunnel, the process that moves the packets of userspace backends.
//! What it is told it keeps, also over its own crashes; telling it again what it has is
//! cheap and disturbs no packet, so callers do that whenever they are not sure.

mod error;
mod message;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use netd_api::tunnel::v1::{self as pb, tunnel_service_client::TunnelServiceClient};
use tokio::net::UnixStream;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

pub use error::{FieldViolation, TunnelError};
use netd_domain::{
    IfName,
    overlay::{SecretKey, TunnelPeer},
};

/// Where netd-tunnel listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/netd/tunnel.sock";

/// How long a call may take, reconnecting included. 10,000 WireGuard peers at once take
/// about a second.
const DEADLINE: Duration = Duration::from_secs(15);
/// Before the one more try of a call whose connection broke.
const AGAIN: Duration = Duration::from_millis(100);

/// A tunnel, without its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The tun device.
    pub device: IfName,
    /// Where datagrams are received and sent from; the port is part of it. A peer is
    /// reached from the first one of its family. 1 to 16.
    pub listen: Vec<SocketAddr>,
    /// This node's own subnets: all that peers may send to. Empty: to whatever is no
    /// peer's.
    pub subnets: Vec<IpNet>,
    /// Which backend.
    pub kind: TunnelKind,
}

/// Userspace backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelKind {
    /// flannel's udp.
    Udp,
    /// WireGuard, with this private key.
    Wireguard(SecretKey),
}

/// What a peer is named by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TunnelPeerName {
    /// Udp.
    Endpoint(SocketAddr),
    /// Wireguard: the public key.
    Key([u8; 32]),
}

/// A change of a tunnel's peers: all of it is made, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerChange {
    /// First forget every peer that is not in `set`.
    pub replace_all: bool,
    /// Made or changed; sessions of those that stay the same go on.
    pub set: Vec<TunnelPeer>,
    /// Ones that are not there are fine.
    pub remove: Vec<TunnelPeerName>,
}

/// What netd-tunnel says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelStatus {
    /// Its release.
    pub version: String,
    /// Seconds since the Unix epoch.
    pub started_at: i64,
    /// By device.
    pub tunnels: Vec<pb::TunnelStatus>,
}

/// The way to netd-tunnel; it connects when it is first used, and again when it has to.
#[derive(Debug)]
pub struct TunnelClient {
    socket: PathBuf,
    channel: OnceLock<Channel>,
}

impl TunnelClient {
    /// Nothing is done yet: netd-tunnel need not run.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned(), channel: OnceLock::new() }
    }

    /// Makes the tunnel or changes the one that has its device. Its peers stay.
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

    /// Ends the tunnel and removes its device; one that is not there is fine.
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

    /// What it does and has done.
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

    /// Every call may be made twice: a second time does nothing.
    async fn call<T, F>(
        &self,
        make: impl Fn(TunnelServiceClient<Channel>) -> F,
    ) -> Result<T, TunnelError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = async {
            match make(self.client()?).await {
                // The process was started again since the last call.
                Err(status) if error::is_broken(&status) => {
                    tokio::time::sleep(AGAIN).await;
                    Ok(make(self.client()?).await)
                }
                answer => Ok(answer),
            }
        };
        let answer = tokio::time::timeout(DEADLINE, attempt)
            .await
            .map_err(|_| TunnelError::Deadline { socket: self.socket.clone() })??;
        answer.map(Response::into_inner).map_err(|status| error::of(&self.socket, &status))
    }

    fn client(&self) -> Result<TunnelServiceClient<Channel>, TunnelError> {
        // Not in `new`: that may be called where there is no runtime.
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
