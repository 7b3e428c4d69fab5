//! Entries of the kernel's connection table: read, and named to be deleted. Pure.

use std::net::IpAddr;

use super::{
    attributes::{each, find, find_u32, nest, put},
    message::NFGENMSG,
};

/// uapi/linux/netfilter/nfnetlink_conntrack.h
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// `IPS_SEEN_REPLY`
const SEEN_REPLY: u32 = 1 << 1;

/// A flow as far as it matters here. Ports are 0 for protocols without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow {
    /// IANA's protocol number.
    pub protocol: u8,
    /// Who began it.
    pub client: IpAddr,
    /// Where the client sends to.
    pub to: (IpAddr, u16),
    /// Who answers.
    pub answers: (IpAddr, u16),
    /// Where the answers are sent to: the client, or what it is masqueraded as.
    pub answered: IpAddr,
    /// An answer was seen.
    pub replied: bool,
    /// The connection's mark.
    pub mark: u32,
}

impl Flow {
    /// Every address that it names.
    pub(super) fn addresses(&self) -> [IpAddr; 4] {
        [self.client, self.to.0, self.answers.0, self.answered]
    }

    /// Reads the body of a message of ctnetlink.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let attributes = body.get(NFGENMSG..)?;
        let original = find(attributes, CTA_TUPLE_ORIG)?;
        let reply = find(attributes, CTA_TUPLE_REPLY)?;
        let (client, to) = addresses(original)?;
        let (answers, answered) = addresses(reply)?;
        Some(Self {
            protocol: *find(find(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?.first()?,
            client,
            to: (to, port(original, CTA_PROTO_DST_PORT)),
            answers: (answers, port(reply, CTA_PROTO_SRC_PORT)),
            answered,
            replied: number(attributes, CTA_STATUS) & SEEN_REPLY != 0,
            mark: number(attributes, CTA_MARK),
        })
    }
}

/// A request that deletes the flow that `body` describes, and no other.
pub(super) fn deletion(body: &[u8]) -> Vec<u8> {
    let mut out = body.get(..2).unwrap_or_default().to_vec();
    out.resize(NFGENMSG, 0);
    for (kind, value) in each(body.get(NFGENMSG..).unwrap_or_default()) {
        match kind {
            CTA_TUPLE_ORIG => nest(&mut out, kind, |tuple| tuple.extend_from_slice(value)),
            CTA_ZONE | CTA_ID => put(&mut out, kind, value),
            _ => {}
        }
    }
    out
}

fn number(attributes: &[u8], kind: u16) -> u32 {
    find_u32(attributes, kind).unwrap_or_default()
}

fn port(tuple: &[u8], kind: u16) -> u16 {
    let bytes = find(tuple, CTA_TUPLE_PROTO).and_then(|proto| find(proto, kind));
    bytes.and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// Source and destination: attributes 1 and 2 (IPv4), 3 and 4 (IPv6).
fn addresses(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let ip = find(tuple, CTA_TUPLE_IP)?;
    let v4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(find(ip, kind)?).ok()?));
    let v6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(find(ip, kind)?).ok()?));
    Some((v4(1).or_else(|| v6(3))?, v4(2).or_else(|| v6(4))?))
}
