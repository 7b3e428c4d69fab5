//! What a caller asked for, kept with the endpoint in a form that a repeated request can be
//! compared with.

use std::fmt::Display;

use super::{
    AttachSpec, DefaultRoute, Endpoint, PortMapping, ids::fnv1a, request_digest::RequestDigest,
};

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Network,
    Addresses,
    Mac,
    Mtu,
    HostPorts,
    Bandwidth,
    Dns,
    DefaultRoute,
}

/// In the order of the digest; new parts come at the end.
const PARTS: [Part; 8] = [
    Part::Network,
    Part::Addresses,
    Part::Mac,
    Part::Mtu,
    Part::HostPorts,
    Part::Bandwidth,
    Part::Dns,
    Part::DefaultRoute,
];

impl RequestDigest {
    /// The digest of a request.
    pub fn of(spec: &AttachSpec) -> Self {
        let number = |part: &Part| {
            let hash = fnv1a(asked(*part, spec).as_bytes());
            (hash >> 32) as u32 ^ hash as u32
        };
        Self(PARTS.iter().map(number).collect())
    }
}

impl AttachSpec {
    /// In what this request differs from the one that the endpoint was made for, in words. Of an
    /// endpoint whose record has no digest: what of it contradicts the request.
    pub fn differences(&self, endpoint: &Endpoint) -> Vec<String> {
        let differs: Vec<Part> = match &endpoint.request {
            Some(stored) => {
                let own = RequestDigest::of(self);
                let pairs = own.0.iter().zip(&stored.0).zip(PARTS);
                pairs.filter(|((a, b), _)| a != b).map(|(_, part)| part).collect()
            }
            None => PARTS.into_iter().filter(|part| contradicts(*part, self, endpoint)).collect(),
        };
        let words = |part| {
            let (name, has) = held(part, endpoint);
            format!("{name} {has}, not {}", asked(part, self))
        };
        differs.into_iter().map(words).collect()
    }
}

/// What a request asks for, in words that are the same for the same wish.
fn asked(part: Part, spec: &AttachSpec) -> String {
    match part {
        Part::Network => format!("\"{}\"", spec.network),
        Part::Addresses => listed(&spec.addresses, "any"),
        Part::Mac => spec.mac.map_or_else(|| "any".into(), |mac| mac.to_string()),
        Part::Mtu => spec.mtu.map_or_else(|| "the network's".into(), |mtu| mtu.to_string()),
        Part::HostPorts => ports(&spec.port_mappings),
        Part::Bandwidth => format!("{:?}", spec.bandwidth),
        Part::Dns => format!("{:?}", spec.dns),
        Part::DefaultRoute => match spec.default_route {
            DefaultRoute::First => "if it is the first",
            DefaultRoute::Always => "always",
            DefaultRoute::Never => "never",
        }
        .into(),
    }
}

/// The part's name, and what the endpoint has of it.
fn held(part: Part, endpoint: &Endpoint) -> (&'static str, String) {
    let wiring = &endpoint.wiring;
    match part {
        Part::Network => ("network", format!("\"{}\"", endpoint.network)),
        Part::Addresses => ("addresses", listed(&endpoint.ips().collect::<Vec<_>>(), "none")),
        Part::Mac => ("MAC", wiring.mac.to_string()),
        Part::Mtu => ("MTU", wiring.mtu.to_string()),
        Part::HostPorts => ("host ports", ports(&wiring.port_mappings)),
        Part::Bandwidth => ("bandwidth", format!("{:?}", wiring.bandwidth)),
        Part::Dns => ("DNS", format!("{:?}", endpoint.dns)),
        Part::DefaultRoute => {
            let has = wiring.routes.iter().any(|route| route.destination.prefix_len() == 0);
            ("default route", if has { "yes" } else { "no" }.into())
        }
    }
}

fn contradicts(part: Part, spec: &AttachSpec, endpoint: &Endpoint) -> bool {
    let wiring = &endpoint.wiring;
    match part {
        Part::Network => spec.network != endpoint.network,
        Part::Addresses => spec.addresses.iter().any(|ip| !endpoint.ips().any(|own| own == *ip)),
        Part::Mac => spec.mac.is_some_and(|mac| mac != wiring.mac),
        Part::Mtu => match spec.mtu {
            Some(mtu) => mtu != wiring.mtu,
            None => endpoint.fixed_mtu,
        },
        Part::HostPorts => ports(&spec.port_mappings) != ports(&wiring.port_mappings),
        Part::Bandwidth => spec.bandwidth != wiring.bandwidth,
        Part::Dns => spec.dns != endpoint.dns,
        // Whether it was the first is not known any more.
        Part::DefaultRoute => false,
    }
}

fn listed(items: &[impl Display], none: &str) -> String {
    let mut all: Vec<String> = items.iter().map(ToString::to_string).collect();
    all.sort_unstable();
    if all.is_empty() { none.to_owned() } else { all.join(", ") }
}

fn ports(mappings: &[PortMapping]) -> String {
    let one = |m: &PortMapping| {
        let ip = m.host_ip.map_or_else(|| "*".to_owned(), |ip| ip.to_string());
        format!("{ip}:{}->{}/{}", m.host_port, m.container_port, m.protocol)
    };
    listed(&mappings.iter().map(one).collect::<Vec<_>>(), "none")
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
