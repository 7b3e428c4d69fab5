//! All tunnels, and what is remembered of them.

use std::collections::BTreeMap;

use netd_api::tunnel::v1 as pb;
use parking_lot::Mutex;

use crate::{
    fd_store::FdStore,
    spec::{self, Invalid, Peers, TunnelSpec},
    state::StateFile,
    sys,
    tunnel::{Tunnel, TunnelError},
};

/// Why a request was not done. Then nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields are wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No tunnel has the device.
    #[error("there is no tunnel with the device \"{0}\"; Configure makes one")]
    NoTunnel(String),
    /// Another tunnel listens there.
    #[error("the tunnel \"{other}\" listens on {listen}")]
    ListenTaken {
        /// The address.
        listen: std::net::SocketAddr,
        /// The other one's device.
        other: String,
    },
    /// The system.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

/// The tunnels. Calls block for as long as the system takes.
#[derive(Debug)]
pub struct Manager {
    tunnels: Mutex<BTreeMap<String, Tunnel>>,
    state: StateFile,
    fd_store: FdStore,
    queues: usize,
}

impl Manager {
    /// Makes the tunnels that are remembered. One that fails does not keep the others
    /// from coming back; it stays remembered until netd says something else.
    pub fn start(state: StateFile, fd_store: FdStore, queues: usize) -> Self {
        let manager = Self { tunnels: Mutex::default(), state, fd_store, queues };
        for saved in manager.state.load().tunnels {
            let device = saved.tunnel.as_ref().map(|tunnel| tunnel.device.clone());
            match manager.restore(saved) {
                Ok(()) => tracing::info!(device, "came back"),
                Err(error) => tracing::error!(device, %error, "can't come back"),
            }
        }
        manager.fd_store.settle();
        manager
    }

    fn restore(&self, saved: pb::SavedTunnel) -> Result<(), Error> {
        let spec = TunnelSpec::new(saved.tunnel.as_ref())?;
        let request = pb::UpdatePeersRequest { set: saved.peers, ..Default::default() };
        let peers = spec::updated(&Peers::new(), &spec, &request)?;
        let device = spec.device.clone();
        let tunnel = Tunnel::new(spec, peers, self.queues, &self.fd_store)?;
        self.tunnels.lock().insert(device, tunnel);
        Ok(())
    }

    /// See the protocol.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn configure(&self, request: &pb::ConfigureRequest) -> Result<(), Error> {
        let spec = TunnelSpec::new(request.tunnel.as_ref())?;
        let mut tunnels = self.tunnels.lock();
        check_listen(&spec, &tunnels)?;
        let device = spec.device.clone();
        let mut peers = Peers::new();
        if let Some(tunnel) = tunnels.get_mut(&device) {
            if tunnel.is_whole() {
                if *tunnel.spec() == spec {
                    return Ok(());
                }
                tracing::info!(device, listen = ?spec.listen, "changes");
                let changed = tunnel.configure(spec, &self.fd_store);
                self.save(&tunnels);
                return changed.map_err(Error::from);
            }
            tracing::warn!(device, "the device was removed; making it again");
            peers = tunnel.peers().clone();
            tunnels.remove(&device);
            self.fd_store.forget_tun(&device, self.queues);
        }
        tracing::info!(device, listen = ?spec.listen, "begins");
        let tunnel = Tunnel::new(spec, peers, self.queues, &self.fd_store)?;
        tunnels.insert(device, tunnel);
        self.save(&tunnels);
        Ok(())
    }

    /// See the protocol.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn update_peers(&self, request: &pb::UpdatePeersRequest) -> Result<(), Error> {
        spec::device(&request.device)?;
        let mut tunnels = self.tunnels.lock();
        let tunnel = tunnels.get_mut(&request.device);
        let tunnel = tunnel.ok_or_else(|| Error::NoTunnel(request.device.clone()))?;
        let peers = spec::updated(tunnel.peers(), tunnel.spec(), request)?;
        if peers == *tunnel.peers() {
            return Ok(());
        }
        tracing::debug!(device = request.device, peers = peers.len(), "peers change");
        tunnel.set_peers(peers);
        self.save(&tunnels);
        Ok(())
    }

    /// See the protocol.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove(&self, request: &pb::RemoveRequest) -> Result<(), Error> {
        spec::device(&request.device)?;
        let mut tunnels = self.tunnels.lock();
        let found = tunnels.remove(&request.device);
        self.save(&tunnels);
        match found {
            Some(tunnel) => {
                tracing::info!(device = request.device, "ends");
                tunnel.remove(&self.fd_store)?;
            }
            None => sys::remove(&request.device).map_err(TunnelError::from)?,
        }
        Ok(())
    }

    /// See the protocol.
    pub fn status(&self) -> Vec<pb::TunnelStatus> {
        self.tunnels.lock().values().map(Tunnel::status).collect()
    }

    /// A state that can't be saved costs the coming back alone, not the tunnel: netd
    /// says again what it wants.
    fn save(&self, tunnels: &BTreeMap<String, Tunnel>) {
        let tunnels = tunnels.values().map(|tunnel| pb::SavedTunnel {
            tunnel: Some(tunnel.spec().message(true)),
            peers: tunnel.peers().iter().map(|(n, p)| spec::peer_message(n, p)).collect(),
        });
        if let Err(error) = self.state.save(&pb::State { tunnels: tunnels.collect() }) {
            tracing::error!(%error, "the state can't be saved: after a crash netd is needed");
        }
    }
}

/// The system would share the address out among both.
fn check_listen(spec: &TunnelSpec, tunnels: &BTreeMap<String, Tunnel>) -> Result<(), Error> {
    for other in tunnels.values().map(Tunnel::spec).filter(|other| other.device != spec.device) {
        for listen in &spec.listen {
            if other.listen.contains(listen) {
                let other = other.device.clone();
                return Err(Error::ListenTaken { listen: *listen, other });
            }
        }
    }
    Ok(())
}
