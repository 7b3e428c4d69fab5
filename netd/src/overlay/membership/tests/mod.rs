//! Tests of the whole: pure ones in a [`world`], and real ones on a store.

#![allow(clippy::unwrap_used)]

mod cases;
mod peers;
mod race;
mod world;
