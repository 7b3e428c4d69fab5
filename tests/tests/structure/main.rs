//! The structure of the source: which crate may know which, and that no files
//! inside a crate import each other in a circle.
//!
//! Pure and fast: it reads manifests and sources, it runs nothing of netd's.

#![allow(clippy::unwrap_used)]

mod circles;
mod dependencies;
mod modules;
mod public;
mod resolve;
mod workspace;
