//! Which subnet a node claims next: one that it had or that is reserved for it, else a free
//! one.

use super::{ClaimContext, Claims};
use crate::{
    ClusterConfig, Subnets, flannel,
    membership::{
        allocator::{self, UsedRanges},
        ownership::{self, Ownership},
        view::View,
    },
};

impl Claims {
    /// Which subnets to claim.
    pub(super) fn choose(
        &self,
        context: &ClaimContext<'_>,
        config: &ClusterConfig,
        rng: &mut fastrand::Rng,
    ) -> Result<Subnets, String> {
        let view = context.view;
        if let Some(fixed) = self.fixed {
            return self.choose_fixed(view, config, &fixed);
        }
        let reserved = view.leases.values().filter(|l| l.bound == 0 && self.claimant().is_at(l));
        let reserved = reserved.filter_map(|l| l.subnets.as_ref().ok());
        // flannel's of before a reboot, which took `subnet.env` with it.
        let left = view.leases.iter().filter(|(name, lease)| {
            !view.owners.contains_key(*name) && self.claimant().is_at(lease)
        });
        let left = left.filter_map(|(_, lease)| lease.subnets.as_ref().ok());
        let wishes = reserved.chain(&self.trying).chain(&self.preferred).chain(left);
        let wishes = wishes.filter(|subnets| !self.overwritten.contains(subnets));
        for subnets in wishes.filter(|s| self.fits(config, s)) {
            let had = self.held.contains_key(subnets) || self.leaving.contains(subnets);
            let wanted = match self.claimant().ownership(view, subnets, true) {
                Ownership::Free | Ownership::Takeover => true,
                // Its claim went through, and then its mark was spoiled.
                Ownership::Mine => self.trying == Some(*subnets),
                _ => false,
            };
            if !had && wanted {
                return Ok(*subnets);
            }
        }
        let window = allocator::WINDOW << self.conflicts.min(10);
        let taken = self.taken(view);
        let mut careful = taken.clone();
        context.lately_gone.iter().for_each(|subnets| careful.add_all(subnets));
        allocator::allocate(config, careful, window, rng)
            .or_else(|_| allocator::allocate(config, taken, window, rng))
            .map_err(|e| e.to_string())
    }

    fn choose_fixed(
        &self,
        view: &View,
        config: &ClusterConfig,
        fixed: &Subnets,
    ) -> Result<Subnets, String> {
        let name = flannel::key::name(fixed);
        if !self.fits(config, fixed) {
            let networks: Vec<_> = config.networks().map(|n| n.to_string()).collect();
            return Err(format!(
                "pod_cidr {name} is not in the cluster's Network ({}), one subnet of each of its \
                 families; change one of the two",
                networks.join(", ")
            ));
        }
        match self.claimant().ownership(view, fixed, true) {
            Ownership::Taken(who) | Ownership::Overwritten(who) | Ownership::Outranked(who) => {
                Err(format!(
                    "pod_cidr {name} belongs to {who}; remove that lease or configure another pod_cidr"
                ))
            }
            Ownership::Free | Ownership::Takeover | Ownership::Mine => Ok(*fixed),
        }
    }

    /// Everything that is in use or may be.
    fn taken(&self, view: &View) -> UsedRanges {
        let mut taken = UsedRanges::default();
        for (name, lease) in &view.leases {
            match &lease.subnets {
                Ok(subnets) => taken.add_all(subnets),
                Err(_) => ownership::address_in(name).for_each(|ip| taken.add_address(ip)),
            }
        }
        let owned = view.owners.values().filter_map(|o| o.subnets.as_ref());
        owned.chain(self.held.keys()).chain(&self.leaving).for_each(|s| taken.add_all(s));
        self.avoid.iter().for_each(|net| taken.add(*net));
        taken
    }
}
