//! Checks sysctls: those that netd needs and cannot set, and those that harm pods.

use super::finding::Finding;
use netd_dataplane::net_settings;
use netd_domain::{Driver, IfName, Network};

const CHECK: &str = "sysctls";

/// The values; `None`: this kernel does not have the sysctl.
#[derive(Debug, Default)]
struct Sysctls {
    forward_v4: Option<String>,
    forward_v6: Option<String>,
    ipv6_disabled: Option<String>,
    bridge_calls_iptables: Option<String>,
    bridge_calls_ip6tables: Option<String>,
    route_localnet: Option<String>,
    writable: bool,
    netd_runs: bool,
    kube_proxy: bool,
}

pub(super) fn check(networks: &[Network], netd_runs: bool, kube_proxy: bool) -> Vec<Finding> {
    let read = |name: &str| {
        let value = std::fs::read_to_string(net_settings().join(name));
        value.ok().map(|v| v.trim().to_owned())
    };
    let forward = net_settings().join("ipv4/ip_forward");
    let writable = std::fs::OpenOptions::new().write(true).open(forward);
    let facts = Sysctls {
        forward_v4: read("ipv4/ip_forward"),
        forward_v6: read("ipv6/conf/all/forwarding"),
        ipv6_disabled: read("ipv6/conf/all/disable_ipv6"),
        bridge_calls_iptables: of_bridges(networks, "nf_call_iptables")
            .or_else(|| read("bridge/bridge-nf-call-iptables")),
        bridge_calls_ip6tables: of_bridges(networks, "nf_call_ip6tables")
            .or_else(|| read("bridge/bridge-nf-call-ip6tables")),
        route_localnet: read("ipv4/conf/all/route_localnet"),
        writable: writable.is_ok(),
        netd_runs,
        kube_proxy,
    };
    judge(&facts, networks)
}

/// "1" where every network's bridge says so itself, as netd sets it in Kubernetes; it has an effect
/// only with br_netfilter.
fn of_bridges(networks: &[Network], name: &str) -> Option<String> {
    let bridged = networks.iter().filter(|network| network.driver == Driver::Bridge);
    let mut bridges = bridged.map(|network| &network.bridge).peekable();
    bridges.peek()?;
    let says = |bridge: &IfName| {
        let path = format!("/sys/class/net/{bridge}/bridge/{name}");
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1")
    };
    let filters = net_settings().join("bridge").exists();
    (filters && bridges.all(says)).then(|| "1".to_owned())
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
    if bridged {
        let families = [
            (v4, "net.bridge.bridge-nf-call-iptables", &facts.bridge_calls_iptables),
            (v6, "net.bridge.bridge-nf-call-ip6tables", &facts.bridge_calls_ip6tables),
        ];
        for (_, name, value) in families.into_iter().filter(|(used, ..)| *used) {
            found.extend(bridge_calls(name, value.as_deref(), facts.kube_proxy));
        }
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

/// kube-proxy translates a ClusterIP's address on the way to the pod, and has to see the answer
/// to translate it back. Between two pods on one bridge the answer is only bridged, and passes
/// its rules, whatever its mode, only with this sysctl.
fn bridge_calls(name: &str, value: Option<&str>, kube_proxy: bool) -> Option<Finding> {
    match (value, kube_proxy) {
        (Some("1"), true) | (Some("0") | None, false) => None,
        (Some("1"), false) => Some(
            Finding::warn(CHECK, format!("{name} = 1"))
                .breaks("traffic between pods on one bridge passes the host's iptables rules: a forward policy of drop stops it, and each packet costs more")
                .fix(format!("leave it if kube-proxy is going to run here, which needs it in every mode; else: sysctl -w {name}=0")),
        ),
        (value, _) => {
            let what = match value {
                Some(value) => format!("{name} = {value}, and kube-proxy runs"),
                None => format!("there is no {name} (br_netfilter is not loaded), and kube-proxy runs"),
            };
            Some(
                Finding::fail(CHECK, what)
                    .breaks("ClusterIPs, DNS too, from a pod to a pod on the same bridge: the answer comes from another address than the one that was asked")
                    .fix(format!("modprobe br_netfilter; sysctl -w {name}=1; and put them into /etc/modules-load.d/ and /etc/sysctl.d/")),
            )
        }
    }
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
    fn kube_proxy_has_to_see_what_is_bridged() {
        let networks = default_networks();
        let sysctls = |v4: Option<&str>, v6: Option<&str>, kube_proxy| Sysctls {
            bridge_calls_iptables: v4.map(str::to_owned),
            bridge_calls_ip6tables: v6.map(str::to_owned),
            kube_proxy,
            ..facts("1", "1")
        };
        for (v4, v6, findings) in [
            (Some("1"), Some("1"), 0),
            (Some("0"), Some("1"), 1),
            (Some("1"), Some("0"), 1),
            (None, None, 2),
        ] {
            let found = judge(&sysctls(v4, v6, true), &networks);
            let failed = found.iter().filter(|f| f.severity == Severity::Fail);
            assert_eq!(failed.count(), findings, "{found:?}");
            assert!(found.iter().all(|f| !f.fix.contains("=0")), "{found:?}");
        }
        let mut routed = networks;
        routed.iter_mut().for_each(|n| n.driver = Driver::Routed);
        assert_eq!(judge(&sysctls(None, None, true), &routed)[0].severity, Severity::Ok);
    }

    #[test]
    fn bridge_traffic_through_iptables_is_named() {
        let f = Sysctls { bridge_calls_iptables: Some("1".into()), ..facts("1", "1") };
        assert!(judge(&f, &default_networks())[0].what.contains("bridge-nf-call"));
    }
}
