//! The saved state, from which a process that was killed restores its tunnels without netd.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use netd_api::tunnel::v1 as pb;
use prost::Message as _;

/// The file. It holds private keys: only its owner can read it.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// At this path; nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// What was last saved. A file that is missing or damaged holds nothing: netd says
    /// again what it wants.
    pub fn load(&self) -> pb::State {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return pb::State::default(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the state can't be read");
                return pb::State::default();
            }
        };
        pb::State::decode(bytes.as_slice()).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "the state is damaged");
            pb::State::default()
        })
    }

    /// Replaces what was saved. It need not outlive the machine, so nothing waits for
    /// the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self, state: &pb::State) -> io::Result<()> {
        let mut fresh = self.path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        // Its mode is given when it is made, so it must not be there.
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&state.encode_to_vec())?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_the_owner_reads_it_and_damage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let file = StateFile::new(&path);
        assert_eq!(file.load(), pb::State::default());
        let tunnel = pb::Tunnel { device: "flannel0".into(), ..Default::default() };
        let saved = pb::SavedTunnel { tunnel: Some(tunnel), peers: vec![] };
        let state = pb::State { tunnels: vec![saved] };
        file.save(&state).unwrap();
        file.save(&state).unwrap();
        assert_eq!(file.load(), state);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, [0xff; 100]).unwrap();
        assert_eq!(file.load(), pb::State::default());
    }
}
