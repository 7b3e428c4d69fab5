//! Traffic control: token buckets that limit rates, and the redirection of what a pod
//! sends through its ifb device.
//!
//! Encoded by hand: netlink-packet-route has no token bucket. Layouts are those of
//! uapi/linux/pkt_sched.h, pkt_cls.h and tc_act/tc_mirred.h.

use super::{
    Batch, Received,
    attribute::{find, u32_at},
};
use crate::endpoint::{limit::LATENCY_MS, op::Shape};

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
/// Handles: `1:` of the bucket, `ffff:` of the hook, and the one filter's.
const BUCKET: u32 = 0x0001_0000;
const HOOK: u32 = 0xffff_0000;
const FILTER: u32 = 0x8000_0800;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
/// `struct tcmsg`.
const HEADER: usize = 20;
/// Length of a `struct tc_tbf_qopt`, and where its rate and its bucket are.
const QOPT: usize = 36;
const QOPT_RATE: usize = 8;
const QOPT_BUFFER: usize = 28;
/// Unit of the kernel's bucket, ns.
const TICK_NS: u64 = 64;
/// Where a `struct tc_mirred` has the index of the link.
const MIRRED_INDEX: usize = 24;

fn header(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for field in [index, handle, parent, info] {
        bytes.extend_from_slice(&field.to_ne_bytes());
    }
    bytes
}

fn put(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn create() -> u16 {
    (libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16
}

/// Limits what leaves the link `index`.
pub(crate) fn limit(batch: &mut Batch, index: u32, shape: Shape) {
    let queue = u64::from(shape.burst) + shape.rate.saturating_mul(LATENCY_MS) / 1000;
    let mut parms = vec![0, 1, 0, 0, 0, 0, 0, 0];
    parms.extend_from_slice(&(shape.rate.min(u64::from(u32::MAX)) as u32).to_ne_bytes());
    parms.resize(24, 0);
    parms.extend_from_slice(&(queue.min(u64::from(u32::MAX)) as u32).to_ne_bytes());
    parms.extend_from_slice(&ticks(shape).to_ne_bytes());
    parms.resize(QOPT, 0);
    let mut options = Vec::new();
    put(&mut options, TBF_PARMS, &parms);
    put(&mut options, TBF_BURST, &shape.burst.to_ne_bytes());
    if shape.rate > u64::from(u32::MAX) {
        put(&mut options, TBF_RATE64, &shape.rate.to_ne_bytes());
    }
    let mut body = header(index, BUCKET, ROOT, 0);
    put(&mut body, KIND, b"tbf\0");
    put(&mut body, OPTIONS, &options);
    batch.raw(RTM_NEWQDISC, create(), &body);
}

/// How long the bucket takes to fill, in the kernel's units.
fn ticks(shape: Shape) -> u32 {
    let ns = u128::from(shape.burst) * 1_000_000_000 / u128::from(shape.rate.max(1));
    (ns / u128::from(TICK_NS)).clamp(1, u128::from(u32::MAX)) as u32
}

/// The ingress qdisc of the link `index`, to which filters are attached.
pub(crate) fn hook(batch: &mut Batch, index: u32) {
    let mut body = header(index, HOOK, INGRESS, 0);
    put(&mut body, KIND, b"ingress\0");
    batch.raw(RTM_NEWQDISC, create(), &body);
}

/// Redirects everything that the link `index` receives to the link `to`: a u32 filter that
/// matches everything (matchall is not in every kernel) with a mirred action.
pub(crate) fn redirect(batch: &mut Batch, index: u32, to: u32) {
    const STOLEN: u32 = 4;
    const EGRESS_REDIRECT: u32 = 1;
    let mut parms = Vec::new();
    for field in [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to] {
        parms.extend_from_slice(&field.to_ne_bytes());
    }
    let (mut mirred, mut action, mut actions) = (Vec::new(), Vec::new(), Vec::new());
    put(&mut mirred, MIRRED_PARMS, &parms);
    put(&mut action, ACT_KIND, b"mirred\0");
    put(&mut action, ACT_OPTIONS, &mirred);
    put(&mut actions, 1, &action);
    // Terminal, one key of 32 bits whose mask is 0.
    let mut selector = vec![1, 0, 1, 0];
    selector.resize(32, 0);
    let mut options = Vec::new();
    put(&mut options, U32_SEL, &selector);
    put(&mut options, U32_ACT, &actions);
    const PRIORITY: u32 = 1;
    let protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
    let mut body = header(index, FILTER, HOOK, PRIORITY << 16 | protocol);
    put(&mut body, KIND, b"u32\0");
    put(&mut body, OPTIONS, &options);
    batch.raw(RTM_NEWTFILTER, create(), &body);
}

/// The kernel answers these requests with a notification, which reaches the sender only
/// with NLM_F_ECHO.
const GET: u16 = (libc::NLM_F_ACK | libc::NLM_F_ECHO) as u16;

/// Asks for the root of the link `index`.
pub(crate) fn get_root(batch: &mut Batch, index: u32) {
    batch.raw(RTM_GETQDISC, GET, &header(index, 0, ROOT, 0));
}

/// Asks for the hook of the link `index`.
pub(crate) fn get_hook(batch: &mut Batch, index: u32) {
    batch.raw(RTM_GETQDISC, GET, &header(index, 0, INGRESS, 0));
}

/// The request for the filters at the hook of the link `index` (as a dump).
pub(crate) fn get_filters(index: u32) -> (u16, Vec<u8>) {
    (RTM_GETTFILTER, header(index, 0, HOOK, 0))
}

/// Reads a token bucket back; `None` for another kind of queue.
pub(crate) fn read_limit(message: &Received) -> Option<Shape> {
    let body = message.body().get(HEADER..)?;
    if find(body, KIND)? != b"tbf\0" {
        return None;
    }
    let options = find(body, OPTIONS)?;
    let parms = find(options, TBF_PARMS)?;
    let narrow = u64::from(u32_at(parms, QOPT_RATE)?);
    let rate = find(options, TBF_RATE64).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes);
    let rate = rate.unwrap_or(narrow);
    let ns = u128::from(u32_at(parms, QOPT_BUFFER)?) * u128::from(TICK_NS);
    let burst = ns * u128::from(rate) / 1_000_000_000;
    Some(Shape { rate, burst: burst.min(u128::from(u32::MAX)) as u32 })
}

/// Whether this is the hook.
pub(crate) fn read_hook(message: &Received) -> bool {
    let kind = message.body().get(HEADER..).and_then(|body| find(body, KIND));
    kind == Some(b"ingress\0")
}

/// Where a filter leads to.
pub(crate) fn read_redirect(message: &Received) -> Option<u32> {
    let body = message.body().get(HEADER..)?;
    let action = find(find(find(body, OPTIONS)?, U32_ACT)?, 1)?;
    let parms = find(find(action, ACT_OPTIONS)?, MIRRED_PARMS)?;
    u32_at(parms, MIRRED_INDEX)
}
