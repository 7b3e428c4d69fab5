//! A host firewall that drops forwarded packets. In nftables a drop is final, in
//! whichever table: netd can't undo it, so it has to say it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::{case, net::probe, paths, wait};

use crate::node::Node;

const STRICT: &str = "nft 'add table inet strict
    add chain inet strict passing { type filter hook forward priority 0; policy drop; }'";

impl Node {
    /// What doctor finds about firewalls: (severity, what, all of it), and whether it
    /// ended with success.
    fn firewall_findings(&self) -> Result<(Vec<(String, String)>, bool)> {
        let output = self
            .host
            .net
            .command(paths::built("netd")?)
            .args(["doctor", "-o", "json", "--containerd", "/bin/false"])
            .arg("--containerd-config")
            .arg(self.host.directory().join("none.toml"))
            .env("NETD_CONFIG", self.host.directory().join("netd/netd.toml"))
            .env("NETD_SOCKET", self.netd.socket())
            .output()?;
        let json: Value = serde_json::from_slice(&output.stdout)?;
        let all = json["findings"].as_array().context("no findings")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let firewall = all.iter().filter(|finding| finding["check"] == "firewall");
        let found = firewall.map(|finding| (text(&finding["severity"]), finding.to_string()));
        Ok((found.collect(), output.status.success()))
    }
}

#[test]
fn doctor_names_a_chain_that_drops_what_netd_accepts() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let outside = bed.host("outside")?;
        let one = node.attached("one")?;
        let (found, _) = node.firewall_findings()?;
        ensure!(found.iter().all(|(severity, _)| severity == "ok"), "{found:?}");
        let capabilities = node.netd.status()?.capabilities;
        let available =
            capabilities.iter().any(|found| found.name == "forwarding" && found.available);
        ensure!(available, "{capabilities:?}");

        node.host.net.sh(STRICT)?;
        ensure!(probe::ping(&one.net, outside.v4.into()).is_err(), "a drop elsewhere is final");
        // What is for the host itself is not forwarded.
        probe::ping(&one.net, node.host.v4.into())?;
        let (found, success) = node.firewall_findings()?;
        let named = found.iter().any(|(severity, text)| {
            severity == "fail" && text.contains("passing") && text.contains("inet strict")
        });
        ensure!(named && !success, "{found:?}");
        // New pods come up all the same: the rules are the administrator's.
        node.attached("three")?;
        let status = node.netd.status()?;
        let forwarding = status.capabilities.iter().find(|found| found.name == "forwarding");
        let forwarding = forwarding.context("status says nothing about forwarding")?;
        ensure!(!forwarding.available && forwarding.detail.contains("passing"), "{forwarding:?}");
        ensure!(status.ready, "{:?}", status.components);

        // The remedy that doctor gives.
        node.host.net.sh("nft add rule inet strict passing iifname cni0 accept
             nft add rule inet strict passing oifname cni0 accept")?;
        probe::ping(&one.net, outside.v4.into())?;
        let (found, _) = node.firewall_findings()?;
        ensure!(found.iter().all(|(severity, _)| severity != "fail"), "{found:?}");
        Ok(())
    })
}

#[test]
fn routed_pods_behind_a_dropping_firewall_are_named_too() -> Result<()> {
    case(|bed| {
        let node = Node::start_with(bed, &testbed::DaemonConfig::with_driver("routed"))?;
        let (one, two) = (node.attached("one")?, node.attached("two")?);
        node.host.net.sh(STRICT)?;
        ensure!(probe::ping(&one.net, two.v4()?).is_err(), "routed pods are forwarded");
        let (found, success) = node.firewall_findings()?;
        ensure!(!success && found.iter().any(|(_, text)| text.contains("strict")), "{found:?}");
        node.host.net.sh("nft add rule inet strict passing iifname 'nd*' accept
             nft add rule inet strict passing oifname 'nd*' accept")?;
        probe::ping(&one.net, two.v4()?)?;
        Ok(())
    })
}

/// As firewalld ends its chains: the policy accepts, and what no zone has accepted is rejected.
#[test]
fn doctor_names_a_chain_that_stops_pods_at_any_hook_by_its_rules() -> Result<()> {
    const OUTSIDE: &str = "the outside";
    const NODE: &str = "the node";
    const POD: &str = "a pod";
    /// The chain's table, hook, last rule; how severe; and what can't be reached then.
    const CASES: [(&str, &str, &str, &str, &str); 6] = [
        ("inet", "forward", "reject with icmpx admin-prohibited", "fail", OUTSIDE),
        ("inet", "forward", "jump zones", "fail", OUTSIDE),
        ("ip", "prerouting", "iifname cni0 drop", "fail", OUTSIDE),
        ("ip", "postrouting", "oifname eth0 ct state { new, untracked } drop", "fail", OUTSIDE),
        ("inet", "input", "reject", "warn", NODE),
        ("bridge", "forward", "drop", "fail", POD),
    ];
    case(|bed| {
        let node = Node::start(bed)?;
        let outside = bed.host("outside")?;
        let (one, two) = (node.attached("one")?, node.attached("two")?);
        for (family, hook, rule, severity, lost) in CASES {
            let known = if family == "bridge" { "" } else { "ct state established accept;" };
            let priority = if hook == "postrouting" { "srcnat - 5" } else { "filter + 10" };
            node.host.net.sh(&format!(
                "nft 'add table {family} strict
                 add chain {family} strict zones
                 add chain {family} strict last {{
                     type filter hook {hook} priority {priority}; policy accept; }}
                 add rule {family} strict zones iifname lo accept
                 add rule {family} strict zones drop'
                 nft 'add rule {family} strict last meta mark 0x123 drop'
                 for rule in \"{known}\" \"{rule}\"; do
                     rule=${{rule%;}}
                     [ -z \"$rule\" ] || nft add rule {family} strict last $rule
                 done"
            ))?;
            let to = match lost {
                OUTSIDE => outside.v4.into(),
                NODE => node.host.v4.into(),
                _ => two.v4()?,
            };
            let case = format!("{family} {hook} {rule}");
            ensure!(probe::ping(&one.net, to).is_err(), "{case}: it stops nothing");
            let (found, success) = node.firewall_findings()?;
            let named = found.iter().any(|(found, text)| {
                found == severity && text.contains("chain last") && text.contains("strict")
            });
            ensure!(named && (severity == "warn" || !success), "{case}: {found:?}");
            node.host.net.sh(&format!("nft delete table {family} strict"))?;
            // The neighbour that was out of reach is asked for again.
            wait::until(Duration::from_secs(10), &case, || probe::ping(&one.net, to))?;
            let (found, _) = node.firewall_findings()?;
            ensure!(found.iter().all(|(severity, _)| severity == "ok"), "{case}: {found:?}");
        }
        Ok(())
    })
}
