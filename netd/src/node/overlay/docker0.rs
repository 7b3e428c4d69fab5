//! docker0 on one of the node's subnets (`overlay.docker0`).
//!
//! Who owns which state then:
//! - the membership: that the node has its subnets, docker0's among them;
//! - the network's record ([`Leased::docker0`]): which of them is docker0's, for as long as
//!   the node has it. It is not a pool: netd assigns no address of it, neither to pods nor to
//!   its bridges;
//! - netd: routes, tunnels, rules and masquerading, as for the other subnets, and
//!   `subnet.env`, which names docker0's subnet;
//! - dockerd: docker0 and its address, which `netd docker-opts` reads from `subnet.env`, and
//!   which container has which address.
//!
//! The first pod makes the node ask for another subnet, as it does when one is full. A subnet
//! that pods use stays theirs: docker0 gets one that no pod uses.
//!
//! Without the key all subnets are for pods. If docker0 has an address of one nevertheless,
//! left over from flannel or from the key, that subnet becomes a pool only after docker0 has
//! lost the address.
//!
//! [`Leased::docker0`]: netd_domain::network::Leased::docker0

use ipnet::IpNet;

use super::{core::Overlay, local_node::LocalNode};
use netd_cluster::{Subnets, membership::OwnSubnets};
use netd_domain::{Network, network::overlap};

/// The node's subnets, by who assigns their addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shares {
    pub docker0: Option<Subnets>,
    pub pods: Vec<Subnets>,
    /// The one that `subnet.env` names.
    pub subnet_env: Option<Subnets>,
    /// Whether neither pods nor docker0 wait for a subnet.
    pub complete: bool,
}

impl Overlay {
    /// Divides the node's subnets, the oldest first.
    pub(super) async fn share(&self, node: &dyn LocalNode, own: &[Subnets]) -> Shares {
        let docker0 =
            if self.settings.docker0 { self.docker0_subnet(node, own).await } else { None };
        let waits = self.settings.docker0 && docker0.is_none();
        let pods: Vec<_> = own.iter().copied().filter(|s| Some(*s) != docker0).collect();
        let (pods, taken) = self.without_subnets_of_docker0(node, pods).await;
        if let Some(taken) = taken {
            node.health().advise("overlay/docker0", self.held_by_docker0(&taken));
        } else if waits {
            node.health().advise("overlay/docker0", self.why_waiting());
        } else {
            node.health().forget("overlay/docker0");
        }
        let subnet_env = if self.settings.docker0 { docker0 } else { own.first().copied() };
        Shares { docker0, pods, subnet_env, complete: taken.is_none() && !waits }
    }

    /// docker0's subnet; asks for one more if pods have them all.
    async fn docker0_subnet(&self, node: &dyn LocalNode, own: &[Subnets]) -> Option<Subnets> {
        let name = &self.settings.network;
        let network = node.network(name)?.network;
        let is_unused = |net: IpNet| node.is_unused(name, net);
        if let Some(chosen) = choose(&network, own, is_unused) {
            return Some(chosen);
        }
        for subnets in own {
            let going: Vec<IpNet> = subnets.iter().collect();
            if self.is_retired(node, &going).await {
                return Some(*subnets);
            }
        }
        // It fails only for fixed subnets; `why_waiting` reports them.
        let _ = self.membership.more();
        None
    }

    /// Those of which docker0 has no address or pods have addresses already; and docker0's
    /// address.
    async fn without_subnets_of_docker0(
        &self,
        node: &dyn LocalNode,
        pods: Vec<Subnets>,
    ) -> (Vec<Subnets>, Option<IpNet>) {
        let Some(state) = node.network(&self.settings.network) else {
            return (pods, None);
        };
        let all = pods.iter().flat_map(Subnets::iter).collect();
        // What can't be read is read again when the network is made.
        let taken = node.docker0_in(&state.wiring, all).await.ok().flatten();
        let Some(taken) = taken else { return (pods, None) };
        let mut left = Vec::new();
        for subnets in pods {
            let nets: Vec<IpNet> = subnets.iter().collect();
            let is_pool = state.network.pools.iter().any(|p| nets.contains(&p.subnet));
            let is_docker0s = nets.iter().any(|net| overlap(net, &taken));
            // A pool that pods use stays a pool, but no further address of it is assigned.
            if !is_docker0s || (is_pool && !self.is_retired(node, &nets).await) {
                left.push(subnets);
            }
        }
        (left, Some(taken))
    }

    async fn is_retired(&self, node: &dyn LocalNode, pools: &[IpNet]) -> bool {
        // If the store failed, it is tried again with the next comparison.
        matches!(node.remove_pools(&self.settings.network, pools).await, Ok(true))
    }

    /// Whether docker0 still has an address of subnets that could be returned.
    pub(super) async fn docker0_uses(&self, node: &dyn LocalNode, own: &OwnSubnets) -> bool {
        let Some(state) = node.network(&self.settings.network) else { return false };
        let found = node.docker0_in(&state.wiring, own.subnets.iter().collect()).await;
        !matches!(found, Ok(None))
    }

    fn held_by_docker0(&self, taken: &IpNet) -> String {
        format!(
            "docker0 has {taken} of a subnet that is network \"{}\"'s: pods get no address of \
             it; leave a subnet to Docker (overlay.docker0 = true), or take it away from docker0 \
             (dockerd --bip, --bridge=none)",
            self.settings.network
        )
    }

    fn why_waiting(&self) -> String {
        let repair = match self.is_fixed() {
            false => "another one is asked for",
            true => "take away those pods, or overlay.pod_cidr, which allows no other one",
        };
        format!(
            "overlay.docker0: pods of network \"{}\" have addresses of every subnet of this \
             node, docker0 gets none yet: {repair}",
            self.settings.network
        )
    }
}

/// The subnet that was chosen before, else the oldest one that is not a pool and of which no
/// pod has an address from an earlier time as a pool.
fn choose(
    network: &Network,
    own: &[Subnets],
    is_unused: impl Fn(IpNet) -> bool,
) -> Option<Subnets> {
    let known = network.leased.iter().flat_map(|leased| &leased.docker0).collect::<Vec<_>>();
    let is_known = |s: &&Subnets| s.iter().any(|net| known.contains(&&net));
    let is_pool = |net: IpNet| network.pools.iter().any(|pool| pool.subnet == net);
    let is_free = |s: &&Subnets| !s.iter().any(is_pool);
    let mut free = own.iter().filter(is_free).filter(|s| s.iter().all(&is_unused));
    own.iter().filter(is_free).find(is_known).or_else(|| free.next()).copied()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use netd_domain::{
        Pool,
        network::{Leased, NetworkOptions},
    };

    fn subnets(v4: &str) -> Subnets {
        Subnets { v4: Some(v4.parse().unwrap()), v6: None }
    }

    fn network(pools: &[&str], docker0: &[&str]) -> Network {
        let pool = |s: &&str| Pool::new(s.parse().unwrap(), None, (None, None), vec![]).unwrap();
        let docker0 = docker0.iter().map(|s| s.parse().unwrap()).collect();
        let leased = Some(Leased { docker0, ..Leased::default() });
        let options = NetworkOptions { leased, ..NetworkOptions::default() };
        let pools = pools.iter().map(pool).collect();
        Network::new("default".parse().unwrap(), pools, options).unwrap()
    }

    fn chosen(network: &Network, own: &[Subnets]) -> Option<Subnets> {
        choose(network, own, |_| true)
    }

    #[test]
    fn docker0_keeps_its_subnet_and_never_gets_one_of_the_pods() {
        let own = ["10.5.9.0/24", "10.5.3.0/24"].map(subnets);
        let [old, new] = own;
        assert_eq!(chosen(&network(&[], &[]), &own), Some(old));
        assert_eq!(chosen(&network(&["10.5.9.0/24"], &[]), &own), Some(new));
        assert_eq!(chosen(&network(&[], &["10.5.3.0/24"]), &own), Some(new));
        assert_eq!(chosen(&network(&["10.5.9.0/24"], &["10.5.9.0/24"]), &own), Some(new));
        assert_eq!(chosen(&network(&["10.5.9.0/24"], &["10.5.3.0/24"]), &own), Some(new));
        // It was lost.
        assert_eq!(chosen(&network(&["10.5.3.0/24"], &["10.5.7.0/24"]), &own), Some(old));
        assert_eq!(chosen(&network(&["10.5.3.0/24", "10.5.9.0/24"], &[]), &own), None);
    }

    #[test]
    fn docker0_gets_no_subnet_of_which_a_pod_still_has_an_address() {
        let own = ["10.5.9.0/24", "10.5.3.0/24"].map(subnets);
        let [old, new] = own;
        let used: IpNet = "10.5.9.0/24".parse().unwrap();
        assert_eq!(choose(&network(&[], &[]), &own, |net| net != used), Some(new));
        assert_eq!(choose(&network(&["10.5.3.0/24"], &[]), &own, |net| net != used), None);
        // It is docker0's: what has addresses of it is known to Docker.
        assert_eq!(choose(&network(&[], &["10.5.9.0/24"]), &own, |net| net != used), Some(old));
    }
}
