//! The boot in which a volatile file was made, kept beside the file. A power cut can damage
//! the file; the marker then tells that it is void anyway.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::error::io_failed;
use crate::{Revision, StoreError};

/// As text: the boot's id, a space, the revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootMarker {
    /// The boot in which the file was made.
    pub boot_id: String,
    /// A revision at which the file was: later boots begin above it.
    pub base: Revision,
}

fn marker_path(path: &Path) -> PathBuf {
    path.with_extension("boot")
}

impl BootMarker {
    /// The marker of the file at `path`; `None` if there is none that makes sense.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(marker_path(path)).ok()?;
        let (boot_id, base) = text.trim_end().split_once(' ')?;
        Some(Self { boot_id: boot_id.to_owned(), base: base.parse().ok()? })
    }

    /// Puts it beside the file at `path`, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let marker = marker_path(path);
        let fresh = marker.with_extension("boot.new");
        let mut options = File::options();
        let fresh_file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh);
        let written = fresh_file.and_then(|mut file| {
            file.write_all(format!("{} {}\n", self.boot_id, self.base).as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &marker)?;
            sync_directory(&marker)
        });
        written.map_err(|e| io_failed(&marker, "noting the boot", &e))
    }
}

fn sync_directory(of: &Path) -> io::Result<()> {
    File::open(of.parent().unwrap_or(Path::new("/")))?.sync_all()
}
