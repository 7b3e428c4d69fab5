//! The node's records in the store: JSON, so that a person can read them.

pub(crate) mod decode;
pub(crate) mod encode;
