//! What flannel on this machine left in the store. Pure.

use std::collections::BTreeSet;

use super::{ownership::is_same_node, view::View};
use crate::{Family, LeaseAttrs, flannel::value::VxlanData};
use netd_domain::Mac;

/// The MACs of one family's VTEPs, as leases name them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VtepClaims {
    /// At this machine's own address, by a lease that no netd node owns; the latest first.
    pub left: Vec<Mac>,
    /// Anywhere else.
    pub others: BTreeSet<Mac>,
}

impl VtepClaims {
    /// The MAC that this machine's VTEP goes on with, so that other nodes' entries stay right.
    /// `link`: that of the device which flannel made. `None`: nobody knows one.
    pub fn choose(&self, link: Option<Mac>) -> Option<Mac> {
        let free = |mac: &Mac| !self.others.contains(mac);
        let link = link.filter(free);
        let known = |mac: &Mac| self.left.is_empty() || self.left.contains(mac);
        // Other nodes send to what the lease says, whatever the device has by now.
        link.filter(known).or_else(|| self.left.iter().copied().find(free)).or(link)
    }
}

/// The MAC of a family's VTEP, if the lease's value names one.
pub fn vtep(attrs: &LeaseAttrs, family: Family) -> Option<Mac> {
    VxlanData::read(attrs, family).ok().map(|data| data.mac)
}

/// `at`: this machine's addresses. `None`: not everything has been listed yet.
pub(super) fn vteps(view: &View, at: &LeaseAttrs, family: Family) -> Option<VtepClaims> {
    if !view.is_listed() {
        return None;
    }
    let mut claims = VtepClaims::default();
    let mut left = Vec::new();
    for (name, key) in &view.leases {
        let Ok(lease) = &key.lease else { continue };
        let Some(mac) = vtep(&lease.attrs, family) else { continue };
        if is_same_node(at, &lease.attrs) && !view.owners.contains_key(name) {
            left.push((key.modified, mac));
        } else {
            claims.others.insert(mac);
        }
    }
    left.sort_by(|a, b| b.cmp(a));
    claims.left = left.into_iter().map(|(_, mac)| mac).collect();
    Some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> Mac {
        format!("02:00:00:00:00:{last:02x}").parse().unwrap()
    }

    #[test]
    fn other_nodes_entries_decide_before_the_device() {
        let claims = |left: &[u8], others: &[u8]| VtepClaims {
            left: left.iter().map(|n| mac(*n)).collect(),
            others: others.iter().map(|n| mac(*n)).collect(),
        };
        let cases = [
            (claims(&[], &[]), None, None),
            (claims(&[], &[]), Some(1), Some(1)),
            (claims(&[1], &[]), None, Some(1)),
            (claims(&[2, 1], &[]), Some(1), Some(1)),
            (claims(&[2, 1], &[]), Some(3), Some(2)),
            // A MAC that was copied with the machine is another node's.
            (claims(&[2, 1], &[2]), Some(2), Some(1)),
            (claims(&[], &[2]), Some(2), None),
        ];
        for (claims, link, expected) in cases {
            assert_eq!(claims.choose(link.map(mac)), expected.map(mac), "{claims:?} {link:?}");
        }
    }
}
