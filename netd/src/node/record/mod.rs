//! The node's records in the store: JSON, so that a person can read them.

pub mod decode;
pub mod encode;
