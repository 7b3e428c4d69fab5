//! Networks that the host itself is in, or has routes to. Pure.

use ipnet::IpNet;

use crate::network::overlap;

/// A network that the host is in or leads to, by a device that is not netd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNetwork {
    /// An address with its prefix, or a route's destination.
    pub net: IpNet,
    /// The device.
    pub device: String,
    /// Whether a gateway leads there: the host itself is not in it.
    pub routed: bool,
}

impl HostNetwork {
    /// Whether a pool of this subnet would cut the host off: the host is in it, or it is a part
    /// of a network that the host is in.
    pub fn is_cut_off_by(&self, subnet: &IpNet) -> bool {
        !self.routed && self.net.prefix_len() > 0 && overlap(&self.net.trunc(), subnet)
    }

    /// Whether a pool that is chosen automatically must not be this subnet. A broader route
    /// that merely leads through, such as 10.0.0.0/8, is no reason.
    pub fn is_reason_against(&self, subnet: &IpNet) -> bool {
        self.is_cut_off_by(subnet) || (self.routed && subnet.contains(&self.net.trunc()))
    }
}

impl std::fmt::Display for HostNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.routed { "route" } else { "network" };
        write!(f, "the host's {what} {} on {}", self.net, self.device)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn known(net: &str, routed: bool) -> HostNetwork {
        HostNetwork { net: net.parse().unwrap(), device: "eth0".into(), routed }
    }

    #[test]
    fn what_cuts_the_host_off_and_what_merely_leads_through() {
        let pool = "10.5.7.0/24".parse().unwrap();
        let cuts = |net| known(net, false).is_cut_off_by(&pool);
        assert!(cuts("10.5.7.9/24") && cuts("10.5.0.1/16") && cuts("10.5.7.200/28"));
        assert!(cuts("10.5.7.9/32"), "an address of a point-to-point link");
        assert!(!cuts("10.5.8.1/24") && !cuts("0.0.0.0/0") && !cuts("fd00::1/64"));
        let routed = |net| known(net, true);
        for through in ["10.0.0.0/8", "0.0.0.0/0", "10.5.0.0/16"] {
            assert!(!routed(through).is_cut_off_by(&pool), "{through}");
            assert!(!routed(through).is_reason_against(&pool), "{through}");
        }
        for inside in ["10.5.7.0/24", "10.5.7.128/25", "10.5.7.3/32"] {
            assert!(!routed(inside).is_cut_off_by(&pool), "{inside}");
            assert!(routed(inside).is_reason_against(&pool), "{inside}");
        }
        let v6 = "fd00:5::/64".parse().unwrap();
        assert!(known("fd00:5::2/48", false).is_reason_against(&v6));
    }
}
