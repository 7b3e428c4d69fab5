//! What a lease must say so that flannel can read it.
//!
//! flanneld 0.28.9 hangs for good on a lease of an IPv6 subnet without `PublicIPv6`, at each
//! start too until the key is gone. netd's nodes can do without: they send both families
//! over the underlay of one.

use super::{ClaimContext, Claims};
use crate::{Family, LeaseAttrs, membership::view::View};

impl Claims {
    /// What the node's leases are to say while it wants to announce this, and what is wrong
    /// with that; `None`: they stay as they are.
    pub(super) fn readable(
        &self,
        announced: LeaseAttrs,
        context: &ClaimContext<'_>,
    ) -> (Option<LeaseAttrs>, Option<String>) {
        let families = context.config.into_iter().flat_map(|config| config.families());
        let missing: Vec<_> = families.filter(|f| announced.public(*f).is_none()).collect();
        let (Some(family), Some(peer)) = (missing.first(), self.flannel_peer(context.view)) else {
            return (Some(announced), None);
        };
        let here = format!(
            "this node has no {family} address for other nodes, and {peer} runs flannel, which \
             can't read a lease without one"
        );
        let mut attrs = announced;
        for family in &missing {
            let Some(last) = self.past.iter().find(|past| past.public(*family).is_some()) else {
                let why =
                    format!("{here}: give the node an address, or set public_ip or public_ipv6");
                return (None, Some(why));
            };
            keep(&mut attrs, last, *family);
        }
        let why = format!("{here}: its leases still name the address that it had last");
        (Some(attrs), Some(why))
    }

    /// A node of the cluster that runs flannel, if there is one.
    fn flannel_peer(&self, view: &View) -> Option<String> {
        let mut leases = view.leases.iter();
        let (_, key) = leases.find(|(name, key)| {
            key.bound != 0 && !view.owners.contains_key(*name) && !self.claimant().is_at(key)
        })?;
        let lease = key.lease.as_ref().ok()?;
        let ip = Family::ALL.into_iter().find_map(|family| lease.attrs.public(family))?;
        Some(format!("the node at {ip}"))
    }
}

/// Leaves a family as the node had it last.
fn keep(attrs: &mut LeaseAttrs, last: &LeaseAttrs, family: Family) {
    match family {
        Family::V4 => {
            (attrs.public_v4, attrs.data_v4) = (last.public_v4, last.data_v4.clone());
        }
        Family::V6 => {
            (attrs.public_v6, attrs.data_v6) = (last.public_v6, last.data_v6.clone());
        }
    }
}
