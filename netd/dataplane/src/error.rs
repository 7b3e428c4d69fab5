//! Errors of the dataplane.

use std::{fmt, io, path::PathBuf};

use crate::netlink::Refusal;
use netd_domain::{HostPort, IfName};

/// Errors of the dataplane.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// Nothing is at the path, or the namespace is gone.
    #[error("no network namespace at {path}: {reason}")]
    NetnsGone {
        /// As given.
        path: PathBuf,
        /// The system's word.
        reason: String,
    },
    /// The path is something else.
    #[error("{path} is not a network namespace ({found})")]
    NotANetns {
        /// As given.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The path is the host's own namespace.
    #[error("{path} is the host's own network namespace; host-network pods need no endpoint")]
    HostNetns {
        /// As given.
        path: PathBuf,
    },
    /// An interface of that name that netd did not make is in the sandbox or on the host.
    #[error("interface {ifname} already exists in {place} and is not netd's")]
    InterfaceExists {
        /// The name.
        ifname: IfName,
        /// "the sandbox" or "the host".
        place: &'static str,
    },
    /// A Linux bridge takes 1,023 ports (BR_MAX_PORTS).
    #[error(
        "bridge {bridge} is full: it takes 1023 ports; use another network, or one with driver \"routed\""
    )]
    BridgeFull {
        /// The bridge.
        bridge: IfName,
    },
    /// A host port that another endpoint holds.
    #[error("host port {port} is already mapped to another endpoint")]
    PortTaken {
        /// The port.
        port: HostPort,
    },
    /// The kernel refused an operation.
    #[error("{operation}: {errno}")]
    Kernel {
        /// What was asked for, with the object's name.
        operation: String,
        /// The kernel's answer, with its extended acknowledgement if it gave one.
        errno: String,
    },
    /// This kernel lacks what is needed.
    #[error("this kernel can't do it: {what}; {hint}")]
    Unsupported {
        /// The feature.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The system is short of descriptors or memory. It says nothing about what was asked
    /// for: the same request may succeed later.
    #[error(
        "{what}: {reason}; the system is short of it at the moment, try again (LimitNOFILE= of netd.service, fs.file-max)"
    )]
    Exhausted {
        /// What was being done.
        what: String,
        /// The system's word.
        reason: String,
    },
    /// A thread did not finish in time: the kernel does not answer it, or a program hangs.
    /// What was asked for may still take effect, before anything that is asked for later.
    #[error(
        "the thread {thread} did not finish within {waited:?}: the kernel or a program that it \
         waits for hangs; try again, and see `netd status`"
    )]
    Busy {
        /// The thread's name.
        thread: &'static str,
        /// How long it was waited for.
        waited: std::time::Duration,
    },
    /// A helper program or a file.
    #[error("{what}: {reason}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        reason: String,
    },
}

/// Says what was being done when the system refused it.
pub(crate) fn failed(what: impl fmt::Display) -> impl FnOnce(io::Error) -> DataplaneError {
    move |e| {
        let (what, reason) = (what.to_string(), e.to_string());
        match e.raw_os_error().is_some_and(is_exhausted) {
            true => DataplaneError::Exhausted { what, reason },
            false => DataplaneError::Io { what, reason },
        }
    }
}

/// Whether an errno says that the system is short of something, and nothing else.
pub(crate) fn is_exhausted(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
}

/// An operation that the kernel refused.
pub(crate) fn refused(operation: impl fmt::Display, refusal: &Refusal) -> DataplaneError {
    let (what, reason) = (operation.to_string(), refusal.to_string());
    match is_exhausted(refusal.errno) {
        true => DataplaneError::Exhausted { what, reason },
        false => DataplaneError::Kernel { operation: what, errno: reason },
    }
}
