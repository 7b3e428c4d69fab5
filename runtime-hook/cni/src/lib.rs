//! The CNI plugin, and how it asks netd.
//!
//! [`plugin`] is the protocol, [`rpc`] the one call to netd. The other fronts of
//! `netd-hook` share the words: [`error`], [`input`], [`json`], [`status`].

pub mod clock;
pub mod error;
pub mod input;
pub mod json;
pub mod plugin;
pub mod rpc;
pub mod status;
