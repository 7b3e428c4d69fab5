//! All peers of a tunnel, and changes of them. A change costs what it touches: a node of ten
//! thousand hears of another one's every move.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use netd_api::tunnel::v1 as pb;

use crate::spec::{self, Invalid, PeerName, PeerSpec, TunnelSpec};

/// All peers of a tunnel; no two have a subnet in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    by_name: BTreeMap<PeerName, PeerSpec>,
    owners: HashMap<IpNet, PeerName>,
}

/// What becomes of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerChange {
    /// Which.
    pub name: PeerName,
    /// As it was; `None`: it is new.
    pub old: Option<PeerSpec>,
    /// As it is from now on; `None`: it is gone.
    pub new: Option<PeerSpec>,
}

impl Peers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerName, &PeerSpec)> {
        self.by_name.iter()
    }

    /// What a request changes; empty if it says what is so already.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn changes(
        &self,
        tunnel: &TunnelSpec,
        request: &pb::UpdatePeersRequest,
    ) -> Result<Vec<PeerChange>, Invalid> {
        let mut invalid = Invalid::default();
        let mut wanted: BTreeMap<PeerName, Option<PeerSpec>> = BTreeMap::new();
        if request.replace_all {
            wanted.extend(self.by_name.keys().map(|name| (name.clone(), None)));
        }
        for name in spec::removed(request, &tunnel.kind, &mut invalid) {
            wanted.insert(name, None);
        }
        let mut numbers = HashMap::new();
        for (number, name, spec) in spec::set(request, tunnel, &mut invalid) {
            if let Some(other) = numbers.insert(name.clone(), number) {
                let text = format!("is the same peer as set[{other}]: {name}");
                invalid.add(format!("set[{number}]"), text);
            }
            wanted.insert(name, Some(spec));
        }
        self.check_overlap(&wanted, &numbers, &mut invalid);
        let changes = wanted.into_iter().filter_map(|(name, new)| {
            let old = self.by_name.get(&name).cloned();
            (old != new).then_some(PeerChange { name, old, new })
        });
        invalid.checked(Some(())).map(|()| changes.collect())
    }

    fn check_overlap(
        &self,
        wanted: &BTreeMap<PeerName, Option<PeerSpec>>,
        numbers: &HashMap<PeerName, usize>,
        invalid: &mut Invalid,
    ) {
        let mut claims: HashMap<IpNet, &PeerName> = HashMap::new();
        for (name, spec) in wanted.iter().filter_map(|(name, spec)| Some((name, spec.as_ref()?))) {
            for net in &spec.subnets {
                let stays = |owner: &&PeerName| !wanted.contains_key(*owner);
                let other = claims.insert(*net, name);
                let other = other.or_else(|| self.owners.get(net).filter(stays));
                let Some(other) = other else { continue };
                let index = numbers.get(name).or_else(|| numbers.get(other));
                let field = index.map_or("set".into(), |index| format!("set[{index}].subnets"));
                let (first, second) = (name.min(other), name.max(other));
                invalid.add(field, format!("{net} is claimed by two peers: {first} and {second}"));
            }
        }
    }

    /// Makes changes of [`Peers::changes`], which was asked last.
    pub fn apply(&mut self, changes: &[PeerChange]) {
        for change in changes {
            for net in change.old.iter().flat_map(|old| &old.subnets) {
                self.owners.remove(net);
            }
            self.by_name.remove(&change.name);
        }
        for change in changes {
            let Some(new) = &change.new else { continue };
            self.owners.extend(new.subnets.iter().map(|net| (*net, change.name.clone())));
            self.by_name.insert(change.name.clone(), new.clone());
        }
    }

    /// The changes that make all of these of none.
    pub(crate) fn as_changes(&self) -> Vec<PeerChange> {
        let new = |(name, spec): (&PeerName, &PeerSpec)| PeerChange {
            name: name.clone(),
            old: None,
            new: Some(spec.clone()),
        };
        self.iter().map(new).collect()
    }
}
