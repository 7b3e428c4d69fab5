//! Which leases are meant, and what is removed with them. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::{records::NodeRecord, view::View},
    error::RemovalError,
};
use crate::{Family, LeaseAttrs, Subnets, flannel};
use netd_store::{Change, Compare, Txn};

/// Leases of one transaction: etcd takes 128 operations (--max-txn-ops).
const MAX_LEASES: usize = 32;

/// What is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The netd node's id; `None`: no netd node owns it.
    pub id: Option<String>,
    /// The node's name, for people; empty: not known.
    pub node: String,
    /// The leases' names.
    pub leases: Vec<String>,
}

impl Target {
    /// Finds what `text` means: a node's name or id, its public address, or a subnet.
    pub(super) fn find(view: &View, text: &str) -> Result<Self, RemovalError> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Self::of_subnet(view, net, text);
        }
        let mut owners = match text.parse::<IpAddr>() {
            Ok(ip) => owners_at(view, ip),
            Err(_) => owners_named(view, text),
        };
        owners.sort();
        owners.dedup();
        match &owners[..] {
            [] => Err(RemovalError::NotFound(text.to_owned())),
            [Some(id)] => Ok(Self::of_node(view, id)),
            [None] => {
                let here = |name: &String| !view.owners.contains_key(name);
                let ip = text.parse().ok();
                let leases = names_at(view, ip).filter(|name| here(name)).cloned().collect();
                Ok(Self { id: None, node: String::new(), leases })
            }
            several => {
                let text = text.to_owned();
                let shown = several.iter().map(|id| shown_owner(view, id.as_deref()));
                Err(RemovalError::Ambiguous { text, nodes: shown.collect::<Vec<_>>().join("; ") })
            }
        }
    }

    fn of_subnet(view: &View, net: IpNet, text: &str) -> Result<Self, RemovalError> {
        let is_it = |subnets: &Subnets| subnets.iter().any(|own| own == net);
        let named = view.leases.keys().chain(view.owners.keys());
        let found = named.filter(|name| flannel::key::parse(name).is_ok_and(|s| is_it(&s)));
        let mut leases: Vec<String> = found.cloned().collect();
        leases.sort();
        leases.dedup();
        let Some(first) = leases.first() else {
            return Err(RemovalError::NotFound(text.to_owned()));
        };
        if leases.len() > 1 {
            let (text, nodes) = (text.to_owned(), leases.join("; "));
            return Err(RemovalError::Ambiguous { text, nodes });
        }
        let id = owner_of(view, first);
        let node = id.as_deref().map(|id| name_of(view, id)).unwrap_or_default();
        Ok(Self { id, node, leases })
    }

    fn of_node(view: &View, id: &str) -> Self {
        let own = view.owners.keys().filter(|name| owner_of(view, name).as_deref() == Some(id));
        let leases = own.cloned().collect();
        Self { id: Some(id.to_owned()), node: name_of(view, id), leases }
    }

    /// The transactions, in order. Each compares all that it changes, and the node's record, so
    /// that a node which has come back keeps what it has.
    pub(super) fn removal(&self, view: &View) -> Vec<Txn> {
        let keys = &view.keys;
        let node = self.id.as_ref().and_then(|id| Some((keys.node(id), view.nodes.get(id)?)));
        let unchanged =
            node.as_ref().map(|(key, node)| Compare::Unchanged(key.clone(), node.modified));
        let mut txns = Vec::new();
        for names in self.leases.chunks(MAX_LEASES) {
            let mut txn = Txn { compares: unchanged.iter().cloned().collect(), ..Txn::default() };
            names.iter().for_each(|name| self.add(view, name, &mut txn));
            txns.push(txn);
        }
        let rest = |name: &String| owner_of(view, name) == self.id && !self.leases.contains(name);
        if let (Some((key, _)), false) = (node, view.owners.keys().any(rest)) {
            if txns.is_empty() {
                txns.push(Txn { compares: unchanged.into_iter().collect(), ..Txn::default() });
            }
            txns.iter_mut().last().into_iter().for_each(|last| {
                last.changes.push(Change::Delete { key: key.clone() });
            });
        }
        txns
    }

    fn add(&self, view: &View, name: &str, txn: &mut Txn) {
        let lease = view.leases.get(name).map(|lease| (lease.modified, lease.bound));
        let owner = view.owners.get(name).map(|owner| owner.modified);
        let mut compare = |key: String, modified| {
            txn.compares.push(match modified {
                Some(at) => Compare::Unchanged(key, at),
                None => Compare::Absent(key),
            });
        };
        compare(view.keys.lease(name), lease.map(|(modified, _)| modified));
        compare(view.keys.owner(name), owner);
        if owner.is_some() {
            txn.changes.push(Change::Delete { key: view.keys.owner(name) });
        }
        // An administrator's reservation outlives the node that used it.
        let is_reserved = lease.is_some_and(|(_, bound)| bound == 0) && self.id.is_some();
        if lease.is_some() && !is_reserved {
            txn.changes.push(Change::Delete { key: view.keys.lease(name) });
        }
    }

    /// What the first of the leases says.
    pub(super) fn attrs(&self, view: &View) -> LeaseAttrs {
        let lease = |name: &String| view.leases.get(name)?.lease.as_ref().ok();
        self.leases.iter().find_map(lease).map(|lease| lease.attrs.clone()).unwrap_or_default()
    }
}

/// The id of the netd node that owns a lease; an owner that can't be read is none.
fn owner_of(view: &View, lease: &str) -> Option<String> {
    view.owners.get(lease)?.record.as_ref().ok().map(|record| record.id.clone())
}

fn names_at(view: &View, ip: Option<IpAddr>) -> impl Iterator<Item = &String> {
    let is_at = move |attrs: &LeaseAttrs| {
        ip.is_some() && Family::ALL.into_iter().any(|family| attrs.public(family) == ip)
    };
    let leases = view.leases.iter();
    let at = leases.filter(move |(_, key)| key.lease.as_ref().is_ok_and(|l| is_at(&l.attrs)));
    at.map(|(name, _)| name)
}

fn owners_at(view: &View, ip: IpAddr) -> Vec<Option<String>> {
    let record_at = |record: &NodeRecord| {
        record.public_ip.map(IpAddr::V4) == Some(ip)
            || record.public_ipv6.map(IpAddr::V6) == Some(ip)
    };
    let nodes = view.nodes.iter();
    let nodes = nodes.filter(|(_, node)| node.record.as_ref().is_ok_and(|r| record_at(r)));
    let leases = names_at(view, Some(ip)).map(|name| owner_of(view, name));
    leases.chain(nodes.map(|(id, _)| Some(id.clone()))).collect()
}

fn owners_named(view: &View, text: &str) -> Vec<Option<String>> {
    let nodes = view.nodes.values().filter_map(|node| node.record.as_ref().ok());
    let nodes = nodes.filter(|r| r.name == text || r.id == text).map(|r| Some(r.id.clone()));
    let owners = view.owners.values().filter_map(|owner| owner.record.as_ref().ok());
    let owners = owners.filter(|r| r.node == text || r.id == text).map(|r| Some(r.id.clone()));
    nodes.chain(owners).collect()
}

fn name_of(view: &View, id: &str) -> String {
    let record = view.nodes.get(id).and_then(|node| node.record.as_ref().ok());
    let owners = || view.owners.values().filter_map(|owner| owner.record.as_ref().ok());
    let owned = || owners().find(|record| record.id == id).map(|record| record.node.clone());
    record.map(|record| record.name.clone()).or_else(owned).unwrap_or_default()
}

/// An owner, for people.
fn shown_owner(view: &View, id: Option<&str>) -> String {
    let Some(id) = id else { return "a node that does not run netd".to_owned() };
    let node = view.nodes.get(id).and_then(|node| node.record.as_ref().ok());
    let at = node.and_then(|record| record.public_ip).map(|ip| format!(" at {ip}"));
    format!("{} (id {id}){}", name_of(view, id), at.unwrap_or_default())
}
