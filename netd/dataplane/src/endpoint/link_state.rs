//! Whether a link carries packets, for the price of two words.
//!
//! From Linux 6.8 on asking for the carrier makes the kernel finish what a link that just
//! got it still has to do (`linkwatch_sync_dev` in `ethtool_op_get_link`,
//! net/ethtool/ioctl.c). So does asking for the link, whose answer has 1.5 KiB.

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

/// Whether an answer of [`has`] is all there is to know: the kernel is new enough.
pub(crate) fn tells_all() -> bool {
    static NEW: LazyLock<bool> =
        LazyLock::new(|| sysctl::kernel_release().is_ok_and(|text| version(&text) >= (6, 8)));
    *NEW
}

/// Major and minor number of a kernel's release; 0 for what is no number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the link `name` in the namespace of `socket` has its carrier. For links just
/// seen: for the name of one that is not there the kernel looks for a module.
///
/// # Errors
/// The system's: there is no such link, or its driver can't tell.
#[allow(clippy::cast_possible_wrap)] // a `c_char` is signed on some processors
pub(crate) fn has(socket: impl AsFd, name: &IfName) -> io::Result<bool> {
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
