//! The CNI plugin, and how it asks netd: without std, so that the executable that a
//! runtime starts for every pod needs no libc, whose start takes longer than the rest.
//!
//! [`plugin`] is the protocol, [`rpc`] the one call to netd. The other fronts of
//! `netd-hook`, which have std, share the words: [`error`], [`json`], [`refusal`].

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod clock;
pub mod error;
pub mod heap;
pub mod json;
pub mod plugin;
pub mod refusal;
pub mod rpc;
