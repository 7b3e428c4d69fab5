//! The only file that enters a network namespace.
//!
//! A thread enters one with [`run_in`], which brings it back whatever happens, or for the
//! rest of its life with [`enter_for_good`] (in tests, where a [`crate::Dataplane`] works on
//! another namespace than the process's).

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{MetadataExt, OpenOptionsExt},
            net::UnixDatagram,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::sys::statfs::fstatfs;

use crate::{
    DataplaneError,
    error::{failed, is_exhausted},
};
use netd_domain::NetnsId;

/// `NSFS_MAGIC` (uapi/linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// `NS_GET_NSTYPE` (uapi/linux/nsfs.h): `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

thread_local! {
    /// The namespace to return to; opened when the thread enters another one first.
    static HOME: RefCell<Option<OwnedFd>> = const { RefCell::new(None) };
    /// This thread's and the process's own namespaces; read when they are needed first.
    static OWN_IDS: Cell<Option<[NetnsId; 2]>> = const { Cell::new(None) };
}

/// A sandbox's network namespace, held open: the kernel keeps it as long as this lives.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    id: NetnsId,
    fd: OwnedFd,
}

impl Netns {
    /// Opens the namespace at `path`. The path comes from a caller, so netd looks at the file
    /// before it opens it for reading: that would block on a FIFO, and could make a device do
    /// something.
    ///
    /// # Errors
    /// `NetnsGone` when nothing is there, `NotANetns` for anything else than a network
    /// namespace, `HostNetns` for this process's or thread's own, `Exhausted`.
    pub fn open(path: &Path) -> Result<Self, DataplaneError> {
        let seen = open(path, libc::O_PATH).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {
                DataplaneError::NetnsGone { path: path.into(), reason: e.to_string() }
            }
            _ => unusable(path)(e),
        })?;
        let filesystem = fstatfs(&seen).map_err(io::Error::from).map_err(unusable(path))?;
        if filesystem.filesystem_type().0 as i64 != NSFS_MAGIC {
            return Err(DataplaneError::NotANetns { path: path.into(), found: describe(&seen) });
        }
        let again = PathBuf::from(format!("/proc/self/fd/{}", seen.as_raw_fd()));
        let file = open(&again, libc::O_NONBLOCK).map_err(unusable(path))?;
        Self::of_namespace(file, path)
    }

    /// The namespace that a caller opened and handed over; `path` is what the caller calls
    /// it, which may mean something else here.
    ///
    /// # Errors
    /// `NotANetns` for anything else than a network namespace, `HostNetns` for this
    /// process's or thread's own, `Exhausted`.
    pub fn from_descriptor(descriptor: OwnedFd, path: &Path) -> Result<Self, DataplaneError> {
        let file = File::from(descriptor);
        let other = |found: String| DataplaneError::NotANetns { path: path.into(), found };
        let filesystem = fstatfs(&file).map_err(io::Error::from).map_err(unusable(path))?;
        if filesystem.filesystem_type().0 as i64 != NSFS_MAGIC {
            return Err(other(format!("handed over as {}", describe(&file))));
        }
        Self::of_namespace(file, path)
    }

    /// `file` is a namespace of some type.
    fn of_namespace(file: File, path: &Path) -> Result<Self, DataplaneError> {
        let other = |found: String| DataplaneError::NotANetns { path: path.into(), found };
        // SAFETY: a plain ioctl without argument on a live descriptor.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(other("a namespace of another type".into()));
        }
        let id = identity(&file).map_err(unusable(path))?;
        if is_own(id).map_err(failed("finding out netd's own namespace"))? {
            return Err(DataplaneError::HostNetns { path: path.into() });
        }
        let what = format!("{}: asking for the namespace's cookie", path.display());
        let cookie = run_in(&file, cookie_here).and_then(|cookie| cookie).map_err(failed(what))?;
        Ok(Self { path: path.into(), id: NetnsId { cookie, ..id }, fd: file.into() })
    }

    /// The calling thread's own, which is the host's.
    ///
    /// # Errors
    /// The system's.
    pub fn own() -> io::Result<Self> {
        let file = open(Path::new(OWN), 0)?;
        let id = NetnsId { cookie: cookie_here()?, ..identity(&file)? };
        Ok(Self { path: OWN.into(), id, fd: file.into() })
    }

    /// Device and inode, which no other namespace has while this one is open, and the
    /// cookie, which no other ever has.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// As it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path leads this process to the namespace. It may not where a caller in
    /// other PID or mount namespaces gave it with a descriptor.
    pub fn is_at_its_path(&self) -> bool {
        let there = std::fs::metadata(&self.path);
        // Open, so nothing else has its inode.
        there.is_ok_and(|m| (m.dev(), m.ino()) == (self.id.dev, self.id.inode))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    File::options().read(true).custom_flags(flags | libc::O_CLOEXEC).open(path)
}

fn identity(file: &File) -> io::Result<NetnsId> {
    let metadata = file.metadata()?;
    Ok(NetnsId { dev: metadata.dev(), inode: metadata.ino(), cookie: None })
}

/// The cookie of the calling thread's namespace; `None` before Linux 5.14.
fn cookie_here() -> io::Result<Option<u64>> {
    /// asm-generic/socket.h; every architecture that netd is built for has this one.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    // Any socket has it; one of this family is the cheapest.
    let socket = UnixDatagram::unbound()?;
    let (mut cookie, mut size) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: pointer and size are of a live u64, which the kernel fills.
    let result = unsafe {
        let to = (&raw mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, to, &mut size)
    };
    match result {
        0 => Ok(Some(cookie)),
        _ => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
            e => Err(e),
        },
    }
}

/// What it says about a path that it could not be used. That the system is short of
/// something says nothing about it.
fn unusable(path: &Path) -> impl Fn(io::Error) -> DataplaneError {
    move |e| match e.raw_os_error().is_some_and(is_exhausted) {
        true => failed(format!("opening the network namespace {}", path.display()))(e),
        false => DataplaneError::NotANetns { path: path.into(), found: e.to_string() },
    }
}

/// Whether it is the process's or the thread's own. Both are remembered: reading them from
/// /proc takes as long as the rest of [`Netns::open`].
fn is_own(id: NetnsId) -> io::Result<bool> {
    let own = match OWN_IDS.get() {
        Some(own) => own,
        None => {
            let id = |path| open(Path::new(path), 0).and_then(|file| identity(&file));
            let own = [id(OWN)?, id("/proc/self/ns/net")?];
            OWN_IDS.set(Some(own));
            own
        }
    };
    Ok(own.iter().any(|own| own.is_same(&id)))
}

/// The kind of file at a path that is no namespace.
fn describe(file: &File) -> String {
    use std::os::unix::fs::FileTypeExt;
    let Ok(kind) = file.metadata().map(|m| m.file_type()) else { return "unreadable".into() };
    let names = [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device() || kind.is_block_device(), "a device"),
    ];
    let name = names.iter().find(|(is, _)| *is).map_or("a regular file", |(_, name)| *name);
    name.into()
}

/// Runs `f` in the namespace `fd`. The thread is back in its own when this returns or panics.
/// If it can't go back the process aborts, because all its further work would happen in a
/// sandbox instead of on the host.
///
/// # Errors
/// The system's, if the namespace can't be entered; `f` has not run then.
pub fn run_in<T>(fd: impl AsFd, f: impl FnOnce() -> T) -> io::Result<T> {
    HOME.with_borrow_mut(|home| match home {
        Some(_) => Ok(()),
        None => open(Path::new(OWN), 0).map(|file| *home = Some(file.into())),
    })?;
    enter(fd.as_fd())?;
    let _return = Homeward;
    Ok(f())
}

struct Homeward;

impl Drop for Homeward {
    fn drop(&mut self) {
        let back = HOME.with_borrow(|home| match home {
            Some(fd) => enter(fd.as_fd()),
            None => Err(io::Error::other("home is not known")),
        });
        if let Err(e) = back {
            eprintln!("netd: a thread can't leave a sandbox's network namespace: {e}; aborting");
            std::process::abort();
        }
    }
}

/// Moves the calling thread to the namespace `fd` for the rest of its life.
///
/// # Errors
/// The system's.
pub fn enter_for_good(fd: impl AsFd) -> io::Result<()> {
    enter(fd.as_fd())?;
    HOME.with_borrow_mut(|home| *home = None);
    OWN_IDS.set(None);
    Ok(())
}

/// Takes the calling thread to the namespace that the dataplane works on.
pub(crate) fn go_home(home: Option<Arc<OwnedFd>>) -> Result<(), DataplaneError> {
    match home {
        Some(fd) => enter_for_good(fd.as_ref()).map_err(failed("entering the host's namespace")),
        None => Ok(()),
    }
}

/// The calling thread's namespace, for [`enter_for_good`] on another thread.
///
/// # Errors
/// The system's.
pub fn current() -> io::Result<OwnedFd> {
    Ok(open(Path::new(OWN), 0)?.into())
}

#[allow(clippy::disallowed_methods)]
fn enter(fd: BorrowedFd<'_>) -> io::Result<()> {
    nix::sched::setns(fd, nix::sched::CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}
