//! The packets that doctor sends through other programs' chains in its mind, and what rules
//! look at in a packet.

use std::net::IpAddr;

use ipnet::IpNet;

/// A packet of a pod, the first of its connection. `None`: any; a rule that looks at it may
/// match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Packet {
    /// By which device it comes.
    pub input: Device,
    /// By which device it leaves.
    pub output: Device,
    pub source: Address,
    pub destination: Address,
    pub v6: bool,
}

/// A device of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Device {
    /// Not known; not netd's.
    #[default]
    Other,
    Named(String),
}

/// An address of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Address {
    /// Not known; not a pod's.
    #[default]
    Other,
    Pod(IpAddr),
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    Maybe,
    No,
}

/// What a rule looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Names, or beginnings of names with `*` at their end.
    Input(Vec<String>),
    Output(Vec<String>),
    Source(Vec<IpNet>),
    Destination(Vec<IpNet>),
    /// Of conntrack.
    State(Vec<String>),
    V6(bool),
    /// What no first packet of a pod has: a mark, a translated destination.
    Never,
    /// Something else.
    Unknown,
    Not(Box<Condition>),
}

impl Match {
    /// Whether all conditions hold.
    pub(super) fn all(conditions: &[Condition], packet: &Packet) -> Self {
        let mut all = Self::Yes;
        for condition in conditions {
            match condition.holds(packet) {
                Self::No => return Self::No,
                Self::Maybe => all = Self::Maybe,
                Self::Yes => {}
            }
        }
        all
    }

    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Condition {
    fn holds(&self, packet: &Packet) -> Match {
        match self {
            Self::Input(names) => packet.input.is_among(names),
            Self::Output(names) => packet.output.is_among(names),
            Self::Source(nets) => packet.source.is_in(nets, packet.v6),
            Self::Destination(nets) => packet.destination.is_in(nets, packet.v6),
            Self::State(states) => Match::of(states.iter().any(|state| state == "new")),
            Self::V6(v6) => Match::of(packet.v6 == *v6),
            Self::Never => Match::No,
            Self::Unknown => Match::Maybe,
            Self::Not(inner) => match inner.holds(packet) {
                Match::Yes => Match::No,
                Match::No => Match::Yes,
                Match::Maybe => Match::Maybe,
            },
        }
    }
}

/// Devices of endpoints, and netd's own bridge by default.
const OURS: [&str; 2] = ["nd", "cni0"];

impl Device {
    fn is_among(&self, names: &[String]) -> Match {
        let named = |name: &str, pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        match self {
            Self::Named(name) => Match::of(names.iter().any(|pattern| named(name, pattern))),
            Self::Other => {
                let ours = |name: &String| OURS.iter().any(|own| name.starts_with(own));
                match names {
                    [all] if all == "*" => Match::Yes,
                    names if names.iter().all(|name| ours(name) || name == "lo") => Match::No,
                    _ => Match::Maybe,
                }
            }
        }
    }
}

impl Address {
    fn is_in(&self, nets: &[IpNet], v6: bool) -> Match {
        let everything = |net: &&IpNet| net.prefix_len() == 0 && net.addr().is_ipv6() == v6;
        if nets.iter().any(|net| everything(&net)) {
            return Match::Yes;
        }
        match self {
            Self::Pod(ip) => Match::of(nets.iter().any(|net| net.contains(ip))),
            Self::Other if nets.iter().all(|net| net.addr().is_ipv6() != v6) => Match::No,
            Self::Other => Match::Maybe,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_packet_decides() {
        let packet = Packet {
            input: Device::Named("cni0".into()),
            source: Address::Pod("10.88.0.2".parse().unwrap()),
            ..Packet::default()
        };
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let nets = |all: &[&str]| all.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
        for (condition, expected) in [
            (Condition::Input(names(&["eth0", "cni*"])), Match::Yes),
            (Condition::Input(names(&["eth0"])), Match::No),
            (Condition::Output(names(&["eth0"])), Match::Maybe),
            (Condition::Output(names(&["cni0"])), Match::No),
            (Condition::Source(nets(&["10.88.0.0/16"])), Match::Yes),
            (Condition::Source(nets(&["10.0.0.0/16"])), Match::No),
            (Condition::Destination(nets(&["10.0.0.0/16"])), Match::Maybe),
            (Condition::Destination(nets(&["fd00::/64"])), Match::No),
            (Condition::State(names(&["invalid"])), Match::No),
            (Condition::State(names(&["new", "related"])), Match::Yes),
            (Condition::V6(true), Match::No),
            (Condition::Never, Match::No),
        ] {
            assert_eq!(condition.holds(&packet), expected, "{condition:?}");
            let not = Condition::Not(Box::new(condition));
            let inverted = match expected {
                Match::Yes => Match::No,
                Match::No => Match::Yes,
                Match::Maybe => Match::Maybe,
            };
            assert_eq!(not.holds(&packet), inverted, "{not:?}");
        }
        let all = [Condition::Unknown, Condition::Never];
        assert_eq!(Match::all(&all, &packet), Match::No);
        assert_eq!(Match::all(&all[..1], &packet), Match::Maybe);
    }
}
