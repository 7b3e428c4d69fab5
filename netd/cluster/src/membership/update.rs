//! What a reader of the membership is told.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{ClusterConfig, Lease, Subnets};
use netd_store::Revision;

/// A subnet of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSubnets {
    /// Name of the lease: `10.5.52.0-24`.
    pub key: String,
    /// What it is.
    pub subnets: Subnets,
    /// Whether an operator reserved it for the node: it stays the node's for good.
    pub reservation: bool,
    /// Whether it is what the configuration wants. One that isn't is kept until it is
    /// given back, and another one that does is taken beside it.
    pub fits: bool,
    /// Since when the node has it, seconds since the epoch.
    pub since: u64,
}

/// A change of what is known of other nodes' leases.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerUpdate {
    /// There is a lease, new or changed.
    Set {
        /// Its name.
        key: String,
        /// What it says now.
        lease: Arc<Lease>,
        /// Of two leases that overlap the one with the smaller one is in force; if they are
        /// equal, the one with the smaller name.
        created: Revision,
        /// Of the key.
        mod_revision: Revision,
        /// When this node first saw it, seconds since the epoch.
        since: u64,
    },
    /// It is gone, or it is this node's now.
    Removed {
        /// Its name.
        key: String,
    },
    /// It can't be read. What was told of it before stays in force.
    Refused {
        /// Its name: any text that was written there, not always a lease's.
        key: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// What is known of whose this node's id is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityUpdate {
    /// A record says that another machine may have it, which is being asked. Whether the
    /// node uses its subnets meanwhile, and why it asks.
    Contested {
        /// It goes on as before.
        in_use: bool,
        /// What the record says.
        why: String,
    },
    /// It is this machine's.
    Confirmed,
    /// It is another machine's, and this one has a new id: what peers know the node by has
    /// to be new too, and to be announced.
    Replaced {
        /// The other machine.
        who: String,
        /// This one's new id.
        id: String,
    },
    /// What this machine remembers is another Node's: it was renamed, or is a copy. What peers
    /// know the node by has to be new, and to be announced.
    Renamed {
        /// What is remembered.
        from: String,
        /// The Node that it is now.
        to: String,
    },
}

/// What a reader of membership is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The cluster's configuration, at the start and when it changes.
    Config(Arc<ClusterConfig>),
    /// The configuration is missing or can't be read; the last good one stays in force.
    ConfigProblem(String),
    /// Whose this node's id is, when that is in question.
    Identity(IdentityUpdate),
    /// All subnets that this node has and may use; the store and the disk have them. Told at
    /// the start, even if there are none.
    Own(Vec<OwnSubnets>),
    /// It is another node's now. Another one is taken in its place.
    Lost(Subnets),
    /// Why its leases can't say what they should; `None`: they do.
    Unreadable(Option<String>),
    /// The node has too few subnets, and there is nothing to take; why.
    NoSubnet(String),
    /// The node's own addresses, by which its device is chosen, as the cluster has them; `None`:
    /// they are found.
    Addresses {
        /// Of IPv4.
        v4: Option<Ipv4Addr>,
        /// Of IPv6.
        v6: Option<Ipv6Addr>,
    },
    /// Changes of the others' leases; at the start all that are known.
    Peers(Vec<PeerUpdate>),
    /// Everything was listed once: what was told is what the store has.
    Synced,
    /// The store is out of reach; what was told stays in force.
    Behind {
        /// Seconds since the epoch.
        since: u64,
        /// What the store says.
        why: String,
    },
    /// The store is back.
    CaughtUp,
}
