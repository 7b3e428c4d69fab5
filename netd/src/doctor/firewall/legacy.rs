//! Rules of the legacy iptables, which `nft` does not show, from what `iptables-legacy -S`
//! prints.

use super::{
    packet::Condition,
    rules::{Chain, Hook, Rule, Table, Verdict},
};
use crate::exec::output;

/// Tables in which a packet can be dropped; translation has no such rules.
const TABLES: [&str; 4] = ["filter", "mangle", "raw", "security"];
const FAMILIES: [(&str, &str, &str); 2] = [
    ("ip", "/proc/net/ip_tables_names", "iptables-legacy"),
    ("ip6", "/proc/net/ip6_tables_names", "ip6tables-legacy"),
];

/// The tables that the kernel has; others are not listed, because that would create them.
pub(super) fn tables(names_pods: &dyn Fn(&str) -> bool) -> Vec<Table> {
    let mut found = vec![];
    for (family, names, program) in FAMILIES {
        let names = std::fs::read_to_string(names).unwrap_or_default();
        for name in names.lines().filter(|name| TABLES.contains(name)) {
            if let Ok(rules) = output(program, &["-w", "5", "-t", name, "-S"], "") {
                found.push(table(family, &format!("{program}, table {name}"), &rules, names_pods));
            }
        }
    }
    found
}

fn table(family: &str, place: &str, rules: &str, names_pods: &dyn Fn(&str) -> bool) -> Table {
    let mut table =
        Table { place: place.to_owned(), family: family.to_owned(), ..Table::default() };
    for line in rules.lines() {
        let words = words(line);
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["-P", chain, policy] => {
                let stops_by_policy = policy == "DROP";
                let new = Chain { hook: hook(chain), stops_by_policy, ..Chain::default() };
                table.chains.insert(chain.to_owned(), new);
            }
            ["-A", chain, ref rest @ ..] => {
                let chain = table.chains.entry(chain.to_owned()).or_default();
                chain.rules.extend(rule(rest, names_pods(line)));
            }
            _ => {}
        }
    }
    table
}

fn hook(chain: &str) -> Option<Hook> {
    match chain {
        "PREROUTING" => Some(Hook::Prerouting),
        "FORWARD" => Some(Hook::Forward),
        "INPUT" => Some(Hook::Input),
        "POSTROUTING" => Some(Hook::Postrouting),
        _ => None,
    }
}

/// The words of a line; a comment in quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                escaped = false;
                words.iter_mut().last().into_iter().for_each(|word| word.push(c));
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.iter_mut().last().into_iter().for_each(|word| word.push(c)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// `None`: the rule gives no verdict.
fn rule(words: &[&str], names_pods: bool) -> Option<Rule> {
    let mut conditions = vec![];
    let mut negated = false;
    let mut rest = words;
    loop {
        let (option, after) = rest.split_first()?;
        if *option == "!" {
            negated = true;
            rest = after;
            continue;
        }
        let value = after.first().copied().unwrap_or_default();
        if matches!(*option, "-j" | "-g") {
            let verdict = verdict(option, value)?;
            return Some(Rule { conditions, verdict, names_pods });
        }
        // An option without a value is followed by another option, or by "!".
        let has_value = !value.starts_with('-') && value != "!";
        if let Some(condition) = condition(option, value) {
            let inverted = || Condition::Not(Box::new(condition.clone()));
            conditions.push(if negated { inverted() } else { condition.clone() });
        }
        negated = false;
        rest = if has_value { after.get(1..)? } else { after };
    }
}

fn verdict(option: &str, target: &str) -> Option<Verdict> {
    match (option, target) {
        (_, "ACCEPT") => Some(Verdict::Accept),
        (_, "DROP" | "REJECT") => Some(Verdict::Stop),
        (_, "RETURN") => Some(Verdict::Return),
        ("-g", chain) => Some(Verdict::Goto(chain.to_owned())),
        // Targets of extensions (LOG, MARK, ...) look like chains; there is none of the name.
        (_, chain) => Some(Verdict::Jump(chain.to_owned())),
    }
}

/// `None`: it decides nothing.
fn condition(option: &str, value: &str) -> Option<Condition> {
    let name = || vec![value.replace('+', "*")];
    let list = || value.split(',').map(str::to_lowercase).collect::<Vec<_>>();
    let net = || value.parse::<ipnet::IpNet>().ok().map(|net| vec![net]);
    Some(match option {
        "-m" | "--comment" => return None,
        "-i" => Condition::Input(name()),
        "-o" => Condition::Output(name()),
        "-s" => net().map_or(Condition::Unknown, Condition::Source),
        "-d" => net().map_or(Condition::Unknown, Condition::Destination),
        "--ctstate" if list().iter().all(|s| s == "dnat" || s == "snat") => Condition::Never,
        "--ctstate" | "--state" => Condition::State(list()),
        "--ctstatus" => Condition::Unknown,
        // No packet of a pod has a mark of others yet.
        "--mark" if !value.starts_with("0x0/") => Condition::Never,
        _ => Condition::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::firewall::{
        packet::Packet,
        rules::Fate::{Passes, Stopped},
    };

    fn fate(rules: &str) -> super::super::rules::Fate {
        table("ip", "x", rules, &|_| false).fate("FORWARD", &Packet::default())
    }

    #[test]
    fn policies_rules_and_chains_are_read() {
        let policy = Stopped("by policy");
        let rule = Stopped("by a rule");
        for (rules, expected) in [
            ("-P FORWARD DROP\n-A FORWARD -j X\n", policy.clone()),
            ("-P FORWARD ACCEPT", Passes),
            (
                "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited",
                rule.clone(),
            ),
            (
                "-P FORWARD ACCEPT\n-N X\n-A FORWARD -j X\n-A X -m comment --comment \"a -j b\" -j DROP",
                rule.clone(),
            ),
            ("-P FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate INVALID -j DROP", Passes),
            ("-P FORWARD ACCEPT\n-A FORWARD -p tcp -m tcp --dport 25 -j REJECT", Passes),
            ("-P FORWARD ACCEPT\n-A FORWARD ! -i lo -j DROP", rule),
            ("-P FORWARD ACCEPT\n-A FORWARD -m mark --mark 0x8000/0x8000 -j DROP", Passes),
            ("-P FORWARD DROP\n-A FORWARD -j LOG\n-A FORWARD -i cni0 -j ACCEPT", policy),
        ] {
            assert_eq!(fate(rules), expected, "{rules}");
        }
    }
}
