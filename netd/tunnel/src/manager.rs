//! All tunnels, and what is remembered of them.

use std::collections::BTreeMap;

use netd_api::tunnel::v1 as pb;
use parking_lot::Mutex;

use crate::{
    fd_store::FdStore,
    peers::Peers,
    spec::{self, Invalid, TunnelSpec},
    state::{Saved, StateFile},
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
        let Saved { state, changes } = manager.state.load();
        for saved in state.tunnels {
            let device = saved.tunnel.as_ref().map(|tunnel| tunnel.device.clone());
            match manager.restore(saved, &changes) {
                Ok(()) => tracing::info!(device, "came back"),
                Err(error) => tracing::error!(device, %error, "can't come back"),
            }
        }
        manager.fd_store.settle();
        manager
    }

    fn restore(
        &self,
        saved: pb::SavedTunnel,
        changes: &[pb::UpdatePeersRequest],
    ) -> Result<(), Error> {
        let spec = TunnelSpec::new(saved.tunnel.as_ref())?;
        let device = spec.device.clone();
        let first = pb::UpdatePeersRequest { set: saved.peers, ..Default::default() };
        let mut peers = Peers::default();
        let later = changes.iter().filter(|change| change.device == device);
        for request in std::iter::once(&first).chain(later) {
            peers.apply(&peers.changes(&spec, request)?);
        }
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
        let mut peers = Peers::default();
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
        let changes = tunnel.peers().changes(tunnel.spec(), request)?;
        if changes.is_empty() {
            return Ok(());
        }
        tunnel.change_peers(&changes);
        let (device, peers) = (&request.device, tunnel.peers().len());
        tracing::debug!(device, changes = changes.len(), peers, "peers change");
        // All is written again when the changes have become as long as that.
        if !self.state.append(request) {
            self.save(&tunnels);
        }
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
