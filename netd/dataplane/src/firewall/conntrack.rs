//! Ends UDP flows that a change of host ports made stale. conntrack decides where a flow
//! goes at its first packet, and a UDP client that keeps sending never starts a new flow.
//! TCP clients do, so stale TCP connections end by themselves.

use std::net::IpAddr;

use super::attributes::{each, find, nest, put};
use crate::netlink::{Batch, Socket};
use netd_domain::{PortMapping, Protocol, Wiring};

/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE`
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const NFGENMSG: usize = 4;
/// uapi/linux/netfilter/nfnetlink_conntrack.h
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Of the original tuple, compare protocol number and destination port
/// (net/netfilter/nf_internals.h).
const PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;
const UDP: u8 = 17;

/// A flow as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    /// Where the client sends to.
    to: (IpAddr, u16),
    /// Who answers.
    answers: IpAddr,
}

/// Ends flows to the endpoint's UDP host ports that began before they led to it.
pub(super) fn forget_flows_past(socket: &mut Socket, wiring: &Wiring) {
    forget(socket, wiring, |flow, pod| flow.answers != pod);
}

/// Ends flows that lead through the endpoint's UDP host ports to it.
pub(super) fn forget_flows_to(socket: &mut Socket, wiring: &Wiring) {
    forget(socket, wiring, |flow, pod| flow.answers == pod && flow.to.0 != pod);
}

/// A failure is only logged: new flows go where they should, and a kernel without
/// ctnetlink has no way to end the old ones.
fn forget(socket: &mut Socket, wiring: &Wiring, stale: impl Fn(&Flow, IpAddr) -> bool) {
    for mapping in wiring.port_mappings.iter().filter(|m| m.protocol == Protocol::Udp) {
        for pod in wiring.addresses.iter().map(|a| a.address.addr()) {
            if let Err(error) = forget_port(socket, mapping, pod, &stale) {
                tracing::warn!(
                    endpoint = %wiring.host_ifname, port = mapping.host_port, %error,
                    "old UDP flows of a host port may go on to where they went"
                );
            }
        }
    }
}

fn forget_port(
    socket: &mut Socket,
    mapping: &PortMapping,
    pod: IpAddr,
    stale: &impl Fn(&Flow, IpAddr) -> bool,
) -> std::io::Result<()> {
    let bound = mapping.host_ip.filter(|ip| !ip.is_unspecified());
    let mut batch = Batch::new();
    for body in list(socket, pod.is_ipv4(), mapping.host_port)? {
        let Some(flow) = read(&body) else { continue };
        // Kernels before 5.8 ignore the filter and give everything.
        if flow.to.1 == mapping.host_port
            && bound.is_none_or(|ip| ip == flow.to.0)
            && stale(&flow, pod)
        {
            batch.raw(DELETE, libc::NLM_F_ACK as u16, &deletion(&body));
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    // One that ended by itself meanwhile is fine.
    let mut refusals = socket.batch(batch)?.into_iter().filter_map(Result::err);
    let refusal = refusals.find(|r| r.errno != libc::ENOENT);
    refusal.map_or(Ok(()), |r| Err(std::io::Error::other(r)))
}

/// Every UDP flow to a port, as raw bodies.
fn list(socket: &mut Socket, v4: bool, port: u16) -> std::io::Result<Vec<Vec<u8>>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for message in socket.dump_raw(GET, &question(v4, port))? {
        all.push(message.body().to_vec());
    }
    Ok(all)
}

fn question(v4: bool, port: u16) -> Vec<u8> {
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    let mut body = vec![family as u8, 0, 0, 0];
    nest(&mut body, CTA_TUPLE_ORIG, |tuple| {
        nest(tuple, CTA_TUPLE_PROTO, |proto| {
            put(proto, CTA_PROTO_NUM, &[UDP]);
            put(proto, CTA_PROTO_DST_PORT, &port.to_be_bytes());
        });
    });
    nest(&mut body, CTA_FILTER, |filter| {
        // Not a wire field: the kernel's own byte order.
        put(filter, CTA_FILTER_ORIG_FLAGS, &PROTOCOL_AND_PORT.to_ne_bytes());
    });
    body
}

#[cfg(feature = "fuzzing")]
/// For fuzzing: reads a flow, and the request that would end it.
pub(super) fn fuzz(body: &[u8]) {
    if read(body).is_some() {
        deletion(body);
    }
}

/// A request that deletes the flow that `body` describes, and no other.
fn deletion(body: &[u8]) -> Vec<u8> {
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

/// A UDP flow; `None` for any other.
fn read(body: &[u8]) -> Option<Flow> {
    let attributes = body.get(NFGENMSG..)?;
    let original = find(attributes, CTA_TUPLE_ORIG)?;
    let proto = find(original, CTA_TUPLE_PROTO)?;
    if find(proto, CTA_PROTO_NUM)? != [UDP] {
        return None;
    }
    let port = u16::from_be_bytes(find(proto, CTA_PROTO_DST_PORT)?.try_into().ok()?);
    let (_, destination) = addresses(original)?;
    let (answers, _) = addresses(find(attributes, CTA_TUPLE_REPLY)?)?;
    Some(Flow { to: (destination, port), answers })
}

/// Source and destination: attributes 1 and 2 (IPv4), 3 and 4 (IPv6).
fn addresses(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let ip = find(tuple, CTA_TUPLE_IP)?;
    let v4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(find(ip, kind)?).ok()?));
    let v6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(find(ip, kind)?).ok()?));
    Some((v4(1).or_else(|| v6(3))?, v4(2).or_else(|| v6(4))?))
}
