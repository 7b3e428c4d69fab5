//! Checks sysctls: those that netd needs and cannot set, and those that harm pods.

use std::path::Path;

use super::finding::Finding;
use netd_domain::{Driver, Network};

const CHECK: &str = "sysctls";

/// The values; `None`: this kernel does not have the sysctl.
#[derive(Debug, Default)]
struct Sysctls {
    forward_v4: Option<String>,
    forward_v6: Option<String>,
    ipv6_disabled: Option<String>,
    bridge_calls_iptables: Option<String>,
    route_localnet: Option<String>,
    writable: bool,
    netd_runs: bool,
}

pub(super) fn check(networks: &[Network], netd_runs: bool) -> Vec<Finding> {
    let read = |name: &str| {
        let value = std::fs::read_to_string(Path::new("/proc/sys/net").join(name));
        value.ok().map(|v| v.trim().to_owned())
    };
    let writable = std::fs::OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_forward");
    let facts = Sysctls {
        forward_v4: read("ipv4/ip_forward"),
        forward_v6: read("ipv6/conf/all/forwarding"),
        ipv6_disabled: read("ipv6/conf/all/disable_ipv6"),
        bridge_calls_iptables: read("bridge/bridge-nf-call-iptables"),
        route_localnet: read("ipv4/conf/all/route_localnet"),
        writable: writable.is_ok(),
        netd_runs,
    };
    judge(&facts, networks)
}

fn judge(facts: &Sysctls, networks: &[Network]) -> Vec<Finding> {
    let v6 = networks.iter().any(|n| n.pools.iter().any(|p| !p.is_v4()));
    let v4 = networks.iter().any(|n| n.pools.iter().any(|p| p.is_v4()));
    let bridged = networks.iter().any(|n| n.driver == Driver::Bridge);
    let mut found = vec![];
    if v4 {
        found.extend(forwarding("net.ipv4.ip_forward", &facts.forward_v4, facts));
    }
    if v6 {
        found.extend(forwarding("net.ipv6.conf.all.forwarding", &facts.forward_v6, facts));
        found.extend(ipv6_off(facts));
    }
    if bridged && facts.bridge_calls_iptables.as_deref() == Some("1") {
        found.push(
            Finding::warn(CHECK, "net.bridge.bridge-nf-call-iptables = 1")
                .breaks("traffic between pods on one bridge passes the host's iptables rules: a forward policy of drop stops it, and each packet costs more")
                .fix("kube-proxy in iptables mode needs it; else: sysctl -w net.bridge.bridge-nf-call-iptables=0"),
        );
    }
    if facts.route_localnet.as_deref() == Some("1") {
        found.push(
            Finding::warn(CHECK, "net.ipv4.conf.all.route_localnet = 1")
                .breaks("nothing, but neighbours on the network may reach services that listen on 127.0.0.1 only")
                .fix("unless something else needs it: sysctl -w net.ipv4.conf.all.route_localnet=0"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "forwarding is on"));
    }
    found
}

fn forwarding(name: &str, value: &Option<String>, facts: &Sysctls) -> Option<Finding> {
    if value.as_deref().is_some_and(|v| v != "0") {
        return None;
    }
    let breaks = "pods reach nothing beyond their own network";
    let Some(_) = value else {
        return Some(
            Finding::fail(CHECK, format!("there is no {name}"))
                .breaks(breaks)
                .fix("use a kernel with this address family, or configure no pool of it"),
        );
    };
    let fix = format!("sysctl -w {name}=1, and put it into /etc/sysctl.d/");
    Some(match (facts.netd_runs, facts.writable) {
        (false, true) => Finding::warn(CHECK, format!("{name} = 0; netd sets it when it starts"))
            .breaks(format!("until netd runs, {breaks}"))
            .fix(fix),
        (false, false) => Finding::fail(CHECK, format!("{name} = 0, and can't be set from here"))
            .breaks(breaks)
            .fix(format!("as root, on the host: {fix}")),
        (true, _) => Finding::fail(CHECK, format!("{name} = 0 although netd runs"))
            .breaks(breaks)
            .fix(format!("{fix}; find out which program switches it off")),
    })
}

fn ipv6_off(facts: &Sysctls) -> Option<Finding> {
    (facts.ipv6_disabled.as_deref() == Some("1")).then(|| {
        Finding::warn(CHECK, "net.ipv6.conf.all.disable_ipv6 = 1")
            .breaks("IPv6 pools: bridges get no IPv6 address")
            .fix("sysctl -w net.ipv6.conf.all.disable_ipv6=0, or configure IPv4 pools only")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::doctor::{default_networks, finding::Severity};

    fn facts(v4: &str, v6: &str) -> Sysctls {
        Sysctls {
            forward_v4: Some(v4.into()),
            forward_v6: Some(v6.into()),
            writable: true,
            ..Default::default()
        }
    }

    #[test]
    fn forwarding_is_needed_for_the_families_there_are() {
        let networks = default_networks();
        assert_eq!(judge(&facts("1", "1"), &networks)[0].severity, Severity::Ok);
        assert_eq!(judge(&facts("0", "0"), &networks).len(), 2);
        let mut v4_only = networks.clone();
        v4_only[0].pools.truncate(1);
        assert_eq!(judge(&facts("1", "0"), &v4_only)[0].severity, Severity::Ok);
    }

    #[test]
    fn forwarding_off_is_worse_when_netd_could_not_or_did_not_keep_it_on() {
        let networks = default_networks();
        assert_eq!(judge(&facts("0", "1"), &networks)[0].severity, Severity::Warn);
        let running = Sysctls { netd_runs: true, ..facts("0", "1") };
        assert_eq!(judge(&running, &networks)[0].severity, Severity::Fail);
        let stuck = Sysctls { writable: false, ..facts("0", "1") };
        assert_eq!(judge(&stuck, &networks)[0].severity, Severity::Fail);
        let absent = Sysctls { forward_v6: None, ..facts("1", "1") };
        assert!(judge(&absent, &networks)[0].what.contains("there is no net.ipv6"));
    }

    #[test]
    fn bridge_traffic_through_iptables_is_named() {
        let f = Sysctls { bridge_calls_iptables: Some("1".into()), ..facts("1", "1") };
        assert!(judge(&f, &default_networks())[0].what.contains("bridge-nf-call"));
    }
}
