//! What came of a request.

use std::fmt;

use crate::{DataplaneError, Repair};
use netd_domain::{
    IfName,
    overlay::{Hop, OverlayObject},
};

/// What was done, and what could not be.
#[derive(Debug, Default)]
pub struct OverlayReport {
    /// One for each thing that was not as it had to be, and now is. After a start or a
    /// change of many peers there are as many: don't log each.
    pub repairs: Vec<Repair>,
    /// What the kernel refused, one by one. Everything else is as wanted.
    pub refused: Vec<(OverlaySubject, DataplaneError)>,
}

/// What a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OverlaySubject {
    /// A device, by name. What it was asked for may be there in part.
    Device(IfName),
    /// An object that is wanted.
    Object(OverlayObject),
    /// A WireGuard peer, by device and public key.
    Peer(IfName, [u8; 32]),
    /// Something that should be gone, in words.
    Leftover(String),
}

impl fmt::Display for OverlaySubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "device {name}"),
            Self::Object(object) => describe(object, f),
            Self::Peer(name, key) => {
                use base64::Engine as _;
                let key = base64::engine::general_purpose::STANDARD.encode(key);
                write!(f, "peer {key} on {name}")
            }
            Self::Leftover(what) => f.write_str(what),
        }
    }
}

fn describe(object: &OverlayObject, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match object {
        OverlayObject::Neighbour { device, ip, mac } => {
            write!(f, "neighbour {ip} at {mac} on {device}")
        }
        OverlayObject::Fdb { device, mac, remote } => {
            write!(f, "forwarding entry {mac} to {remote} on {device}")
        }
        OverlayObject::Route(route) => {
            write!(f, "route to {}", route.destination)?;
            match &route.hop {
                Hop::Device(device) => write!(f, " on {device}"),
                Hop::Via { gateway, device, .. } => write!(f, " via {gateway} on {device}"),
                Hop::Blackhole => f.write_str(" (blackhole)"),
            }
        }
    }
}
