//! The `netd.v1` API, generated from `proto/netd/v1/*.proto`, and how hooks call it.

#![cfg_attr(not(feature = "grpc"), no_std)]

extern crate alloc;

pub mod annotations;
pub mod hook;
#[cfg(feature = "grpc")]
pub mod socket;
pub mod suggest;
pub mod ttrpc;

/// Messages, clients and servers of package `netd.v1`.
pub mod v1 {
    #![allow(clippy::all, clippy::unwrap_used, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/netd.v1.rs"));
}

/// Messages, clients and servers of package `netd.tunnel.v1`, which netd and netd-tunnel
/// speak.
pub mod tunnel {
    /// Version 1.
    pub mod v1 {
        #![allow(clippy::all, clippy::unwrap_used, missing_docs)]
        include!(concat!(env!("OUT_DIR"), "/netd.tunnel.v1.rs"));
    }
}

/// The encoded `FileDescriptorSet` of the API, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/netd.v1.bin"));

/// The Unix socket on which netd listens by default.
pub const DEFAULT_SOCKET: &str = "/run/netd/netd.sock";

/// The `domain` of every `google.rpc.ErrorInfo` that netd sends.
pub const ERROR_DOMAIN: &str = "netd";
