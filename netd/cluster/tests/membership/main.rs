//! Membership on a real store: the embedded one, with its leases and watches.

#![allow(clippy::unwrap_used)]

mod away;
mod bed;
mod many;
mod race;
