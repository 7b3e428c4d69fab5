//! One peer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use boringtun::{
    noise::{Tunn, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter},
    x25519::{PublicKey, StaticSecret},
};
use parking_lot::{Mutex, MutexGuard};

use super::message::{HANDSHAKE, MAX_WAITING};
use crate::spec::{PeerSpec, Secret};

pub(super) struct Peer {
    pub(super) index: u32,
    /// Held from the first packet of a group that is encrypted until the last is sent.
    pub(super) order: Mutex<()>,
    tunn: Mutex<Tunn>,
    places: Mutex<Places>,
    /// Whether its timers have to be looked at.
    active: AtomicBool,
    /// Packets that wait for a session; boringtun keeps them. Changed under `tunn`'s lock.
    waiting: AtomicU64,
    preshared_key: Option<Secret>,
    keepalive: u16,
}

/// Where a peer is.
struct Places {
    configured: SocketAddr,
    now: SocketAddr,
}

impl Peer {
    pub(super) fn new(
        private: &StaticSecret,
        limiter: &Arc<RateLimiter>,
        key: [u8; 32],
        index: u32,
        spec: &PeerSpec,
    ) -> Self {
        let preshared_key = spec.preshared_key.clone();
        let keepalive = (spec.keepalive > 0).then_some(spec.keepalive);
        let tunn = Tunn::new(
            private.clone(),
            PublicKey::from(key),
            preshared_key.as_ref().map(|key| key.0),
            keepalive,
            index,
            Some(limiter.clone()),
        );
        Self {
            index,
            order: Mutex::new(()),
            tunn: Mutex::new(tunn),
            places: Mutex::new(Places { configured: spec.endpoint, now: spec.endpoint }),
            active: AtomicBool::new(spec.keepalive > 0),
            waiting: AtomicU64::new(0),
            preshared_key,
            keepalive: spec.keepalive,
        }
    }

    /// Whether the sessions hold for `spec` too.
    pub(super) fn is_like(&self, spec: &PeerSpec) -> bool {
        self.preshared_key == spec.preshared_key && self.keepalive == spec.keepalive
    }

    /// Where it is sent to.
    pub(super) fn endpoint(&self) -> SocketAddr {
        self.places.lock().now
    }

    /// Where it is looked for; where it went by itself counts more, until this changes.
    pub(super) fn configured(&self, endpoint: SocketAddr) {
        let mut places = self.places.lock();
        if places.configured != endpoint {
            *places = Places { configured: endpoint, now: endpoint };
        }
    }

    /// Something that only the peer can have made came from here.
    pub(super) fn seen(&self, endpoint: SocketAddr) {
        self.places.lock().now = endpoint;
    }

    /// Its protocol state, with timers that are up to date: those of peers that nothing
    /// comes from or goes to are not looked at.
    pub(super) fn lock(&self) -> MutexGuard<'_, Tunn> {
        let mut tunn = self.tunn.lock();
        if !self.active.swap(true, Ordering::Relaxed) {
            // There is no session and no handshake: nothing is due.
            let _ = tunn.update_timers(&mut [0; HANDSHAKE]);
        }
        tunn
    }

    /// A packet waits for a session from now on; whether there was room for it. The caller
    /// holds the lock.
    pub(super) fn wait(&self) -> bool {
        let room = self.waiting.load(Ordering::Relaxed) < MAX_WAITING;
        self.waiting.fetch_add(u64::from(room), Ordering::Relaxed);
        room
    }

    /// A packet that waited has been encrypted. The caller holds the lock.
    pub(super) fn waited(&self) {
        let less = |waiting: u64| waiting.checked_sub(1);
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Writes what is due to `message`; its length. Packets for which no session came are
    /// added to `lost`.
    pub(super) fn tick(&self, message: &mut [u8], lost: &mut u64) -> Option<usize> {
        if !self.active.load(Ordering::Relaxed) {
            return None;
        }
        let mut tunn = self.tunn.lock();
        match tunn.update_timers(message) {
            TunnResult::WriteToNetwork(due) => Some(due.len()),
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                *lost += self.waiting.swap(0, Ordering::Relaxed);
                if self.keepalive > 0 {
                    return start(&mut tunn, message);
                }
                self.active.store(false, Ordering::Relaxed);
                None
            }
            _ => None,
        }
    }

    /// Starts a handshake if there is neither a session nor a handshake: the peer sends
    /// to a session that this process had before it was started again.
    pub(super) fn revive(&self, message: &mut [u8]) -> Option<usize> {
        let mut tunn = self.lock();
        match tunn.time_since_last_handshake() {
            Some(_) => None,
            None => start(&mut tunn, message),
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.tunn.lock().time_since_last_handshake().is_some()
    }
}

fn start(tunn: &mut Tunn, message: &mut [u8]) -> Option<usize> {
    match tunn.format_handshake_initiation(message, false) {
        TunnResult::WriteToNetwork(first) => Some(first.len()),
        _ => None,
    }
}
