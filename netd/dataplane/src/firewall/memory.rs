//! What the last [`super::Firewall::replace`] left in the kernel, remembered over a
//! restart of netd: tables that have not changed since are adopted instead of replaced.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::inspect::Fingerprint;
use netd_domain::ids::fnv1a;

/// Both hashes contain handles of this boot, so after a reboot they match nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applied {
    /// Of the text without endpoints.
    text: u64,
    /// Of how the kernel shows it.
    kernel: u64,
}

impl Applied {
    /// `text`: the ruleset without endpoints.
    pub(super) fn new(text: &str, fingerprint: &Fingerprint) -> Self {
        Self { text: fnv1a(text.as_bytes()), kernel: fingerprint.hash() }
    }

    /// What is remembered in the file, if it can be read.
    pub(super) fn load(path: Option<&Path>) -> Option<Self> {
        serde_json::from_slice(&fs::read(path?).ok()?).ok()
    }
}

/// Remembers, or forgets, in the file. A failure costs a replace at the next start.
pub(super) fn keep(path: Option<&Path>, applied: Option<&Applied>) {
    let Some(path) = path else { return };
    let kept = match applied {
        Some(applied) => write(path, applied),
        None => fs::remove_file(path).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        }),
    };
    if let Err(error) = kept {
        tracing::warn!(path = %path.display(), %error, "the firewall's state can't be remembered");
    }
}

fn write(path: &Path, applied: &Applied) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(applied)?)?;
    fs::rename(&new, path)
}
