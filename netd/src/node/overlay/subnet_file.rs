//! flannel's environment file, for Docker and others that read it.

use std::{
    fs::{DirBuilder, Permissions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use netd_cluster::{
    Local, Subnets,
    flannel::subnet_env::{Half, SubnetEnv},
};

/// The file's contents for one of this node's subnets.
pub(super) fn contents(local: &Local, subnets: Subnets, mtu: u32, masquerade: bool) -> String {
    let v4 = local.cluster.v4.zip(subnets.v4);
    let v6 = local.cluster.v6.zip(subnets.v6);
    let env = SubnetEnv {
        v4: v4.map(|(range, subnet)| Half { network: range.network, subnet }),
        v6: v6.map(|(range, subnet)| Half { network: range.network, subnet }),
        mtu,
        ip_masq: masquerade,
    };
    env.render()
}

/// Writes the file by rename, so that no reader sees half of it. It is not written if it has
/// these contents already.
///
/// # Errors
/// The system's error, with the path.
pub(super) fn write(path: &Path, text: &str) -> Result<(), String> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
    let beside = path.with_extension("env.netd");
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o644);
    let mut file = options.open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    // Readable by all users, whatever the service's umask is.
    file.set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

/// Removes the file, if it exists.
///
/// # Errors
/// The system's error, with the path.
pub(super) fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {e}", path.display()))
        }
        _ => Ok(()),
    }
}
