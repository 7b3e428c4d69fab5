//! A tunnel: a device's queues, sockets, an engine between them, threads.

mod queue_worker;
mod shared;
mod workers;

use std::{io, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use netd_api::tunnel::v1 as pb;

use crate::{
    counters::Counters,
    engine::{
        Engine,
        links::{Link, Links},
    },
    fd_store::FdStore,
    peers::{PeerChange, Peers},
    spec::{Kind, TunnelSpec},
    sys::{Tun, TunError},
};
use shared::Shared;
use workers::Threads;

/// Why a tunnel is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// A listen address.
    #[error("listen address {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// Threads.
    #[error("threads: {0}")]
    Threads(io::Error),
}

/// A running tunnel. Dropped, it stops; its device stays.
#[derive(Debug)]
pub struct Tunnel {
    spec: TunnelSpec,
    peers: Peers,
    // Threads come first: they end before what they work with.
    workers: Option<Threads>,
    _timers: Threads,
    shared: Arc<Shared>,
}

impl Tunnel {
    /// Makes a tunnel with `queues` queues, on what was kept of an earlier process. It has
    /// its peers before the first packet is read: one may have waited since before a
    /// restart.
    ///
    /// # Errors
    /// See [`TunnelError`]; nothing is left then that was not there.
    pub fn new(
        spec: TunnelSpec,
        peers: Peers,
        queues: usize,
        fd_store: &FdStore,
    ) -> Result<Self, TunnelError> {
        let mut tuns = vec![];
        for queue in 0..queues.max(1) {
            tuns.push(fd_store.tun(&spec.device, queue)?);
        }
        Self::on(spec, peers, Arc::new(tuns), Arc::default(), fd_store)
    }

    fn on(
        spec: TunnelSpec,
        peers: Peers,
        queues: Arc<Vec<Tun>>,
        counters: Arc<Counters>,
        fd_store: &FdStore,
    ) -> Result<Self, TunnelError> {
        let shared = Arc::new(Shared {
            device: spec.device.clone(),
            links: ArcSwap::default(),
            engine: Engine::new(&spec.kind, &spec.local),
            queues,
            counters,
        });
        shared.engine.change_peers(&peers.as_changes());
        let timers = Threads::tick(&shared).map_err(TunnelError::Threads)?;
        let mut tunnel = Self {
            spec: TunnelSpec { listen: vec![], ..spec.clone() },
            peers,
            workers: None,
            _timers: timers,
            shared,
        };
        tunnel.listen(&spec.listen, fd_store)?;
        tunnel.spec = spec;
        Ok(tunnel)
    }

    /// As it was last asked for.
    pub fn spec(&self) -> &TunnelSpec {
        &self.spec
    }

    /// Its peers.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Whether its device is still there, and read.
    pub(crate) fn is_whole(&self) -> bool {
        self.workers.is_some()
            && self.shared.queues.iter().all(|queue| queue.is_of(&self.spec.device))
    }

    /// Makes it as `spec` says, whose device is this one's, and touches nothing else.
    ///
    /// # Errors
    /// See [`TunnelError`]; it is as it was then, unless the kind was to change.
    pub fn configure(&mut self, spec: TunnelSpec, fd_store: &FdStore) -> Result<(), TunnelError> {
        if spec == self.spec {
            return Ok(());
        }
        if spec.kind != self.spec.kind {
            return self.remake(spec, fd_store);
        }
        self.listen(&spec.listen, fd_store)?;
        if spec.local != self.spec.local {
            self.shared.engine.set_local(&spec.local);
        }
        self.spec = spec;
        Ok(())
    }

    /// Another kind, or another key: new sessions, on the same device.
    fn remake(&mut self, spec: TunnelSpec, fd_store: &FdStore) -> Result<(), TunnelError> {
        let same = matches!(
            (&spec.kind, &self.spec.kind),
            (Kind::Udp, Kind::Udp) | (Kind::Wireguard(_), Kind::Wireguard(_))
        );
        let peers = if same { self.peers.clone() } else { Peers::default() };
        // The sockets of the old threads close before the new ones are bound.
        self.workers = None;
        self.shared.links.store(Arc::default());
        let (queues, counters) = (self.shared.queues.clone(), self.shared.counters.clone());
        *self = Self::on(spec, peers, queues, counters, fd_store)?;
        Ok(())
    }

    /// Makes changes that [`Peers::changes`] of its peers answered.
    pub(crate) fn change_peers(&mut self, changes: &[PeerChange]) {
        self.shared.engine.change_peers(changes);
        self.peers.apply(changes);
    }

    /// Opens addresses that are new, then closes those that are no longer wanted.
    fn listen(&mut self, wanted: &[SocketAddr], fd_store: &FdStore) -> Result<(), TunnelError> {
        let old = self.shared.links.load_full();
        let same = old.0.iter().map(|link| &link.listen).eq(wanted);
        if same && self.workers.is_some() {
            return Ok(());
        }
        let links = self.open(&old, wanted, fd_store)?;
        // What comes while no thread is there waits in the kernel.
        self.workers = None;
        self.shared.links.store(Arc::new(links));
        for link in old.0.iter().filter(|link| !wanted.contains(&link.listen)) {
            fd_store.forget_socket(link.listen, link.sockets.len());
        }
        self.workers = Some(Threads::serve(&self.shared).map_err(TunnelError::Threads)?);
        Ok(())
    }

    /// The sockets of all wanted addresses, those that are open already among them.
    fn open(
        &self,
        old: &Links,
        wanted: &[SocketAddr],
        fd_store: &FdStore,
    ) -> Result<Links, TunnelError> {
        let mut links = Links::default();
        for listen in wanted {
            if let Some(link) = old.0.iter().find(|link| link.listen == *listen) {
                links.0.push(link.clone());
                continue;
            }
            let failed = |source| TunnelError::Listen { listen: *listen, source };
            let mut link = Link { listen: *listen, sockets: vec![] };
            for queue in 0..self.shared.queues.len() {
                link.sockets.push(Arc::new(fd_store.socket(*listen, queue).map_err(failed)?));
            }
            links.0.push(link);
        }
        Ok(links)
    }

    /// Ends it and removes its device.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(self, fd_store: &FdStore) -> Result<(), TunnelError> {
        let queues = self.shared.queues.len();
        for listen in &self.spec.listen {
            fd_store.forget_socket(*listen, queues);
        }
        fd_store.forget_tun(&self.spec.device, queues);
        let device = self.spec.device.clone();
        for queue in self.shared.queues.iter().filter(|queue| queue.is_of(&device)) {
            queue.persist(false).map_err(|source| TunError::System {
                device: device.clone(),
                action: "removing it",
                source,
            })?;
        }
        Ok(())
    }

    /// For the API, without secrets.
    pub fn status(&self) -> pb::TunnelStatus {
        pb::TunnelStatus {
            tunnel: Some(self.spec.message(false)),
            peers: u32::try_from(self.peers.len()).unwrap_or(u32::MAX),
            counters: Some(self.shared.counters.message()),
            sessions: u32::try_from(self.shared.engine.sessions()).unwrap_or(u32::MAX),
        }
    }
}
