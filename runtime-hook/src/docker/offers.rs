//! Pools that were offered a moment ago.
//!
//! dockerd 20.10 does not take a pool that its host has a route to, unless the user named
//! it: it asks again, for ever, and counts on being offered another one (libnetwork's
//! `requestPoolHelper`). So a pool is not offered twice in a row. This is no state that
//! could be missed: it is void after seconds.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use ipnet::IpNet;

/// dockerd asks again at once.
const LASTS: Duration = Duration::from_secs(3);

/// Offers of the last seconds that were not taken.
#[derive(Debug, Default)]
pub struct Offers(Mutex<Vec<(IpNet, Instant)>>);

impl Offers {
    /// Whether the pool may be offered: not if it was just now.
    pub fn offer(&self, pool: IpNet) -> bool {
        let mut offers = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        offers.retain(|(_, at)| at.elapsed() < LASTS);
        let fresh = !offers.iter().any(|(offered, _)| *offered == pool);
        if fresh {
            offers.push((pool, Instant::now()));
        }
        fresh
    }

    /// dockerd took it.
    pub fn taken(&self, pool: &IpNet) {
        let mut offers = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        offers.retain(|(offered, _)| offered != pool);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_not_offered_twice_in_a_row_unless_it_was_taken() {
        let (offers, pool) = (Offers::default(), "10.1.0.0/24".parse().unwrap());
        assert!(offers.offer(pool) && !offers.offer(pool));
        assert!(offers.offer("10.2.0.0/24".parse().unwrap()));
        offers.taken(&pool);
        assert!(offers.offer(pool));
    }
}
