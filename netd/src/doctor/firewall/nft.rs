//! nftables' rules, from what `nft -j list ruleset` prints (libnftables-json(5)).

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::{
    packet::Condition,
    rules::{Hook, Rule, Table, Verdict},
};

/// All tables; `names_pods` says whether a rule's text names netd's pods.
pub(super) fn tables(ruleset: &Value, names_pods: &dyn Fn(&str) -> bool) -> Vec<Table> {
    let objects = ruleset.get("nftables").and_then(Value::as_array);
    let objects = objects.map(Vec::as_slice).unwrap_or_default();
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
    for object in objects {
        let (chain, rule) = (object.get("chain"), object.get("rule"));
        let Some(inner) = chain.or(rule) else { continue };
        let (family, name) = (text(inner, "family"), text(inner, "table"));
        let place = format!("table {family} {name}");
        let new = || Table { place, family: family.clone(), ..Table::default() };
        let table = tables.entry((family.clone(), name)).or_insert_with(new);
        let name = text(inner, if rule.is_some() { "chain" } else { "name" });
        let found = table.chains.entry(name).or_default();
        if rule.is_some() {
            let expressions = inner.get("expr").and_then(Value::as_array);
            let named = names_pods(&inner.to_string());
            found.rules.extend(rules(expressions.map(Vec::as_slice).unwrap_or_default(), named));
        } else {
            found.hook = hook(&text(inner, "hook"));
            found.stops_by_policy = text(inner, "policy") == "drop";
        }
    }
    tables.into_values().collect()
}

pub(super) fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn hook(name: &str) -> Option<Hook> {
    match name {
        "prerouting" => Some(Hook::Prerouting),
        "forward" => Some(Hook::Forward),
        "input" => Some(Hook::Input),
        "postrouting" => Some(Hook::Postrouting),
        _ => None,
    }
}

/// A rule for each verdict that it can give: a verdict map has several.
fn rules(expressions: &[Value], names_pods: bool) -> Vec<Rule> {
    let mut conditions = vec![];
    let mut found = vec![];
    for expression in expressions {
        if let Some(matched) = expression.get("match") {
            let right = matched.get("right").unwrap_or(&Value::Null);
            let left = matched.get("left").unwrap_or(&Value::Null);
            let condition = condition(left, right);
            conditions.push(match text(matched, "op").as_str() {
                "!=" => Condition::Not(Box::new(condition)),
                "==" | "in" | "" => condition,
                _ => Condition::Unknown,
            });
        } else if let Some(verdict) = verdict(expression) {
            found.push(Rule { conditions: conditions.clone(), verdict, names_pods });
        } else if let Some(map) = expression.get("vmap") {
            let key = map.get("key").unwrap_or(&Value::Null);
            let entries = map.pointer("/data/set").and_then(Value::as_array);
            for entry in entries.into_iter().flatten() {
                let (Some(value), Some(verdict)) = (entry.get(0), entry.get(1).and_then(verdict))
                else {
                    continue;
                };
                let mut conditions = conditions.clone();
                conditions.push(condition(key, value));
                found.push(Rule { conditions, verdict, names_pods });
            }
        } else if expression.get("limit").is_some() || is_match_of_xtables(expression) {
            conditions.push(Condition::Unknown);
        }
    }
    found
}

/// Of a rule that iptables made, and nft can't translate.
fn is_match_of_xtables(expression: &Value) -> bool {
    expression.get("xt").is_some_and(|xt| text(xt, "name") != "comment")
}

fn verdict(expression: &Value) -> Option<Verdict> {
    let object = expression.as_object()?;
    let target = |v: &Value| text(v, "target");
    object.iter().find_map(|(kind, value)| match kind.as_str() {
        "accept" => Some(Verdict::Accept),
        "drop" | "reject" => Some(Verdict::Stop),
        "return" => Some(Verdict::Return),
        "jump" => Some(Verdict::Jump(target(value))),
        "goto" => Some(Verdict::Goto(target(value))),
        "xt" if text(value, "type") == "target" => {
            ["REJECT", "DROP"].contains(&text(value, "name").as_str()).then_some(Verdict::Stop)
        }
        _ => None,
    })
}

fn condition(left: &Value, right: &Value) -> Condition {
    // A mark is looked at through a mask: {"&": [{"meta": {"key": "mark"}}, 16384]}.
    let masked = left.get("&").and_then(|both| both.get(0)).unwrap_or(left);
    let key = |of: &str| masked.get(of).map(|inner| text(inner, "key")).unwrap_or_default();
    let known = match (key("meta").as_str(), key("ct").as_str()) {
        ("iifname" | "iif", _) => words(right).map(Condition::Input),
        ("oifname" | "oif", _) => words(right).map(Condition::Output),
        ("nfproto", _) => words(right).map(|w| Condition::V6(w.iter().any(|w| w == "ipv6"))),
        ("protocol", _) => words(right).map(|w| Condition::V6(w.iter().any(|w| w == "ip6"))),
        ("mark", _) | (_, "mark") => right.as_u64().map(|mark| match mark {
            0 => Condition::Not(Box::new(Condition::Never)),
            _ => Condition::Never,
        }),
        (_, "state") => words(right).map(Condition::State),
        (_, "status") => {
            let words = words(right).unwrap_or_default();
            words.iter().any(|w| w == "dnat" || w == "snat").then_some(Condition::Never)
        }
        _ => address(masked, right),
    };
    known.unwrap_or(Condition::Unknown)
}

fn address(left: &Value, right: &Value) -> Option<Condition> {
    let payload = left.get("payload")?;
    let nets = nets(right)?;
    match text(payload, "field").as_str() {
        "saddr" => Some(Condition::Source(nets)),
        "daddr" => Some(Condition::Destination(nets)),
        _ => None,
    }
}

/// One value, a list or an anonymous set. A named set's content is not looked up.
fn each<T>(right: &Value, one: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    let list = right.get("set").unwrap_or(right);
    match list.as_array() {
        Some(all) => all.iter().map(one).collect(),
        None => one(right).map(|value| vec![value]),
    }
}

fn words(right: &Value) -> Option<Vec<String>> {
    each(right, |v| v.as_str().filter(|word| !word.starts_with('@')).map(str::to_owned))
}

fn nets(right: &Value) -> Option<Vec<IpNet>> {
    each(right, |v| match v.get("prefix") {
        Some(prefix) => {
            let length = prefix.get("len").and_then(Value::as_u64)?;
            IpNet::new(text(prefix, "addr").parse().ok()?, u8::try_from(length).ok()?).ok()
        }
        None => v.as_str()?.parse::<IpAddr>().ok().map(IpNet::from),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(expressions: Value) -> Vec<Rule> {
        rules(expressions.as_array().unwrap(), false)
    }

    #[test]
    fn matches_verdicts_and_maps_are_read() {
        let found = of(json!([
            { "match": { "op": "==", "left": { "meta": { "key": "iifname" } }, "right": "cni0" } },
            { "match": { "op": "!=", "left": { "payload": { "protocol": "ip", "field": "saddr" } },
                         "right": { "prefix": { "addr": "10.0.0.0", "len": 8 } } } },
            { "counter": { "packets": 0, "bytes": 0 } },
            { "reject": { "type": "icmpx", "expr": "admin-prohibited" } },
        ]));
        let source = Condition::Source(vec!["10.0.0.0/8".parse().unwrap()]);
        let conditions =
            vec![Condition::Input(vec!["cni0".into()]), Condition::Not(Box::new(source))];
        assert_eq!(found, [Rule { conditions, verdict: Verdict::Stop, names_pods: false }]);
        let found = of(json!([{ "vmap": { "key": { "ct": { "key": "state" } }, "data": { "set": [
            ["established", { "accept": null }], ["invalid", { "drop": null }],
            ["new", { "goto": { "target": "x" } }],
        ] } } }]));
        let verdicts: Vec<_> = found.iter().map(|rule| rule.verdict.clone()).collect();
        assert_eq!(verdicts, [Verdict::Accept, Verdict::Stop, Verdict::Goto("x".into())]);
        assert_eq!(found[1].conditions, [Condition::State(vec!["invalid".into()])]);
    }

    #[test]
    fn marks_sets_and_what_is_not_known() {
        let mark = json!({ "&": [{ "meta": { "key": "mark" } }, 0x8000] });
        assert_eq!(condition(&mark, &json!(0x8000)), Condition::Never);
        let name = json!({ "meta": { "key": "iifname" } });
        assert_eq!(condition(&name, &json!("@trusted")), Condition::Unknown);
        let two = json!({ "set": ["a", "b"] });
        assert_eq!(condition(&name, &two), Condition::Input(vec!["a".into(), "b".into()]));
        assert_eq!(condition(&json!({ "fib": {} }), &json!(true)), Condition::Unknown);
        let xt = json!([{ "xt": { "type": "match", "name": "addrtype" } },
                        { "xt": { "type": "target", "name": "REJECT" } }]);
        assert_eq!(of(xt)[0].conditions, [Condition::Unknown]);
    }
}
