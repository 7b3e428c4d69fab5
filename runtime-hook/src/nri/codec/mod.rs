//! The wire of NRI as pure code: bytes in, messages out, no I/O.
//!
//! Two layers on one stream: [`mux`] frames that carry two byte streams, and
//! [`ttrpc`] messages on each of them.

pub mod mux;
pub use netd_api::ttrpc;

#[cfg(test)]
mod tests;
