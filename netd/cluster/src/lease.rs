//! Leases: which subnets a node has, and how to reach them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::subnets::{Family, Subnets};

/// A lease's value: how to reach the node that has the subnets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseAttrs {
    /// `PublicIP`
    pub public_v4: Option<Ipv4Addr>,
    /// `PublicIPv6`
    pub public_v6: Option<Ipv6Addr>,
    /// `BackendType`; `None`: left out (udp, alloc).
    pub backend_type: Option<String>,
    /// `BackendData`
    pub data_v4: Option<BackendData>,
    /// `BackendV6Data`
    pub data_v6: Option<BackendData>,
}

/// What only a lease's backend understands: JSON, kept as its text, which takes a tenth of
/// the memory that a tree of it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendData(Box<str>);

impl BackendData {
    /// As a tree.
    pub fn value(&self) -> Value {
        // It was made of one.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<Value> for BackendData {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

impl LeaseAttrs {
    /// The public address of a family.
    pub fn public(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_v4.map(IpAddr::V4),
            Family::V6 => self.public_v6.map(IpAddr::V6),
        }
    }
}

/// A lease: which subnets, and how to reach them.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// What is leased.
    pub subnets: Subnets,
    /// To whom.
    pub attrs: LeaseAttrs,
    /// Whether the key is bound to no etcd lease: an operator reserved it.
    pub reservation: bool,
}
