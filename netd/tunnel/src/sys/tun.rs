//! The tun device. The only file that opens /dev/net/tun.
//!
//! Unsafe: the device's ioctls have no safe wrapper.

use std::{
    fs::File,
    io::{self, IoSlice, Read as _},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use nix::sys::uio::writev;

use crate::packet::vnet;

mod ioctl {
    nix::ioctl_write_ptr_bad!(set_iff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_read_bad!(get_iff, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_header_size, libc::TUNSETVNETHDRSZ, libc::c_int);
}

/// uapi/linux/if_tun.h
const IFF_FLAGS: i32 = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
const TUN_F_CSUM_TSO: i32 = 0x01 | 0x02 | 0x04 | 0x08;
const TUN_F_USO: i32 = 0x20 | 0x40;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// A device of the name is there that can't be ours.
    #[error("there is a device \"{device}\" already that is not a tunnel of netd's; remove it")]
    Foreign {
        /// Its name.
        device: String,
    },
    /// Everything else.
    #[error("tun device \"{device}\": {action}: {source}")]
    System {
        /// Its name.
        device: String,
        /// What was refused.
        action: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

/// One queue of a tun device that lasts beyond this process.
#[derive(Debug)]
pub struct Tun {
    file: File,
    udp: bool,
}

impl Tun {
    /// Opens another queue of the device; the first one makes it, if it is not there.
    ///
    /// # Errors
    /// See [`TunError`].
    pub fn open(device: &str) -> Result<Self, TunError> {
        let failed = |action, source| TunError::System { device: device.into(), action, source };
        let mut queue = Self::attach(device)?;
        let fd = queue.file.as_raw_fd();
        // SAFETY: `fd` is a tun queue's, open as long as `queue`; the ioctl reads one int.
        unsafe { ioctl::set_header_size(fd, &(vnet::SIZE as libc::c_int)) }
            .map_err(|e| failed("header size", e.into()))?;
        // SAFETY: as above, with an argument by value.
        let udp = unsafe { ioctl::set_offload(fd, TUN_F_CSUM_TSO | TUN_F_USO) }.is_ok();
        if !udp {
            // UDP segmentation is there since Linux 6.2.
            // SAFETY: as above.
            unsafe { ioctl::set_offload(fd, TUN_F_CSUM_TSO) }
                .map_err(|e| failed("offloads", e.into()))?;
        }
        queue.udp = udp;
        queue.persist(true).map_err(|e| failed("making it persistent", e))?;
        Ok(queue)
    }

    /// A queue that the service manager kept for us. `None`: it is of no such device.
    pub fn kept(fd: OwnedFd, device: &str) -> Option<Self> {
        let mut queue = Self { file: fd.into(), udp: false };
        if !queue.is_of(device) {
            return None;
        }
        // SAFETY: a tun queue's descriptor, as just seen; an argument by value.
        let offload =
            unsafe { ioctl::set_offload(queue.file.as_raw_fd(), TUN_F_CSUM_TSO | TUN_F_USO) };
        queue.udp = offload.is_ok();
        Some(queue)
    }

    /// Whether this still is a queue of that device: it may have been removed.
    pub fn is_of(&self, device: &str) -> bool {
        let Some(mut found) = request(device) else { return false };
        let wanted = found.ifr_name;
        // SAFETY: an open descriptor; the kernel writes a whole ifreq, or, if it is no
        // tun queue, fails.
        let told = unsafe { ioctl::get_iff(self.file.as_raw_fd(), &mut found) };
        told.is_ok() && found.ifr_name == wanted
    }

    /// Whether the kernel takes segmented UDP.
    pub(crate) fn takes_udp(&self) -> bool {
        self.udp
    }

    fn attach(device: &str) -> Result<Self, TunError> {
        let failed = |action, source| TunError::System { device: device.into(), action, source };
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|e| failed("/dev/net/tun", e))?;
        let request = request(device)
            .ok_or_else(|| failed("its name", io::Error::other("1 to 15 bytes are allowed")))?;
        // SAFETY: `file` is open and `request` a whole ifreq, which the kernel reads and
        // writes within its size.
        let attached = unsafe { ioctl::set_iff(file.as_raw_fd(), &request) };
        match attached {
            Ok(_) => Ok(Self { file, udp: false }),
            // EBUSY, EINVAL: no tun device, or one with other flags.
            Err(nix::Error::EBUSY | nix::Error::EINVAL) => {
                Err(TunError::Foreign { device: device.into() })
            }
            Err(e) => Err(failed("opening it", e.into())),
        }
    }

    /// Whether the device stays when its last queue is closed.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn persist(&self, stay: bool) -> io::Result<()> {
        // SAFETY: a tun queue's descriptor, an argument by value.
        unsafe { ioctl::set_persist(self.file.as_raw_fd(), i32::from(stay)) }?;
        Ok(())
    }

    /// Reads one packet with its [`vnet`] header.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; the system's.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one packet with its [`vnet`] header.
    ///
    /// # Errors
    /// The system's: the device is down, the kernel refuses the packet.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        writev(&self.file, pieces)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn request(device: &str) -> Option<libc::ifreq> {
    // SAFETY: ifreq is plain data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte is left for the terminator.
    let most = request.ifr_name.len() - 1;
    if device.is_empty() || device.len() > most {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = IFF_FLAGS as libc::c_short;
    Some(request)
}

/// Removes a device that an earlier process left: a tun device of several queues.
/// Something else of the name is left alone.
///
/// # Errors
/// The system's.
pub fn remove(device: &str) -> Result<(), TunError> {
    if nix::net::if_::if_nametoindex(device).is_err() {
        return Ok(());
    }
    let queue = match Tun::attach(device) {
        Err(TunError::Foreign { .. }) => return Ok(()),
        attached => attached?,
    };
    queue.persist(false).map_err(|source| TunError::System {
        device: device.into(),
        action: "removing it",
        source,
    })
}
