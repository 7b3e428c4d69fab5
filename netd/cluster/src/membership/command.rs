//! What the reader of a membership can ask of it.

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::{left::VtepClaims, status::Listing};
use crate::{Family, LeaseAttrs, Subnets};

/// Why there can't be more than one subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMore {
    /// By configuration.
    #[error(
        "the node's subnet is fixed, by pod_cidr or by Kubernetes' podCIDR: it can't have several"
    )]
    Fixed,
}

/// A request to the running loop.
#[derive(Debug)]
pub enum Command {
    /// [`super::Membership::announce`]
    Announce(LeaseAttrs),
    /// [`super::Membership::avoid`]
    Avoid(Vec<IpNet>),
    /// [`super::Membership::more`]
    More,
    /// [`super::Membership::give_back`]
    GiveBack(Vec<Subnets>),
    /// [`super::Membership::list`]
    List(oneshot::Sender<Listing>),
    /// [`super::Membership::vteps`]
    Vteps(LeaseAttrs, Family, oneshot::Sender<Option<VtepClaims>>),
    /// [`super::Membership::stop`]
    Stop(oneshot::Sender<()>),
}
