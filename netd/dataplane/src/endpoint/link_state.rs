//! Asks ethtool whether a link has its carrier.
//!
//! From Linux 6.8 on this makes the kernel handle a new carrier at once
//! (`linkwatch_sync_dev` in `ethtool_op_get_link`, net/ethtool/ioctl.c). A netlink request for
//! the link does the same, but its answer has 1.5 KiB instead of eight bytes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::LazyLock,
};

use crate::sysctl;
use netd_domain::IfName;

/// uapi/linux/sockios.h
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// uapi/linux/ethtool.h
const ETHTOOL_GLINK: u32 = 0x0a;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether a link passes packets as soon as [`has_carrier`] says so: Linux 6.8 or newer.
pub(crate) fn is_enough() -> bool {
    static NEW: LazyLock<bool> =
        LazyLock::new(|| sysctl::kernel_release().is_ok_and(|text| version(&text) >= (6, 8)));
    *NEW
}

/// Major and minor number of a kernel's release; 0 for what is no number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the link `name` in the namespace of `socket` has its carrier. The link must exist:
/// for an unknown name the kernel looks for a module to load.
///
/// # Errors
/// The system's: there is no such link, or its driver can't tell.
#[allow(clippy::cast_possible_wrap)] // a `c_char` is signed on some processors
pub(crate) fn has_carrier(socket: impl AsFd, name: &IfName) -> io::Result<bool> {
    let mut value = Value { command: ETHTOOL_GLINK, data: 0 };
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name has at most 15 bytes: the last one stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and what it points to live through the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v782"), (6, 18));
        assert_eq!(version("6.8"), (6, 8));
        assert_eq!(version("5.15.0-generic"), (5, 15));
        assert_eq!(version(""), (0, 0));
    }
}
