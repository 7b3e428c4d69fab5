//! A node's networks: their bridges.

pub(crate) mod plan;
