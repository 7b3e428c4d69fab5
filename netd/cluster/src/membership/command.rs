//! What the reader of a membership can ask of it.

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::{left::VtepClaims, status::Listing};
use crate::{Family, LeaseAttrs, Subnets};

/// Why there can't be more than one subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMore {
    /// By configuration.
    #[error("pod_cidr fixes the node's subnet; remove it from the configuration to have several")]
    Fixed,
}

/// A request to the running loop.
#[derive(Debug)]
pub(super) enum Command {
    Announce(LeaseAttrs),
    Avoid(Vec<IpNet>),
    More,
    GiveBack(Vec<Subnets>),
    List(oneshot::Sender<Listing>),
    Vteps(LeaseAttrs, Family, oneshot::Sender<Option<VtepClaims>>),
    Stop(oneshot::Sender<()>),
}
