//! Tests of the whole: pure ones in a [`world`], and real ones on a store.

#![allow(clippy::unwrap_used)]

mod claims;
mod cluster;
mod copies;
mod disk;
mod life;
mod peers;
mod race;
mod range;
mod world;
