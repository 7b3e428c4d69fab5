//! The saved state, from which a process that was killed restores its tunnels without netd:
//! a file with everything, and one with the changes of peers since it was written.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use netd_api::tunnel::v1 as pb;
use parking_lot::Mutex;
use prost::Message as _;

/// Bytes of changes that are kept however short the rest is.
const LEAST_CHANGES: u64 = 64 << 10;

/// The files. They hold private keys: only their owner can read them.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    changes: Mutex<Option<Changes>>,
}

/// The file of changes, open.
#[derive(Debug)]
struct Changes {
    file: File,
    bytes: u64,
    /// Of the file with everything.
    whole: u64,
}

/// What was saved.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// Everything, at one time.
    pub state: pb::State,
    /// Changes since, in order.
    pub changes: Vec<pb::UpdatePeersRequest>,
}

impl StateFile {
    /// At this path; nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), changes: Mutex::default() }
    }

    /// What was last saved. A file that is missing or damaged holds nothing, and of changes
    /// those before the damage: netd says again what it wants.
    pub fn load(&self) -> Saved {
        let Some(bytes) = read(&self.path) else { return Saved::default() };
        match pb::State::decode(bytes.as_slice()) {
            Ok(state) => Saved { state, changes: self.load_changes() },
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the state is damaged");
                Saved::default()
            }
        }
    }

    fn load_changes(&self) -> Vec<pb::UpdatePeersRequest> {
        let Some(bytes) = read(&self.changes_path()) else { return vec![] };
        // Those of an earlier state are of no use.
        let rest =
            fs::metadata(&self.path).ok().and_then(|m| bytes.strip_prefix(stamp(&m).as_slice()));
        let (mut rest, mut changes) = (rest.unwrap_or_default(), vec![]);
        while !rest.is_empty() {
            match pb::UpdatePeersRequest::decode_length_delimited(&mut rest) {
                Ok(change) => changes.push(change),
                // The process was killed while it wrote.
                Err(_) => break,
            }
        }
        changes
    }

    /// Replaces what was saved. It need not outlive the machine, so nothing waits for
    /// the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self, state: &pb::State) -> io::Result<()> {
        let mut open = self.changes.lock();
        *open = None;
        let fresh = self.beside(".new");
        let mut file = create(&fresh)?;
        file.write_all(&state.encode_to_vec())?;
        fs::rename(&fresh, &self.path)?;
        let metadata = file.metadata()?;
        let mut changes = create(&self.changes_path())?;
        changes.write_all(&stamp(&metadata))?;
        *open = Some(Changes { file: changes, bytes: 0, whole: metadata.len() });
        Ok(())
    }

    /// Saves a change of peers after all that was saved. False: it was not, and everything is
    /// to be saved.
    pub fn append(&self, change: &pb::UpdatePeersRequest) -> bool {
        let mut open = self.changes.lock();
        let Some(changes) = open.as_mut() else { return false };
        let bytes = change.encode_length_delimited_to_vec();
        changes.bytes += bytes.len() as u64;
        let fits = changes.bytes <= changes.whole.max(LEAST_CHANGES);
        fits && changes.file.write_all(&bytes).is_ok()
    }

    fn changes_path(&self) -> PathBuf {
        self.beside(".changes")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(suffix);
        path.into()
    }
}

/// Says of which file with everything changes are: no two are of one inode and one time.
fn stamp(metadata: &fs::Metadata) -> Vec<u8> {
    let numbers = [metadata.ino() as i64, metadata.mtime(), metadata.mtime_nsec()];
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Its mode is given when it is made, so it must not be there.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Some(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the state can't be read");
            None
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state() -> pb::State {
        let tunnel = pb::Tunnel { device: "flannel0".into(), ..Default::default() };
        pb::State { tunnels: vec![pb::SavedTunnel { tunnel: Some(tunnel), peers: vec![] }] }
    }

    fn change(n: usize) -> pb::UpdatePeersRequest {
        let remove = vec![format!("192.0.2.1:{n}")];
        pb::UpdatePeersRequest { device: "flannel0".into(), remove, ..Default::default() }
    }

    #[test]
    fn only_the_owner_reads_it_and_damage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let file = StateFile::new(&path);
        assert_eq!(file.load(), Saved::default());
        file.save(&state()).unwrap();
        file.save(&state()).unwrap();
        assert!(file.append(&change(1)));
        assert_eq!(file.load(), Saved { state: state(), changes: vec![change(1)] });
        for file in fs::read_dir(dir.path()).unwrap() {
            let metadata = file.unwrap().metadata().unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, [0xff; 100]).unwrap();
        assert_eq!(file.load(), Saved::default());
    }

    #[test]
    fn changes_are_added_and_those_of_another_state_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let file = StateFile::new(&path);
        assert!(!file.append(&change(0)), "there is nothing that it would be a change of");
        file.save(&state()).unwrap();
        let changes: Vec<_> = (0..100).map(change).collect();
        assert!(changes.iter().all(|change| file.append(change)));
        assert_eq!(StateFile::new(&path).load().changes, changes);
        // Killed while it wrote.
        let half = dir.path().join("state.changes");
        let bytes = fs::read(&half).unwrap();
        fs::write(&half, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(StateFile::new(&path).load().changes, changes[..99]);
        // An earlier release knows one file only.
        fs::write(&half, &bytes).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, state().encode_to_vec()).unwrap();
        assert_eq!(StateFile::new(&path).load(), Saved { state: state(), changes: vec![] });
        // What has become long is written as a whole.
        file.save(&state()).unwrap();
        let appended = (0..).take_while(|n| file.append(&change(*n))).count();
        assert!((1000..10_000).contains(&appended), "{appended}");
    }
}
