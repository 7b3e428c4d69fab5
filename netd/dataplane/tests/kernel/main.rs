//! The dataplane on the real kernel, in network namespaces of its own. Needs root.
#![allow(clippy::unwrap_used)]

mod bed;
mod drift;
mod ids;
mod inside;
mod nodes;
mod overlay;
mod overlay_questions;
mod paths;
mod repair;
mod settings;
mod wiring;
