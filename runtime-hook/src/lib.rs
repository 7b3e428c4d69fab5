//! The hook.

pub mod nri;
