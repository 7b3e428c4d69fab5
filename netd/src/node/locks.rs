//! One lock per endpoint key, made on demand and dropped when it is not held.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use netd_domain::EndpointKey;

/// Serialises work on each endpoint.
#[derive(Debug, Default)]
pub(crate) struct KeyLocks {
    locks: Mutex<HashMap<EndpointKey, Weak<AsyncMutex<()>>>>,
}

/// At this many entries those that are no longer held are removed.
const SWEEP_THRESHOLD: usize = 1024;

impl KeyLocks {
    /// Waits for the key's lock.
    pub(crate) async fn lock(&self, key: &EndpointKey) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            if locks.len() >= SWEEP_THRESHOLD {
                locks.retain(|_, lock| lock.strong_count() > 0);
            }
            match locks.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(AsyncMutex::new(()));
                    locks.insert(key.clone(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}
