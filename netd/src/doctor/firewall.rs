//! Finds rules of other programs that drop pods' packets. In nftables a drop in any table
//! is final, so netd's own rules can't undo it.

use serde_json::Value;

use super::finding::Finding;
use crate::exec::{ExecError, output};
use netd_domain::Network;

const CHECK: &str = "firewall";
const OWN_TABLE: &str = "netd";

pub(super) fn check(networks: &[Network]) -> Vec<Finding> {
    let mut found = match output("nft", &["-j", "list", "ruleset"], "") {
        Ok(json) => match serde_json::from_str(&json) {
            Ok(ruleset) => judge(&ruleset, networks),
            Err(e) => vec![unread(&format!("nft's answer is no JSON: {e}"))],
        },
        // The check "kernel" reports a missing nft.
        Err(ExecError::Missing) => vec![],
        Err(ExecError::Failed(reason)) => vec![unread(&reason)],
    };
    found.extend(legacy());
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "no other firewall drops forwarded traffic by policy"));
    }
    found
}

fn unread(reason: &str) -> Finding {
    Finding::warn(CHECK, format!("the nftables rules can't be read: {reason}"))
        .breaks("nothing by itself: it is not known whether another firewall is in the way")
        .fix("run netd doctor as root")
}

fn dropped(place: &str) -> Finding {
    Finding::fail(CHECK, format!("{place} drops forwarded traffic by policy"))
        .breaks("pods' traffic to and from the outside, unless a rule there accepts it: a drop in one table is final whatever netd's table says")
        .fix("set the policy to accept, or accept traffic of the pools' subnets and netd's devices there")
}

/// Other programs' chains at the forward hook whose policy is drop.
fn judge(ruleset: &Value, networks: &[Network]) -> Vec<Finding> {
    let objects = ruleset.get("nftables").and_then(Value::as_array);
    let objects = objects.map(Vec::as_slice).unwrap_or_default();
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut found = vec![];
    for chain in objects.iter().filter_map(|o| o.get("chain")) {
        let (family, table) = (text(chain, "family"), text(chain, "table"));
        let stops = text(chain, "hook") == "forward" && text(chain, "policy") == "drop";
        if !stops || table == OWN_TABLE {
            continue;
        }
        let place = format!("chain {} of table {family} {table}", text(chain, "name"));
        let rules = objects.iter().filter_map(|o| o.get("rule"));
        let mut same = rules.filter(|r| text(r, "table") == table && text(r, "family") == family);
        if same.any(|rule| lets_pods_through(rule, networks)) {
            let what = format!("{place} drops by policy, but has rules for netd's pods");
            found.push(
                Finding::warn(CHECK, what)
                    .breaks("nothing, if those rules accept both directions")
                    .fix("see that both directions and all pools are accepted there"),
            );
        } else {
            found.push(dropped(&place));
        }
    }
    found
}

/// Whether the rule accepts and names a pool, a bridge or the devices of endpoints.
fn lets_pods_through(rule: &Value, networks: &[Network]) -> bool {
    let Some(body) = rule.get("expr").map(Value::to_string) else { return false };
    let named = networks.iter().any(|n| {
        let subnet = |p: &netd_domain::Pool| body.contains(&format!("\"{}\"", p.subnet.addr()));
        body.contains(&format!("\"{}\"", n.bridge)) || n.pools.iter().any(subnet)
    });
    body.contains("\"accept\"") && (named || body.contains("\"nd*\""))
}

/// Rules of the legacy iptables, which `nft` does not show. It is run only if the kernel
/// has its table already, because listing the rules would create the table.
fn legacy() -> Vec<Finding> {
    let families = [
        ("/proc/net/ip_tables_names", "iptables-legacy"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy"),
    ];
    let used = families.iter().filter(|(names, _)| {
        let text = std::fs::read_to_string(names).unwrap_or_default();
        text.lines().any(|table| table == "filter")
    });
    used.filter_map(|(_, program)| {
        let rules = output(program, &["-w", "5", "-S", "FORWARD"], "").ok()?;
        legacy_drops(&rules).then(|| dropped(&format!("chain FORWARD of {program}")))
    })
    .collect()
}

fn legacy_drops(rules: &str) -> bool {
    rules.lines().any(|line| line.trim() == "-P FORWARD DROP")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::{default_networks, finding::Severity};

    fn ruleset(table: &str, policy: &str, rule: Value) -> Value {
        json!({ "nftables": [
            { "metainfo": { "version": "1.0.6" } },
            { "chain": { "family": "ip", "table": table, "name": "FORWARD", "hook": "forward", "policy": policy } },
            { "chain": { "family": "ip", "table": table, "name": "other" } },
            { "rule": { "family": "ip", "table": table, "chain": "FORWARD", "expr": rule } },
        ] })
    }

    #[test]
    fn a_foreign_drop_policy_fails_unless_it_knows_the_pods() {
        let networks = default_networks();
        let nothing = json!([]);
        let found = judge(&ruleset("filter", "drop", nothing.clone()), &networks);
        assert_eq!(found[0].severity, Severity::Fail);
        assert!(found[0].what.contains("FORWARD of table ip filter"), "{found:?}");
        assert!(judge(&ruleset("filter", "accept", nothing.clone()), &networks).is_empty());
        assert!(judge(&ruleset("netd", "drop", nothing), &networks).is_empty());
        let through = json!([{ "match": { "right": "cni0" } }, { "accept": null }]);
        let found = judge(&ruleset("filter", "drop", through), &networks);
        assert_eq!(found[0].severity, Severity::Warn);
    }

    #[test]
    fn junk_is_no_rule() {
        for junk in [json!(null), json!({ "nftables": 5 }), json!({ "nftables": [1, {}] })] {
            assert!(judge(&junk, &[]).is_empty());
        }
    }

    #[test]
    fn the_older_iptables_policy_is_read() {
        assert!(legacy_drops("-P FORWARD DROP\n-A FORWARD -j X\n"));
        assert!(!legacy_drops("-P FORWARD ACCEPT\n-A FORWARD -j DROP\n"));
    }
}
