//! netd's nftables: spoofing, isolation, masquerade and host ports.
//!
//! Three tables of one name, `inet netd`, `bridge netd` and `arp netd`, made and
//! repaired as a whole in one transaction ([`Firewall::replace`]). Their rules never
//! change: an endpoint is a handful of set and map elements, put in and taken out by
//! one netlink transaction without running `nft`.
//!
//! What nftables can't do: a packet passes only if *every* base chain of a hook lets it
//! through, so nothing here overrules another table's forward policy of drop (a host
//! firewall's, Docker's). [`Firewall::foreign_forward_drops`] names such chains;
//! those of iptables-legacy are not nftables and are not seen.
//!
//! Host ports don't work towards `::1`: IPv6 has no `route_localnet`. Towards
//! 127.0.0.1 they need `route_localnet` on the bridge (routed: on the host side).

mod api;
mod attributes;
pub(crate) mod conntrack;
mod elements;
mod flow;
mod foreign;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod host_addresses;
mod inspect;
mod listeners;
mod memory;
mod message;
mod network_sets;
mod nft;
mod own;
mod port_maps;
mod port_owners;
mod published;
mod rules;
mod settings;
mod standing;
mod tables;
#[cfg(test)]
mod tests;
mod text;
mod transaction;
mod watch;
pub(crate) mod worker;

#[cfg(feature = "fuzzing")]
pub(super) use fuzzing::{fuzz, fuzz_state};
pub use listeners::HostListener;
pub(crate) use own::OwnChanges;
pub use settings::{FirewallSettings, FirewallState};
#[cfg(test)]
use tables::Firewall;
#[cfg(test)]
use watch::Foreign;
pub(crate) use watch::Watcher;
