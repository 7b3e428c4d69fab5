//! Names of devices on the host: netd's own, and Docker's bridge.

use netd_domain::IfName;

/// Prefix of the host sides' names; 12 hex digits follow.
const HOST: &str = "nd";
/// Prefix of the devices that limit what a pod sends; the same digits follow.
const IFB: &str = "ni";
/// Docker's own bridge, from whose subnet dockerd gives out addresses by itself.
pub const DOCKER0: &str = "docker0";

/// The name of the device that limits what the pod behind `host` sends.
pub(crate) fn ifb_name(host: &IfName) -> IfName {
    swap(host.as_str(), HOST, IFB).unwrap_or_else(|| host.clone())
}

/// The host side's name that belongs to such a device.
pub(crate) fn host_name(ifb: &str) -> Option<IfName> {
    swap(ifb, IFB, HOST).filter(is_host_name)
}

/// Whether the name is one that netd gives to host sides.
pub(crate) fn is_host_name(name: &IfName) -> bool {
    name.as_str().starts_with(HOST) && name.is_endpoint_device()
}

fn swap(name: &str, from: &str, to: &str) -> Option<IfName> {
    format!("{to}{}", name.strip_prefix(from)?).parse().ok()
}
