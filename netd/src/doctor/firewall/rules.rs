//! Chains and rules of other programs, from nftables or from the legacy iptables, and what
//! becomes of a packet in them. What a rule looks at and doctor does not know makes the rule
//! one that may match.

use std::collections::HashMap;

use super::packet::{Condition, Match, Packet};

/// What a rule does with a packet that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// Dropped or rejected.
    Stop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub conditions: Vec<Condition>,
    pub verdict: Verdict,
    /// Whether it names a pool, a bridge or the devices of endpoints.
    pub names_pods: bool,
}

/// Where a chain begins in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Forward,
    Input,
    Postrouting,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    /// `None`: packets come by jumps only.
    pub hook: Option<Hook>,
    pub stops_by_policy: bool,
    pub rules: Vec<Rule>,
}

/// The chains of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// For people: "table inet firewalld", "iptables-legacy, table filter".
    pub place: String,
    /// nftables' families: "ip", "ip6", "inet", "bridge".
    pub family: String,
    pub chains: HashMap<String, Chain>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Passes,
    /// Dropped or rejected; in words, by what.
    Stopped(&'static str),
    /// As `Stopped`, but a rule that may match and that names netd's pods accepts.
    Doubtful(&'static str),
}

/// Chains may jump to each other only without a circle; the kernel takes 16 levels.
const MAX_DEPTH: u32 = 16;

enum End {
    Accept,
    Stop,
    Return,
}

impl Table {
    /// Sends a packet through the base chain `name`.
    pub(super) fn fate(&self, name: &str, packet: &Packet) -> Fate {
        let Some(chain) = self.chains.get(name) else { return Fate::Passes };
        let mut doubtful = false;
        let why = match self.walk(chain, packet, MAX_DEPTH, &mut doubtful) {
            End::Accept => return Fate::Passes,
            End::Stop => "by a rule",
            End::Return if chain.stops_by_policy => "by policy",
            End::Return => return Fate::Passes,
        };
        if doubtful { Fate::Doubtful(why) } else { Fate::Stopped(why) }
    }

    fn walk(&self, chain: &Chain, packet: &Packet, depth: u32, doubtful: &mut bool) -> End {
        for rule in &chain.rules {
            let matches = Match::all(&rule.conditions, packet);
            if matches == Match::No {
                continue;
            }
            let end = match &rule.verdict {
                Verdict::Accept => Some(End::Accept),
                Verdict::Stop => Some(End::Stop),
                Verdict::Return => Some(End::Return),
                Verdict::Jump(to) | Verdict::Goto(to) => {
                    let target = self.chains.get(to).filter(|_| depth > 0);
                    let end = target.map(|to| self.walk(to, packet, depth - 1, doubtful));
                    let goes = matches!(rule.verdict, Verdict::Goto(_));
                    end.filter(|end| goes || !matches!(end, End::Return))
                }
            };
            match (matches, end) {
                (Match::Yes, Some(end)) => return end,
                (Match::Maybe, Some(End::Accept)) => *doubtful |= rule.names_pods,
                _ => {}
            }
        }
        End::Return
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(conditions: Vec<Condition>, verdict: Verdict) -> Rule {
        Rule { conditions, verdict, names_pods: false }
    }

    fn table(base: Chain, others: &[(&str, Chain)]) -> Table {
        let mut chains: HashMap<_, _> =
            others.iter().map(|(name, chain)| ((*name).to_owned(), chain.clone())).collect();
        chains.insert("base".to_owned(), base);
        Table { chains, ..Table::default() }
    }

    fn chain(rules: Vec<Rule>, stops_by_policy: bool) -> Chain {
        Chain { hook: Some(Hook::Forward), stops_by_policy, rules }
    }

    #[test]
    fn a_packet_follows_jumps_and_comes_to_the_policy() {
        let packet = Packet::default();
        let stop = || chain(vec![rule(vec![], Verdict::Stop)], false);
        let jump = |to: &str| rule(vec![], Verdict::Jump(to.into()));
        let fate = |base, others: &[_]| table(base, others).fate("base", &packet);
        assert_eq!(fate(chain(vec![], true), &[]), Fate::Stopped("by policy"));
        assert_eq!(fate(chain(vec![], false), &[]), Fate::Passes);
        assert_eq!(fate(stop(), &[]), Fate::Stopped("by a rule"));
        assert_eq!(
            fate(chain(vec![jump("a")], false), &[("a", stop())]),
            Fate::Stopped("by a rule")
        );
        let back = chain(vec![rule(vec![], Verdict::Return), rule(vec![], Verdict::Stop)], false);
        assert_eq!(fate(chain(vec![jump("a")], false), &[("a", back.clone())]), Fate::Passes);
        // After goto the packet does not come back.
        let goto = rule(vec![], Verdict::Goto("a".into()));
        let base = chain(vec![goto, rule(vec![], Verdict::Stop)], false);
        assert_eq!(fate(base, &[("a", back)]), Fate::Passes);
        // A circle, which the kernel refuses, ends.
        assert_eq!(fate(chain(vec![jump("base")], false), &[]), Fate::Passes);
    }

    #[test]
    fn a_rule_that_may_match_decides_nothing() {
        let packet = Packet::default();
        let maybe =
            |verdict, names_pods| Rule { names_pods, ..rule(vec![Condition::Unknown], verdict) };
        let fate = |rules, policy| table(chain(rules, policy), &[]).fate("base", &packet);
        assert_eq!(fate(vec![maybe(Verdict::Stop, false)], false), Fate::Passes);
        assert_eq!(fate(vec![maybe(Verdict::Accept, false)], true), Fate::Stopped("by policy"));
        assert_eq!(fate(vec![maybe(Verdict::Accept, true)], true), Fate::Doubtful("by policy"));
    }
}
