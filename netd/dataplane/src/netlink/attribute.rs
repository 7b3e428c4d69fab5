//! Attributes of messages that are not worth decoding as a whole.

use std::net::IpAddr;

use netlink_packet_core::NlasIterator;

/// The attributes in `bytes` as (type, value); stops at one that is cut off.
pub(crate) fn each(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).filter_map(|nla| {
        let value = nla.into_inner().get(4..4 + nla.value_length())?;
        Some((nla.kind(), value))
    })
}

/// The first attribute of type `kind`.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    each(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number at an offset.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// An address of either family.
pub(crate) fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
    }
}
