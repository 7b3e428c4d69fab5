//! The wire of NRI as pure code: bytes in, messages out, no I/O.
//!
//! Two layers on one stream: [`mux`] frames that carry two byte streams, and
//! [`ttrpc`] messages on each of them. Written here and not taken from the
//! `ttrpc` crate: that one brings a second protobuf stack, code generation and a
//! server per connection, for a header of ten bytes and three message types; and
//! what counts (never a panic, bounded memory, frames that the Go peer can take)
//! can be fuzzed only without I/O.
//!
//! Memory: a decoder holds at most one unfinished message a stream, grown as its
//! bytes arrive and never as its header promises.

pub mod mux;
pub mod ttrpc;

#[cfg(test)]
mod tests;
