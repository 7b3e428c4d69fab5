//! Addresses as runtimes write them.

use std::net::IpAddr;

/// Whether it is an IP address, maybe with a prefix length that fits its family.
pub fn is_address(text: &str) -> bool {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, prefix.parse::<u8>().ok()),
        None => (text, Some(0)),
    };
    match (address.parse::<IpAddr>(), prefix) {
        (Ok(IpAddr::V4(_)), Some(prefix)) => prefix <= 32,
        (Ok(IpAddr::V6(_)), Some(prefix)) => prefix <= 128,
        _ => false,
    }
}

/// Whether it is a MAC address as netd reads it: six bytes of two hex digits.
pub fn is_mac(text: &str) -> bool {
    let byte = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts = || text.split([':', '-']);
    parts().count() == 6 && parts().all(byte)
}
