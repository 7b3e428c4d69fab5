//! Whether kube-proxy works on this node, in whichever of its modes.

use std::path::Path;

use super::firewall::Ruleset;

/// Made by kube-proxy in its mode ipvs, with all ClusterIPs as its addresses.
const IPVS_DEVICE: &str = "/sys/class/net/kube-ipvs0";

/// Whether its rules or its device are there.
pub(super) fn runs(ruleset: &Ruleset) -> bool {
    ruleset.has_kube_proxy() || Path::new(IPVS_DEVICE).exists()
}
