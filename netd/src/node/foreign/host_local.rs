//! What CNI's `host-local` has given out: a file for each address, in a directory for each
//! network. netd only reads them, and removes one when its pod is detached.
//!
//! The files outlive reboots and pods that were killed, so a file alone does not say that
//! its address is in use. Whatever else lies there must neither block netd nor fill its
//! memory: only regular files are opened, and only their beginnings read. The lock that
//! `host-local` takes is for its own choice of addresses; to remove a file needs none.

use std::{
    fs::{self, File},
    io::Read as _,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

/// More files than a node can have pods.
const MAX_FILES: usize = 65_536;
/// A container id and an interface's name: CNI's own limit for the former is 256 bytes.
const MAX_CONTENT: u64 = 1024;
/// What a runtime has kept of one ADD.
const MAX_RESULT: u64 = 1 << 20;

/// An address that `host-local` has given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) ip: IpAddr,
    pub(super) container: String,
    /// Files of releases before 0.8 of the plugins have none.
    pub(super) ifname: Option<String>,
    pub(super) file: PathBuf,
    /// Time since it was written; `None`: its time lies in the future.
    pub(super) age: Option<Duration>,
}

/// Every reservation below `directory`, in no order; none if there is no such directory.
pub(super) fn reservations(directory: &Path) -> Vec<Reservation> {
    let now = SystemTime::now();
    let networks = entries(directory).filter(|path| is_directory(path));
    let files = networks.flat_map(|network| entries(&network).collect::<Vec<_>>());
    files.take(MAX_FILES).filter_map(|file| reservation(file, now)).collect()
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let all = fs::read_dir(directory).into_iter().flatten();
    all.filter_map(|entry| Some(entry.ok()?.path())).take(MAX_FILES)
}

/// A link to one could lead in a circle.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn reservation(file: PathBuf, now: SystemTime) -> Option<Reservation> {
    let ip = file.file_name()?.to_str()?.parse().ok()?;
    let (text, modified) = beginning(&file, MAX_CONTENT)?;
    let (container, ifname) = owner(&text)?;
    let age = now.duration_since(modified).ok();
    Some(Reservation { ip, container, ifname, file, age })
}

/// The container id and the interface's name; pure.
fn owner(text: &[u8]) -> Option<(String, Option<String>)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let container = lines.next().filter(|id| !id.contains(char::is_control))?;
    Some((container.to_owned(), lines.next().map(str::to_owned)))
}

/// The first bytes of a regular file, and when it was changed.
fn beginning(path: &Path, bytes: u64) -> Option<(Vec<u8>, SystemTime)> {
    // Looked at first: to open a device may have an effect.
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let opened = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text).ok()?;
    Some((text, opened.modified().ok()?))
}

/// The files in which a runtime's library keeps what ADD answered: libcni writes them beside
/// host-local's directory.
pub(super) fn kept_results(directory: &Path) -> Vec<PathBuf> {
    let results = directory.parent().map(|parent| parent.join("results"));
    results.map(|results| entries(&results).collect()).unwrap_or_default()
}

/// Whether the sandbox lives that one of these files names for a container.
pub(super) fn sandbox_lives(results: &[PathBuf], container: &str) -> bool {
    let needle = format!("-{container}-");
    let named = |path: &&PathBuf| {
        path.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.contains(&needle))
    };
    results.iter().filter(named).any(|path| {
        let text = beginning(path, MAX_RESULT).map(|(text, _)| text).unwrap_or_default();
        sandboxes(&text).iter().any(|path| is_namespace(Path::new(path)))
    })
}

/// The paths of sandboxes in such a result; pure.
fn sandboxes(text: &[u8]) -> Vec<String> {
    let Ok(kept) = serde_json::from_slice::<Value>(text) else { return Vec::new() };
    let interfaces = kept["result"]["interfaces"].as_array().into_iter().flatten();
    let paths = interfaces.filter_map(|interface| interface["sandbox"].as_str());
    paths.filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

fn is_namespace(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let own = fs::metadata("/proc/self/ns/net").map(|own| own.dev());
    fs::metadata(path).is_ok_and(|found| own.is_ok_and(|own| own == found.dev()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_of_every_release_are_read_and_junk_is_not() {
        let read = |text: &[u8]| owner(text);
        assert_eq!(read(b"abc\r\neth0"), Some(("abc".into(), Some("eth0".into()))));
        assert_eq!(read(b"abc\neth1\n"), Some(("abc".into(), Some("eth1".into()))));
        assert_eq!(read(b"abc"), Some(("abc".into(), None)));
        for junk in [&b""[..], b"\r\n", b"\xff\xfe", b"\0\0"] {
            assert_eq!(read(junk), None, "{junk:?}");
        }
    }

    #[test]
    fn only_files_named_by_an_address_are_reservations() {
        let dir = tempfile::tempdir().unwrap();
        let network = dir.path().join("cbr0");
        fs::create_dir(&network).unwrap();
        for name in ["10.1.0.2", "fd00::2", "last_reserved_ip.0", "lock", "10.1.0.300"] {
            fs::write(network.join(name), "abc\r\neth0").unwrap();
        }
        fs::create_dir(network.join("10.1.0.3")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", network.join("10.1.0.4")).unwrap();
        fs::write(dir.path().join("10.1.0.5"), "abc").unwrap();
        let mut found: Vec<_> = reservations(dir.path()).into_iter().map(|r| r.ip).collect();
        found.sort();
        assert_eq!(found, ["10.1.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert_eq!(reservations(Path::new("/nonexistent")), []);
    }

    #[test]
    fn a_kept_result_names_the_sandbox() {
        let kept = br#"{"kind":"cniCacheV1","containerId":"abc","result":{"interfaces":[
            {"name":"cni0"},{"name":"veth1","sandbox":""},
            {"name":"eth0","sandbox":"/proc/self/ns/net"}]}}"#;
        assert_eq!(sandboxes(kept), ["/proc/self/ns/net"]);
        assert_eq!(sandboxes(b"junk"), Vec::<String>::new());
        let dir = tempfile::tempdir().unwrap();
        let (networks, results) = (dir.path().join("networks"), dir.path().join("results"));
        fs::create_dir(&results).unwrap();
        fs::write(results.join("cbr0-abc-eth0"), kept).unwrap();
        let results = kept_results(&networks);
        assert!(sandbox_lives(&results, "abc"));
        assert!(!sandbox_lives(&results, "ab"));
    }
}
