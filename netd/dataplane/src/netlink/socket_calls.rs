//! The system calls of a netlink socket that need unsafe code.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) fn set_option(fd: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` outlives the call and its size is given.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends a wait for a datagram with `EAGAIN` after this time.
pub(super) fn set_receive_timeout(fd: &OwnedFd, time: std::time::Duration) -> io::Result<()> {
    let value = nix::sys::time::TimeVal::new(time.as_secs().try_into().unwrap_or(i64::MAX), 0);
    Ok(nix::sys::socket::setsockopt(fd, nix::sys::socket::sockopt::ReceiveTimeout, &value)?)
}

/// Binds to a port that the kernel picks, and asks which.
pub(super) fn bind(fd: &OwnedFd) -> io::Result<u32> {
    // SAFETY: all zero is a valid sockaddr_nl; the pointers live through the calls.
    unsafe {
        let mut address: libc::sockaddr_nl = std::mem::zeroed();
        address.nl_family = libc::AF_NETLINK as u16;
        let mut size = size_of::<libc::sockaddr_nl>() as u32;
        let pointer: *mut libc::sockaddr = (&raw mut address).cast();
        if libc::bind(fd.as_raw_fd(), pointer, size) < 0
            || libc::getsockname(fd.as_raw_fd(), pointer, &raw mut size) < 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(address.nl_pid)
    }
}

/// Receives one datagram: its length, and the namespace id of its sender if that is another.
///
/// # Errors
/// `ENOBUFS` also for a datagram that was longer than the buffer.
pub(super) fn receive_once(
    fd: &OwnedFd,
    buffer: &mut [u8],
    control: &mut [u64; 8],
    flags: i32,
) -> io::Result<(usize, Option<i32>)> {
    // SAFETY: every pointer is to a live buffer whose size is given; the control
    // buffer is aligned for cmsghdr (u64).
    unsafe {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        // musl counts it in 32 bits.
        message.msg_controllen = size_of_val(control) as _;
        let length = libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags);
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let mut nsid = None;
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_NETLINK
                && (*header).cmsg_type == libc::NETLINK_LISTEN_ALL_NSID
            {
                nsid = Some(libc::CMSG_DATA(header).cast::<i32>().read_unaligned());
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        Ok((length, nsid))
    }
}
