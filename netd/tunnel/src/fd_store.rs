//! Descriptors that outlive this process: systemd's store (`FileDescriptorStoreMax=`,
//! sd_notify(3) FDSTORE). Packets that come while the process is started again wait in
//! them. Without systemd every descriptor is new.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use parking_lot::Mutex;
use sd_notify::NotifyState;

use crate::sys::{self, Tun, TunError};

/// What was kept, by name. Each queue's has a name of its own.
#[derive(Debug, Default)]
pub struct FdStore {
    kept: Mutex<HashMap<String, OwnedFd>>,
}

impl FdStore {
    /// With what the service manager handed over.
    pub fn new(inherited: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        Self { kept: Mutex::new(inherited.into_iter().collect()) }
    }

    /// A queue of the device.
    ///
    /// # Errors
    /// See [`Tun::open`].
    pub fn tun(&self, device: &str, queue: usize) -> Result<Tun, TunError> {
        let name = tun_name(device, queue);
        let kept = self.kept.lock().remove(&name);
        if let Some(tun) = kept.and_then(|fd| Tun::kept(fd, device)) {
            return Ok(tun);
        }
        // One of that name that is stored would never be read again, and get its share.
        self.forget(&name);
        let tun = Tun::open(device)?;
        store(&name, &tun);
        Ok(tun)
    }

    /// A queue's socket that listens.
    ///
    /// # Errors
    /// See [`sys::bind`].
    pub fn socket(&self, listen: SocketAddr, queue: usize) -> io::Result<OwnedFd> {
        let name = socket_name(listen, queue);
        if let Some(fd) = self.kept.lock().remove(&name) {
            // An earlier release opened it without.
            sys::tell_traffic_class(&fd, listen)?;
            return Ok(fd);
        }
        self.forget(&name);
        let socket = sys::bind(listen)?;
        store(&name, &socket);
        Ok(socket)
    }

    /// The device is to go.
    pub(crate) fn forget_tun(&self, device: &str, queues: usize) {
        (0..queues).for_each(|queue| self.forget(&tun_name(device, queue)));
    }

    /// The address is no longer listened on.
    pub(crate) fn forget_socket(&self, listen: SocketAddr, queues: usize) {
        (0..queues).for_each(|queue| self.forget(&socket_name(listen, queue)));
    }

    fn forget(&self, name: &str) {
        self.kept.lock().remove(name);
        tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)], &[]);
    }

    /// Lets go of everything that was kept and that no tunnel has taken: a socket that
    /// no thread reads would still get its share of the datagrams.
    pub fn settle(&self) {
        let left: Vec<String> = self.kept.lock().drain().map(|(name, _)| name).collect();
        left.iter().for_each(|name| self.forget(name));
    }
}

/// Names in the store have no colon.
fn tun_name(device: &str, queue: usize) -> String {
    format!("tun-{device}-{queue}")
}

fn socket_name(listen: SocketAddr, queue: usize) -> String {
    format!("udp-{listen}-{queue}").replace(':', "_")
}

fn store(name: &str, fd: &impl AsFd) {
    tell(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd.as_fd()]);
}

fn tell(state: &[NotifyState<'_>], fds: &[std::os::fd::BorrowedFd<'_>]) {
    if let Err(error) = sd_notify::notify_with_fds(state, fds) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}
