//! Makes the Unix sockets of netd's programs.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::Path,
};

/// Listens at `path`, in the place of whatever is there, with exactly this mode; `owned` may
/// change its owner first. Whatever the umask is, at no moment can anyone else connect: the
/// socket is made in a directory of its own, `.NAME` and the process's id beside it, and moved
/// when all is right.
///
/// # Errors
/// The system's.
pub fn listen(
    path: &Path,
    mode: u32,
    name: &str,
    owned: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<UnixListener> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    make_directory(parent)?;
    // Short: a socket's path has at most 107 bytes. Another process may make a socket here at
    // the same moment.
    let private = parent.join(format!(".{name}{}", std::process::id()));
    match fs::remove_dir_all(&private) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&private)?;
    let fresh = private.join("s");
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(mode))?;
    owned(&fresh)?;
    fs::rename(&fresh, path)?;
    fs::remove_dir(&private)?;
    Ok(listener)
}

/// Makes a directory that all may pass, whatever the umask is; one that is there keeps its mode.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}
