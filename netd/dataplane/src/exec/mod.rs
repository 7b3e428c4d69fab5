//! Where kernel work is done: namespaces and processors.

pub(crate) mod cpu_affinity;
pub mod namespace;
