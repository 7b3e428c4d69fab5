//! Writes records: JSON, so that a person can read them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::node::error::{Error, Result};
use netd_domain::{Endpoint, NetworkName, Tombstone};
use netd_store::{Change, Compare, Txn, keys};

/// Encodes a record.
pub(crate) fn json<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|e| Error::Internal(format!("record: {e}")))
}

/// The value of an address that is reserved. It can't be mistaken for an endpoint's key.
pub(crate) const RESERVED: &[u8] = b"reserved";

fn leased(endpoint: &Endpoint) -> &[IpAddr] {
    endpoint.runtime_placed.as_ref().map(|placed| placed.leased.as_slice()).unwrap_or_default()
}

/// Reserves an address; the commit conflicts if it is in use.
pub(crate) fn reserve(network: &NetworkName, ip: IpAddr) -> Txn {
    let key = keys::address(network, ip);
    let compares = vec![Compare::Absent(key.clone())];
    Txn { compares, changes: vec![put(key, RESERVED.to_vec())] }
}

/// Frees a reserved address.
pub(crate) fn unreserve(network: &NetworkName, ip: IpAddr) -> Txn {
    let changes = vec![Change::Delete { key: keys::address(network, ip) }];
    Txn { compares: vec![], changes }
}

/// Reserves an address of a subnet that no network has; the commit conflicts if it is in use.
pub(crate) fn reserve_external(subnet: IpNet, ip: IpAddr) -> Txn {
    let key = keys::external_address(subnet, ip);
    let compares = vec![Compare::Absent(key.clone())];
    Txn { compares, changes: vec![put(key, RESERVED.to_vec())] }
}

/// Frees an address of a subnet that no network has.
pub(crate) fn unreserve_external(subnet: IpNet, ip: IpAddr) -> Txn {
    let changes = vec![Change::Delete { key: keys::external_address(subnet, ip) }];
    Txn { compares: vec![], changes }
}

fn put(key: String, value: Vec<u8>) -> Change {
    Change::Put { key, value, lease: 0 }
}

/// Records the intent to attach, and its addresses; the commit conflicts if one is in use.
pub(crate) fn attach(endpoint: &Endpoint) -> Result<Txn> {
    let mut txn = Txn::default();
    let owner = endpoint.key.to_string();
    for ip in endpoint.ips() {
        let key = keys::address(&endpoint.network, ip);
        // A reserved address has a key already.
        if !leased(endpoint).contains(&ip) {
            txn.compares.push(Compare::Absent(key.clone()));
        }
        txn.changes.push(put(key, owner.clone().into_bytes()));
    }
    txn.changes.push(put(keys::endpoint(&endpoint.key), json(endpoint)?));
    txn.changes.push(Change::Delete { key: keys::tombstone(&endpoint.key) });
    Ok(txn)
}

/// Replaces the record of an endpoint that has its addresses already.
pub(crate) fn update(endpoint: &Endpoint) -> Result<Txn> {
    let changes = vec![put(keys::endpoint(&endpoint.key), json(endpoint)?)];
    Ok(Txn { compares: vec![], changes })
}

/// Removes endpoints whose links are deleted, and frees their addresses.
pub(crate) fn release(ended: &[(std::sync::Arc<Endpoint>, Tombstone)]) -> Result<Txn> {
    let mut txn = Txn::default();
    for (endpoint, tombstone) in ended {
        for ip in endpoint.ips() {
            let key = keys::address(&endpoint.network, ip);
            txn.changes.push(match leased(endpoint).contains(&ip) {
                true => put(key, RESERVED.to_vec()),
                false => Change::Delete { key },
            });
        }
        txn.changes.push(Change::Delete { key: keys::endpoint(&endpoint.key) });
        txn.changes.push(put(keys::tombstone(&tombstone.key), json(tombstone)?));
    }
    Ok(txn)
}

/// Records a detach that found no endpoint.
pub(crate) fn tombstone(tombstone: &Tombstone) -> Result<Txn> {
    let changes = vec![put(keys::tombstone(&tombstone.key), json(tombstone)?)];
    Ok(Txn { compares: vec![], changes })
}
