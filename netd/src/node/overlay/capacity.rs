//! Asks the cluster for another subnet when this node's get full, and returns empty ones.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::{core::Overlay, local_node::LocalNode, on_update::show_lost};
use crate::node::listed::listed;
use netd_cluster::{Subnets, membership::OwnSubnets};
use netd_domain::NetworkName;
use netd_domain::ipam::PoolUsage;

/// How long an attach waits for another subnet.
const SUBNET_TIMEOUT: Duration = Duration::from_secs(5);

/// With fewer free addresses, or a sixteenth of all, another subnet is requested before it
/// is needed.
const SPARE_ADDRESSES: u64 = 8;

impl Overlay {
    /// Asks for another subnet if this network's are nearly full; does not wait for it.
    pub(in crate::node) fn request_spare_subnet(&self, node: &dyn LocalNode, name: &NetworkName) {
        if self.can_grow(name) && is_low(&node.pool_usage(name)) {
            // It fails only for fixed subnets, which are excluded above.
            let _ = self.membership.more();
        }
    }

    /// Whether the network gets another subnet when its own are full, as far as is known.
    pub(in crate::node) fn can_grow(&self, name: &NetworkName) -> bool {
        *name == self.settings.network && !self.is_fixed()
    }

    /// Asks for another subnet and waits until it can be used; returns whether it came.
    pub(in crate::node) async fn wait_for_subnet(
        &self,
        node: &dyn LocalNode,
        name: &NetworkName,
    ) -> bool {
        if !self.can_grow(name) {
            return false;
        }
        let pools = || node.network(name).map_or(0, |n| n.network.pools.len());
        let before = pools();
        if self.membership.more().is_err() {
            return false;
        }
        let grown = async {
            loop {
                let changed = node.pools_changed().notified();
                if pools() > before {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(SUBNET_TIMEOUT, grown).await.is_ok()
    }

    /// Returns subnets to the cluster that have been empty for long, but never the last one.
    async fn return_empty_subnets(
        &self,
        node: &dyn LocalNode,
        empty: &mut HashMap<Subnets, Instant>,
    ) {
        let (mut own, unfit): (Vec<OwnSubnets>, Vec<OwnSubnets>) = {
            let mut state = self.state.lock().await;
            show_lost(node, &mut state);
            let stays = |own: &&OwnSubnets| !state.retiring.contains(&own.subnets);
            state.own.iter().filter(stays).cloned().partition(|own| own.fits)
        };
        self.return_unfit_subnets(node, &unfit).await;
        // The newest is returned first.
        own.sort_by_key(|own| std::cmp::Reverse(own.since));
        let own: Vec<Subnets> = own.iter().map(|own| own.subnets).collect();
        let name = &self.settings.network;
        let usage = node.pool_usage(name);
        let is_empty = |subnets: &Subnets| subnets.iter().all(|net| used(&usage, net) == Some(0));
        empty.retain(|subnets, _| own.contains(subnets) && is_empty(subnets));
        for subnets in own.iter().filter(|s| is_empty(s)) {
            let since = *empty.entry(*subnets).or_insert_with(Instant::now);
            let going: Vec<IpNet> = subnets.iter().collect();
            let rest: Vec<_> =
                usage.iter().filter(|u| !going.contains(&u.subnet)).cloned().collect();
            if since.elapsed() < self.settings.keep_empty || rest.is_empty() || is_low(&rest) {
                continue;
            }
            // From here on no rebuild makes a pool of it again, until the cluster has it back.
            self.state.lock().await.retiring.insert(*subnets);
            let removed = node.remove_pools(name, &going).await;
            if !matches!(removed, Ok(true)) {
                self.state.lock().await.retiring.remove(subnets);
            }
            match removed {
                Ok(true) => {
                    tracing::info!(subnets = ?going,
                        "returned {} to the cluster: no pod used it for {:?}",
                        listed(&going), since.elapsed());
                    self.membership.give_back(vec![*subnets]);
                    empty.remove(subnets);
                    // One at a time: the free addresses have to be counted again.
                    return;
                }
                Ok(false) => {
                    empty.remove(subnets);
                }
                Err(error) => tracing::warn!(subnets = ?going, %error,
                    "the empty subnet {} can't be returned to the cluster yet: {error}",
                    listed(&going)),
            }
        }
    }

    /// Returns subnets of an earlier configuration when neither a pod nor docker0 has an
    /// address of them, and the node has another subnet.
    async fn return_unfit_subnets(&self, node: &dyn LocalNode, unfit: &[OwnSubnets]) {
        let network = node.network(&self.settings.network).map(|state| state.network);
        let leased = network.as_ref().and_then(|network| network.leased.as_ref());
        let docker0 = leased.is_some_and(|leased| !leased.docker0.is_empty());
        let other = docker0 || network.as_ref().is_some_and(|network| !network.pools.is_empty());
        if unfit.is_empty() || !other {
            return;
        }
        let held: Vec<_> = node.endpoints().iter().flat_map(|e| e.ips()).collect();
        let unused = |own: &&OwnSubnets| {
            !held.iter().any(|ip| own.subnets.iter().any(|net| net.contains(ip)))
        };
        let mut going = Vec::new();
        for own in unfit.iter().filter(unused) {
            if !self.docker0_uses(node, own).await {
                going.push(own.subnets);
            }
        }
        if !going.is_empty() {
            let all: Vec<IpNet> = going.iter().flat_map(Subnets::iter).collect();
            tracing::info!(subnets = ?going,
                "returned {}, which are outside of the cluster's configuration", listed(&all));
            self.membership.give_back(going);
        }
    }
}

/// Looks for subnets to return until netd ends, several times in `keep_empty`.
pub(super) async fn run(overlay: Arc<Overlay>, node: Arc<dyn LocalNode>) {
    let interval = (overlay.settings.keep_empty / 4)
        .clamp(Duration::from_millis(250), Duration::from_secs(30));
    let mut empty = HashMap::new();
    loop {
        tokio::time::sleep(interval).await;
        overlay.return_empty_subnets(&*node, &mut empty).await;
    }
}

fn used(usage: &[PoolUsage], net: IpNet) -> Option<u64> {
    usage.iter().find(|pool| pool.subnet == net).map(|pool| pool.used)
}

/// Whether a family has hardly any free address left.
fn is_low(usage: &[PoolUsage]) -> bool {
    [true, false].into_iter().any(|v4| {
        let of = |pool: &&PoolUsage| matches!(pool.subnet, IpNet::V4(_)) == v4;
        let (size, used) = usage.iter().filter(of).fold((0u64, 0u64), |(size, used), pool| {
            (size.saturating_add(pool.size), used.saturating_add(pool.used))
        });
        size > 0 && size - used.min(size) <= SPARE_ADDRESSES.min(size / 16)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pool(subnet: &str, size: u64, used: u64) -> PoolUsage {
        PoolUsage { subnet: subnet.parse().unwrap(), size, used }
    }

    #[test]
    fn a_family_with_hardly_an_address_left_is_low_whatever_the_other_has() {
        let big = pool("fd00::/64", u64::MAX, 3);
        assert!(!is_low(&[pool("10.5.1.0/24", 253, 240), big.clone()]));
        assert!(is_low(&[pool("10.5.1.0/24", 253, 246), big.clone()]));
        assert!(!is_low(&[pool("10.5.1.0/24", 253, 253), pool("10.5.2.0/24", 253, 0), big]));
        assert!(is_low(&[pool("10.5.1.0/30", 1, 1)]));
        assert!(!is_low(&[pool("10.5.1.0/29", 5, 4)]));
        assert!(!is_low(&[]));
    }
}
