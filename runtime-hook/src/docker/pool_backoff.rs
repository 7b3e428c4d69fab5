//! Pools that were offered to dockerd in the last seconds.
//!
//! dockerd 20.10 rejects a pool that its host has a route to, unless the user named the pool,
//! and asks again without end until it is offered another one (libnetwork's
//! `requestPoolHelper`). So a pool is not offered twice in a row. Nothing is lost when this
//! memory is: it expires within seconds.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use ipnet::IpNet;

/// dockerd asks again at once, so a short time is enough.
const WITHHELD_FOR: Duration = Duration::from_secs(3);

/// Pools that were offered and not accepted since.
#[derive(Debug, Default)]
pub(super) struct PoolBackoff(Mutex<Vec<(IpNet, Instant)>>);

impl PoolBackoff {
    /// Whether the pool may be offered now; if so, notes that it was.
    pub(super) fn try_offer(&self, pool: IpNet) -> bool {
        let mut offered = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        offered.retain(|(_, at)| at.elapsed() < WITHHELD_FOR);
        let allowed = !offered.iter().any(|(earlier, _)| *earlier == pool);
        if allowed {
            offered.push((pool, Instant::now()));
        }
        allowed
    }

    /// Notes that dockerd accepted the pool: it may be offered again at once.
    pub(super) fn accepted(&self, pool: &IpNet) {
        let mut offered = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        offered.retain(|(earlier, _)| earlier != pool);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_not_offered_twice_in_a_row_unless_it_was_accepted() {
        let (backoff, pool) = (PoolBackoff::default(), "10.1.0.0/24".parse().unwrap());
        assert!(backoff.try_offer(pool) && !backoff.try_offer(pool));
        assert!(backoff.try_offer("10.2.0.0/24".parse().unwrap()));
        backoff.accepted(&pool);
        assert!(backoff.try_offer(pool));
    }
}
