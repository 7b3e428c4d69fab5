//! Finds rules of other programs that stop pods' packets. In nftables a drop in any table is
//! final, so netd's own rules can't undo it. A pod's packets are sent through every base chain
//! that they pass (see [`rules`]): a policy is one way to stop them, a last rule that rejects
//! what no rule before it accepted is another.

mod legacy;
mod nft;
mod packet;
mod probe;
mod rules;

use serde_json::Value;

use super::finding::Finding;
use crate::exec::{ExecError, output};
use netd_domain::Network;
use probe::{Probe, probes};
use rules::{Fate, Table};

const CHECK: &str = "firewall";
const OWN_TABLE: &str = "netd";

/// The rules of all programs on this host.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    tables: Vec<Table>,
    /// Why a part of them could not be read.
    unread: Option<String>,
}

/// Reads the rules; `networks` tells which of them are about netd's pods.
pub(super) fn read(networks: &[Network]) -> Ruleset {
    let names_pods = |text: &str| names_pods(text, networks);
    let mut ruleset = Ruleset::default();
    match output("nft", &["-j", "list", "ruleset"], "") {
        Ok(json) => match serde_json::from_str::<Value>(&json) {
            Ok(json) => ruleset.tables = nft::tables(&json, &names_pods),
            Err(e) => ruleset.unread = Some(format!("nft's answer is no JSON: {e}")),
        },
        // The check "kernel" reports a missing nft.
        Err(ExecError::Missing) => {}
        Err(ExecError::Failed(reason)) => ruleset.unread = Some(reason),
    }
    ruleset.tables.extend(legacy::tables(&names_pods));
    ruleset
}

impl Ruleset {
    /// Whether kube-proxy's rules are among them, in its modes iptables and nftables.
    pub(super) fn has_kube_proxy(&self) -> bool {
        self.tables.iter().any(|table| {
            table.place.ends_with(" kube-proxy") || table.chains.contains_key("KUBE-SERVICES")
        })
    }
}

pub(super) fn judge(ruleset: &Ruleset, networks: &[Network], uplink: Option<&str>) -> Vec<Finding> {
    let mut found: Vec<_> = ruleset.unread.iter().map(|reason| unread(reason)).collect();
    let probes = probes(networks, uplink);
    let foreign =
        ruleset.tables.iter().filter(|table| !table.place.ends_with(&format!(" {OWN_TABLE}")));
    for table in foreign {
        let mut names: Vec<_> = table.chains.keys().collect();
        names.sort();
        found.extend(names.into_iter().filter_map(|name| judge_chain(table, name, &probes)));
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "no other firewall stops the traffic of pods"));
    }
    found
}

/// What a base chain stops; the finding is as severe as the most important part of it.
fn judge_chain(table: &Table, name: &str, probes: &[Probe]) -> Option<Finding> {
    let hook = table.chains.get(name)?.hook?;
    let mut stopped: Vec<(&Probe, &str, bool)> = vec![];
    for probe in probes.iter().filter(|probe| probe.passes(hook, &table.family)) {
        let (how, doubtful) = match table.fate(name, &probe.packet) {
            Fate::Passes => continue,
            Fate::Stopped(how) => (how, false),
            Fate::Doubtful(how) => (how, true),
        };
        // One finding for both families.
        if !stopped.iter().any(|(other, ..)| other.what == probe.what) {
            stopped.push((probe, how, doubtful));
        }
    }
    let (_, how, _) = stopped.first()?;
    let place = format!("chain {name} of {}", table.place);
    if stopped.iter().all(|(.., doubtful)| *doubtful) {
        let what = format!("{place} drops or rejects {how}, but has rules for netd's pods");
        return Some(
            Finding::warn(CHECK, what)
                .breaks("nothing, if those rules accept both directions")
                .fix("see that both directions and all pools are accepted there"),
        );
    }
    let certain: Vec<_> = stopped.iter().filter(|(.., doubtful)| !doubtful).collect();
    let whats: Vec<_> = certain.iter().map(|(probe, ..)| probe.what).collect();
    let what = format!("{place} drops or rejects {how} {}", whats.join(", and "));
    let finding = match certain.iter().any(|(probe, ..)| probe.is_vital) {
        true => Finding::fail(CHECK, what),
        false => Finding::warn(CHECK, what),
    };
    Some(
        finding
            .breaks(
                "that traffic, unless a rule there accepts it: a drop in one table is final \
                 whatever netd's table says",
            )
            .fix(
                "accept traffic of the pools' subnets and netd's devices there, before the rule \
                 that stops it (firewalld: put them into the zone \"trusted\")",
            ),
    )
}

fn unread(reason: &str) -> Finding {
    Finding::warn(CHECK, format!("the nftables rules can't be read: {reason}"))
        .breaks("nothing by itself: it is not known whether another firewall is in the way")
        .fix("run netd doctor as root")
}

/// The device of the IPv4 default route.
pub(super) fn uplink() -> Option<String> {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    routes.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let device = fields.next()?;
        (fields.next()? == "00000000").then(|| device.to_owned())
    })
}

/// Whether a rule's text names a pool, a bridge or the devices of endpoints.
fn names_pods(text: &str, networks: &[Network]) -> bool {
    let words = |c: char| !c.is_ascii_alphanumeric() && !".:*-_+".contains(c);
    text.split(words).any(|word| {
        word == "nd*"
            || word == "nd+"
            || networks.iter().any(|n| {
                n.bridge.as_str() == word
                    || n.pools.iter().any(|p| p.subnet.addr().to_string() == word)
            })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::{default_networks, finding::Severity};

    fn of(json: &Value) -> Vec<Finding> {
        let networks = default_networks();
        let tables = nft::tables(json, &|text| names_pods(text, &networks));
        judge(&Ruleset { tables, unread: None }, &networks, Some("eth0"))
    }

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
        let nothing = json!([]);
        let found = of(&ruleset("filter", "drop", nothing.clone()));
        assert_eq!(found[0].severity, Severity::Fail);
        assert!(found[0].what.contains("FORWARD of table ip filter"), "{found:?}");
        assert_eq!(of(&ruleset("filter", "accept", nothing.clone()))[0].severity, Severity::Ok);
        assert_eq!(of(&ruleset("netd", "drop", nothing))[0].severity, Severity::Ok);
        let through = json!([{ "match": { "right": "cni0" } }, { "accept": null }]);
        assert_eq!(of(&ruleset("filter", "drop", through))[0].severity, Severity::Warn);
    }

    #[test]
    fn junk_is_no_rule() {
        for junk in [json!(null), json!({ "nftables": 5 }), json!({ "nftables": [1, {}] })] {
            assert_eq!(of(&junk)[0].severity, Severity::Ok);
        }
    }

    fn chain(name: &str, hook: &str) -> Value {
        json!({ "chain": { "family": "inet", "table": "firewalld", "name": name, "hook": hook,
                           "policy": "accept" } })
    }

    fn rule(chain: &str, expr: Value) -> Value {
        json!({ "rule": { "family": "inet", "table": "firewalld", "chain": chain, "expr": expr } })
    }

    fn matching(left: Value, right: Value) -> Value {
        json!({ "match": { "op": "==", "left": left, "right": right } })
    }

    /// As firewalld has them: the policies accept, and the last rules reject.
    #[test]
    fn a_last_rule_that_rejects_is_found_at_each_hook() {
        let known = json!({ "set": ["established", "related"] });
        let established = matching(json!({ "ct": { "key": "state" } }), known);
        let reject = json!({ "reject": { "type": "icmpx", "expr": "admin-prohibited" } });
        for (hook, severity) in [("forward", Severity::Fail), ("input", Severity::Warn)] {
            let stops = json!({ "nftables": [
                chain("filter", hook),
                rule("filter", json!([established.clone(), { "accept": null }])),
                rule("filter", json!([{ "jump": { "target": "zones" } }])),
                json!({ "chain": { "family": "inet", "table": "firewalld", "name": "zones" } }),
                rule("filter", json!([reject.clone()])),
            ] });
            let found = of(&stops);
            assert_eq!((found.len(), found[0].severity), (1, severity), "{found:?}");
            // The zone that the bridge is in accepts.
            let mut accepts = stops.clone();
            for key in ["iifname", "oifname"] {
                let zone = matching(json!({ "meta": { "key": key } }), json!("cni0"));
                let rule = rule("zones", json!([zone, { "accept": null }]));
                accepts["nftables"]
                    .as_array_mut()
                    .into_iter()
                    .for_each(|all| all.push(rule.clone()));
            }
            assert_eq!(of(&accepts)[0].severity, Severity::Ok, "{hook}");
        }
    }

    #[test]
    fn rules_that_stop_something_else_are_no_findings() {
        let port = json!({ "payload": { "protocol": "tcp", "field": "dport" } });
        let state = json!({ "ct": { "key": "state" } });
        let source = json!({ "payload": { "protocol": "ip", "field": "saddr" } });
        let ruleset = json!({ "nftables": [
            chain("filter", "forward"),
            rule("filter", json!([matching(state, json!("invalid")), { "drop": null }])),
            rule("filter", json!([matching(port, json!(25)), { "reject": null }])),
            rule("filter", json!([matching(source, json!("@banned")), { "drop": null }])),
        ] });
        assert_eq!(of(&ruleset)[0].severity, Severity::Ok);
    }

    #[test]
    fn kube_proxy_is_known_by_its_chains_and_table() {
        let has = |table: &str, chain: &str| {
            let json = json!({ "nftables": [
                { "chain": { "family": "ip", "table": table, "name": chain } } ] });
            Ruleset { tables: nft::tables(&json, &|_| false), unread: None }.has_kube_proxy()
        };
        assert!(has("nat", "KUBE-SERVICES") && has("kube-proxy", "services"));
        assert!(!has("filter", "KUBE-FIREWALL") && !has("nat", "DOCKER"));
    }
}
