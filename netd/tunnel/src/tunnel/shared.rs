//! What a tunnel's threads share.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    counters::Counters,
    engine::{Engine, links::Links},
    sys::Tun,
};

#[derive(Debug)]
pub(super) struct Shared {
    pub device: String,
    pub queues: Arc<Vec<Tun>>,
    pub links: ArcSwap<Links>,
    pub engine: Engine,
    pub counters: Arc<Counters>,
}
