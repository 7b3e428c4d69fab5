//! What a node remembers of the cluster on disk, so that it can start without the store.
//!
//! Three files: `node-id`, made once; `overlay.json`, small, written before a change of
//! the node's own subnets takes effect; `overlay-peers.json`, as large as the cluster,
//! written now and then. Whatever is wrong with them, what can be read is used: the
//! store has the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    claims::{MAX_PAST, MAX_SUBNETS},
    diff::Known,
    records::OwnerRecord,
};
use crate::{Lease, LeaseAttrs, Subnets, flannel};
use netd_store::Revision;

const OWN: &str = "overlay.json";
const PEERS: &str = "overlay-peers.json";
const NODE_ID: &str = "node-id";
/// The kernel makes random UUIDs (random(4)).
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";
const VERSION: u32 = 1;
/// Largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What a node knows of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OwnFile {
    /// The cluster's configuration as it was read.
    pub config: Option<String>,
    /// What was announced last.
    pub attrs: Option<LeaseAttrs>,
    /// What was announced before.
    pub past: Vec<LeaseAttrs>,
    pub wanted: usize,
    /// Since when.
    pub held: BTreeMap<Subnets, u64>,
    pub leaving: BTreeSet<Subnets>,
    /// Lost to a writer that ignores netd's keys.
    pub overwritten: BTreeSet<Subnets>,
    /// Which incarnation of the node used them; `None`: a netd that did not say.
    pub incarnation: Option<String>,
}

/// What a node knows of the others.
#[derive(Debug, Clone, Default)]
pub(super) struct PeersFile {
    pub peers: BTreeMap<String, Known>,
    pub owners: BTreeMap<String, Arc<OwnerRecord>>,
}

#[derive(Serialize, Deserialize)]
struct OwnJson {
    version: u32,
    node: String,
    config: Option<String>,
    announced: Option<String>,
    #[serde(default)]
    announced_before: Vec<String>,
    wanted: usize,
    own: BTreeMap<String, u64>,
    #[serde(default)]
    leaving: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    overwritten: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incarnation: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct PeersJson {
    version: u32,
    peers: BTreeMap<String, PeerJson>,
}

#[derive(Serialize, Deserialize)]
struct PeerJson {
    value: String,
    #[serde(default)]
    reservation: bool,
    created: Revision,
    modified: Revision,
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerRecord>,
}

impl OwnFile {
    /// As it was written last; empty if there is nothing that can be read.
    pub(super) fn read(state_dir: &Path) -> Self {
        let Some(json) = read_json::<OwnJson>(&state_dir.join(OWN), |json| json.version) else {
            return Self::default();
        };
        let subnets = |name: &String| flannel::key::parse(name).ok();
        let attrs = |value: &String| flannel::value::parse(value.as_bytes()).ok();
        let held = json.own.iter().filter_map(|(name, since)| Some((subnets(name)?, *since)));
        Self {
            config: json.config,
            attrs: json.announced.as_ref().and_then(attrs),
            past: json.announced_before.iter().filter_map(attrs).take(MAX_PAST).collect(),
            wanted: json.wanted.min(MAX_SUBNETS),
            held: held.take(MAX_SUBNETS).collect(),
            leaving: json.leaving.iter().filter_map(subnets).collect(),
            overwritten: json.overwritten.iter().filter_map(subnets).take(MAX_SUBNETS).collect(),
            incarnation: json.incarnation,
        }
    }

    /// Written when this returns, also if power fails.
    pub(super) fn write(&self, state_dir: &Path, node: &str) -> io::Result<()> {
        let json = OwnJson {
            version: VERSION,
            node: node.to_owned(),
            config: self.config.clone(),
            announced: self.attrs.as_ref().map(flannel::value::format),
            announced_before: self.past.iter().map(flannel::value::format).collect(),
            wanted: self.wanted,
            own: self.held.iter().map(|(s, since)| (flannel::key::name(s), *since)).collect(),
            leaving: self.leaving.iter().map(flannel::key::name).collect(),
            overwritten: self.overwritten.iter().map(flannel::key::name).collect(),
            incarnation: self.incarnation.clone(),
        };
        write(&state_dir.join(OWN), &serde_json::to_vec_pretty(&json)?)
    }
}

impl PeersFile {
    /// As [`OwnFile::read`].
    pub(super) fn read(state_dir: &Path) -> Self {
        let mut file = Self::default();
        let json = read_json::<PeersJson>(&state_dir.join(PEERS), |json| json.version);
        for (name, peer) in json.into_iter().flat_map(|json| json.peers) {
            let subnets = flannel::key::parse(&name);
            let attrs = flannel::value::parse(peer.value.as_bytes());
            let (Ok(subnets), Ok(attrs)) = (subnets, attrs) else { continue };
            let known = Known {
                lease: Arc::new(Lease { subnets, attrs, reservation: peer.reservation }),
                created: peer.created,
                modified: peer.modified,
                since: peer.since,
            };
            if let Some(owner) = peer.owner {
                file.owners.insert(name.clone(), Arc::new(owner));
            }
            file.peers.insert(name, known);
        }
        file
    }

    /// As [`OwnFile::write`].
    pub(super) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let peer = |(name, known): (&String, &Known)| {
            let json = PeerJson {
                value: flannel::value::format(&known.lease.attrs),
                reservation: known.lease.reservation,
                created: known.created,
                modified: known.modified,
                since: known.since,
                owner: self.owners.get(name).map(|owner| OwnerRecord::clone(owner)),
            };
            (name.clone(), json)
        };
        let json = PeersJson { version: VERSION, peers: self.peers.iter().map(peer).collect() };
        write(&state_dir.join(PEERS), &serde_json::to_vec(&json)?)
    }
}

/// The node's id: made on the first start, the same ever after.
///
/// # Errors
/// It can be neither read nor made.
pub(super) fn node_id(state_dir: &Path) -> io::Result<String> {
    make_private(state_dir)?;
    let path = state_dir.join(NODE_ID);
    match read_some(&path) {
        Ok(bytes) => {
            if let Some(id) = uuid(&bytes) {
                return Ok(id);
            }
            tracing::warn!(path = %path.display(), "the file holds no UUID; writing a new one");
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        // A new id would give up the node's subnets.
        Err(err) => return Err(err),
    }
    let remembered = read_json::<OwnJson>(&state_dir.join(OWN), |json| json.version);
    let id = match remembered.and_then(|json| uuid(json.node.as_bytes())) {
        Some(id) => id,
        None => random_uuid()?,
    };
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    write(&path, format!("{id}\n").as_bytes())?;
    Ok(id)
}

/// Takes from others what an earlier netd let them read.
fn make_private(state_dir: &Path) -> io::Result<()> {
    let files = [OWN, PEERS, NODE_ID].map(|name| (state_dir.join(name), 0o600));
    for (path, mode) in files.into_iter().chain([(state_dir.to_owned(), 0o700)]) {
        match fs::set_permissions(path, Permissions::from_mode(mode)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Gives the node a new id, and `file` in place of what the old one had.
///
/// # Errors
/// They can't be written; the old id stays.
pub(super) fn new_node_id(state_dir: &Path, file: &OwnFile) -> io::Result<String> {
    let id = random_uuid()?;
    // First: a crash in between must not leave the new id with the old one's subnets.
    file.write(state_dir, &id)?;
    write(&state_dir.join(NODE_ID), format!("{id}\n").as_bytes())?;
    Ok(id)
}

/// A UUID that nothing else has.
pub(super) fn random_uuid() -> io::Result<String> {
    uuid(&fs::read(RANDOM_UUID)?)
        .ok_or_else(|| io::Error::other(format!("{RANDOM_UUID} gave no UUID")))
}

/// A UUID in its usual form (RFC 9562, section 4), lower case.
fn uuid(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let digits = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    (lengths == [8, 4, 4, 4, 12] && text.split('-').all(digits)).then(|| text.to_owned())
}

/// What a file says; `None`: there is none, or none that can be read, or of another version.
pub fn read_json<T: for<'a> Deserialize<'a>>(
    path: &Path,
    version: impl Fn(&T) -> u32,
) -> Option<T> {
    let read = read_some(path).and_then(|bytes| Ok(serde_json::from_slice::<T>(&bytes)?));
    match read {
        Ok(json) if version(&json) == VERSION => Some(json),
        Ok(json) => {
            let version = version(&json);
            tracing::warn!(path = %path.display(), version, "of another version; it is ignored");
            None
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => None,
        Err(err) => {
            tracing::warn!(path = %path.display(), %err, "can't be read; it is ignored");
            None
        }
    }
}

fn read_some(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Puts a file in place of another, whole or not at all, for root alone.
///
/// # Errors
/// The system's.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    // The cluster's configuration has WireGuard's key for all nodes.
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(name: &str) -> Subnets {
        flannel::key::parse(name).unwrap()
    }

    fn attrs(ip: &str) -> LeaseAttrs {
        LeaseAttrs { public_v4: Some(ip.parse().unwrap()), ..LeaseAttrs::default() }
    }

    fn own() -> OwnFile {
        OwnFile {
            config: Some("{}".into()),
            attrs: Some(attrs("192.0.2.1")),
            past: vec![attrs("192.0.2.2")],
            wanted: 2,
            held: [(subnets("10.5.1.0-24"), 7), (subnets("10.5.2.0-24&fc00:5::-64"), 8)].into(),
            leaving: [subnets("10.5.3.0-24")].into(),
            overwritten: [subnets("10.5.4.0-24")].into(),
            incarnation: Some("b".into()),
        }
    }

    #[test]
    fn files_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        own().write(dir.path(), "id").unwrap();
        assert_eq!(OwnFile::read(dir.path()), own());
        let lease = Arc::new(Lease {
            subnets: subnets("10.5.9.0-24"),
            attrs: attrs("192.0.2.9"),
            reservation: true,
        });
        let known = Known { lease, created: 3, modified: 4, since: 5 };
        let owner = OwnerRecord { id: "i".into(), node: "n".into(), since: 6, reserved: None };
        let file = PeersFile {
            peers: [("10.5.9.0-24".to_owned(), known)].into(),
            owners: [("10.5.9.0-24".to_owned(), Arc::new(owner))].into(),
        };
        file.write(dir.path()).unwrap();
        let read = PeersFile::read(dir.path());
        assert_eq!((read.peers, read.owners), (file.peers, file.owners));
    }

    #[test]
    fn an_id_lasts_and_outlives_the_loss_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let id = node_id(dir.path()).unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(node_id(dir.path()).unwrap(), id);
        own().write(dir.path(), &id).unwrap();
        fs::write(dir.path().join(NODE_ID), "").unwrap();
        assert_eq!(node_id(dir.path()).unwrap(), id);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(node_id(other.path()).unwrap(), id);
    }

    #[test]
    fn a_new_id_has_nothing_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let id = node_id(dir.path()).unwrap();
        own().write(dir.path(), &id).unwrap();
        let new = new_node_id(dir.path(), &OwnFile::default()).unwrap();
        assert_ne!(new, id);
        assert_eq!(node_id(dir.path()).unwrap(), new);
        assert_eq!(OwnFile::read(dir.path()), OwnFile::default());
    }

    #[test]
    fn junk_on_disk_is_as_good_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let deep = "[".repeat(100_000);
        let future =
            r#"{"version":2,"node":"","config":null,"announced":null,"wanted":1,"own":{}}"#;
        for junk in ["", "{", "null", "\u{0}", &deep, future, r#"{"version":1}"#] {
            fs::write(dir.path().join(OWN), junk).unwrap();
            fs::write(dir.path().join(PEERS), junk).unwrap();
            assert_eq!(OwnFile::read(dir.path()), OwnFile::default());
            assert!(PeersFile::read(dir.path()).peers.is_empty());
        }
    }

    #[test]
    fn what_can_be_read_of_a_file_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"version":1,"node":"x","config":"[","announced":"{","wanted":9999999,
            "own":{"10.5.1.0-24":1,"junk":2,"10.5.1.1-99":3},"leaving":["?"]}"#;
        fs::write(dir.path().join(OWN), text).unwrap();
        let read = OwnFile::read(dir.path());
        assert_eq!(read.held, [(subnets("10.5.1.0-24"), 1)].into());
        assert_eq!((read.wanted, read.attrs, read.leaving.len()), (MAX_SUBNETS, None, 0));
        let text = r#"{"version":1,"peers":{
            "10.5.1.0-24":{"value":"{\"PublicIP\":\"192.0.2.1\"}","created":1,"modified":1,"since":1},
            "10.5.2.0-24":{"value":"{","created":1,"modified":1,"since":1}}}"#;
        fs::write(dir.path().join(PEERS), text).unwrap();
        let read = PeersFile::read(dir.path());
        assert_eq!(read.peers.keys().collect::<Vec<_>>(), ["10.5.1.0-24"]);
    }
}
