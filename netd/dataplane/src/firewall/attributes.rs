//! Netlink attributes: written and read. Pure.

use std::net::IpAddr;

/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`
const TYPE: u16 = 0x3fff;
const HEADER: usize = 4;

/// Adds an attribute, padded to four bytes.
pub(super) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Values here are names, keys and addresses: far below 64 KiB.
    out.extend_from_slice(&((HEADER + value.len()) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Adds a string with its terminating zero.
pub(super) fn put_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    out.extend_from_slice(&((HEADER + text.len() + 1) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Adds an attribute that holds those that `inner` adds.
pub(super) fn nest(out: &mut Vec<u8>, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(kind | NESTED).to_ne_bytes());
    inner(out);
    let length = ((out.len() - start) as u16).to_ne_bytes();
    out[start..start + 2].copy_from_slice(&length);
}

/// Type and value of each attribute; stops at the first that is cut off.
pub(super) fn each(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & TYPE;
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    each(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A string attribute, without its terminating zero.
pub(super) fn find_text(bytes: &[u8], kind: u16) -> Option<&str> {
    let value = find(bytes, kind)?;
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

/// A big-endian number.
pub(super) fn find_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    find(bytes, kind)?.try_into().ok().map(u32::from_be_bytes)
}

/// An address as the kernel has it in a set.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}
