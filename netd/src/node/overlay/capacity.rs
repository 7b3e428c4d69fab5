//! Another subnet when the ones there are get full, and back with it when it is empty.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::Overlay;
use crate::node::core::Node;
use netd_cluster::{Subnets, membership::OwnSubnets};
use netd_domain::NetworkName;
use netd_domain::ipam::PoolUsage;

/// How long an attach waits for another subnet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Less than this many free addresses, or a sixteenth of all, and another subnet is
/// taken before it is needed.
const RESERVE: u64 = 8;

impl Overlay {
    /// Takes another subnet if this network's are nearly full; doesn't wait for it.
    pub(in crate::node) fn top_up(&self, node: &Node, name: &NetworkName) {
        if *name == self.settings.network
            && self.settings.pod_cidr.is_empty()
            && is_low(&node.state.usage(name))
        {
            // Fixed ones were excluded.
            let _ = self.membership.more();
        }
    }

    /// Takes another subnet and waits until it can be used; whether there is one.
    pub(in crate::node) async fn one_more(&self, node: &Node, name: &NetworkName) -> bool {
        if *name != self.settings.network || !self.settings.pod_cidr.is_empty() {
            return false;
        }
        let pools = || node.state.network(name).map_or(0, |n| n.network.pools.len());
        let before = pools();
        if self.membership.more().is_err() {
            return false;
        }
        let grown = async {
            loop {
                let changed = node.pools_changed.notified();
                if pools() > before {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, grown).await.is_ok()
    }

    /// Gives back subnets that have been empty for long, the last one never.
    async fn give_back(&self, node: &Node, empty: &mut HashMap<Subnets, Instant>) {
        let (mut own, unfit): (Vec<OwnSubnets>, Vec<OwnSubnets>) =
            self.state.lock().await.own.iter().cloned().partition(|own| own.fits);
        self.give_back_unfit(node, &unfit).await;
        // The newest goes first; the last one stays.
        own.sort_by_key(|own| std::cmp::Reverse(own.since));
        let own: Vec<Subnets> = own.iter().map(|own| own.subnets).collect();
        let name = &self.settings.network;
        let usage = node.state.usage(name);
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
            match node.retire_pools(name, &going).await {
                Ok(true) => {
                    tracing::info!(subnets = ?going, "empty for long: given back");
                    self.membership.give_back(vec![*subnets]);
                    empty.remove(subnets);
                    // One at a time: what is free now is another question.
                    return;
                }
                Ok(false) => {
                    empty.remove(subnets);
                }
                Err(error) => tracing::warn!(%error, "an empty subnet can't be given back yet"),
            }
        }
    }

    /// Subnets of an earlier configuration go when the last pod that has an address of
    /// theirs is gone, docker0 too, and another one is there.
    async fn give_back_unfit(&self, node: &Node, unfit: &[OwnSubnets]) {
        let network = node.state.network(&self.settings.network).map(|state| state.network);
        let leased = network.as_ref().and_then(|network| network.leased.as_ref());
        let docker0 = leased.is_some_and(|leased| !leased.docker0.is_empty());
        let other = docker0 || network.as_ref().is_some_and(|network| !network.pools.is_empty());
        if unfit.is_empty() || !other {
            return;
        }
        let held: Vec<_> = node.state.endpoints().iter().flat_map(|(e, _)| e.ips()).collect();
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
            tracing::info!(subnets = ?going, "outside of the cluster's configuration: given back");
            self.membership.give_back(going);
        }
    }
}

/// Looks for subnets to give back, for ever; a matter of minutes.
pub(super) async fn run(overlay: Arc<Overlay>, node: Arc<Node>) {
    let interval = (overlay.settings.keep_empty / 4)
        .clamp(Duration::from_millis(250), Duration::from_secs(30));
    let mut empty = HashMap::new();
    loop {
        tokio::time::sleep(interval).await;
        overlay.give_back(&node, &mut empty).await;
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
        size > 0 && size - used.min(size) <= RESERVE.min(size / 16)
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
