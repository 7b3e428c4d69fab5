//! What peers know this node by, in a file: the same after a restart, a reboot, a lost
//! device.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use x25519_dalek::StaticSecret;

use netd_domain::{Mac, overlay::SecretKey};

/// Keys and addresses that peers know this node by.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// MAC of `flannel.<VNI>`.
    pub vtep_v4: Mac,
    /// MAC of `flannel-v6.<VNI>`.
    pub vtep_v6: Mac,
    /// WireGuard's.
    pub wireguard: SecretKey,
}

/// In the state directory; for root's eyes only.
const FILE: &str = "overlay-identity.json";

/// Reads this node's identity, or makes one and writes it first.
///
/// # Errors
/// The file can't be read, is damaged, or can't be written. A damaged one is left for a
/// person to look at: another identity would cut running WireGuard peers off.
pub fn load(state_dir: &Path) -> io::Result<Identity> {
    let path = state_dir.join(FILE);
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
            let text = format!("{}: {e}; remove it to get a new identity", path.display());
            io::Error::new(ErrorKind::InvalidData, text)
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let made = make();
            write(&path, &made).map_err(named)?;
            Ok(made)
        }
        Err(e) => Err(named(e)),
    }
}

/// Replaces this node's identity, which another machine has too.
///
/// # Errors
/// The file can't be written; the old identity stays.
pub fn renew(state_dir: &Path) -> io::Result<Identity> {
    let made = make();
    save(state_dir, &made)?;
    Ok(made)
}

/// Puts an identity in place of the one that is on disk.
///
/// # Errors
/// The file can't be written; the old identity stays.
pub fn save(state_dir: &Path, identity: &Identity) -> io::Result<()> {
    let path = state_dir.join(FILE);
    write(&path, identity).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn make() -> Identity {
    let random = || StaticSecret::random().to_bytes();
    Identity {
        vtep_v4: Mac::derived(&random()),
        vtep_v6: Mac::derived(&random()),
        // The bits that X25519 fixes (RFC 7748, section 5) are fixed here already: tools
        // show keys as the kernel has them.
        wireguard: SecretKey(clamped(random())),
    }
}

fn clamped(mut key: [u8; 32]) -> [u8; 32] {
    key[0] &= 248;
    key[31] = (key[31] & 127) | 64;
    key
}

fn write(path: &Path, identity: &Identity) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(identity)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(dir.path()).unwrap();
        assert_eq!(load(dir.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load(other.path()).unwrap(), first);
        let renewed = renew(other.path()).unwrap();
        assert!(renewed.wireguard != first.wireguard && renewed.vtep_v4 != first.vtep_v4);
        assert_eq!(load(other.path()).unwrap(), renewed);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&format!("{:?}", first.wireguard.0)));
    }

    #[test]
    fn a_damaged_one_is_named_and_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("remove it"), "{error}");
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"{");
    }
}
