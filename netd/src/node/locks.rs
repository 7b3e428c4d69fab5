//! One lock an endpoint key, made on demand and dropped when nobody holds it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use netd_domain::EndpointKey;

/// Serialises work on each endpoint.
#[derive(Debug, Default)]
pub struct KeyLocks {
    locks: Mutex<HashMap<EndpointKey, Weak<AsyncMutex<()>>>>,
}

/// How many dead entries are let stand before they are swept out.
const SWEEP: usize = 1024;

impl KeyLocks {
    /// Waits for the key's lock.
    pub async fn lock(&self, key: &EndpointKey) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            if locks.len() >= SWEEP {
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
