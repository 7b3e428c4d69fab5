//! The one part of the configuration that touches the machine: reads the file
//! and the host's name.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use super::{Config, Override, Sources};
use netd_domain::Invalid;

/// Read when no other file is named; may be absent.
pub const DEFAULT_FILE: &str = "/etc/netd/netd.toml";

const MOST_BYTES: u64 = 1 << 20;

/// Reads the file that was named, or the default one, and puts `overrides` over it.
///
/// # Errors
/// The named file can't be read, or every wrong key of all sources.
pub fn load(file: Option<&Path>, overrides: Vec<Override>) -> Result<Config, Invalid> {
    let path = file.map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_owned);
    let text = match read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound && file.is_none() => String::new(),
        read => read.map_err(|e| {
            let hint = "name another with --config or NETD_CONFIG";
            Invalid::field(path.display().to_string(), format!("can't be read: {e}; {hint}"))
        })?,
    };
    let hostname = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    Sources { file: path, text, overrides, hostname }.config()
}

fn read(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = String::new();
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        let rule = format!("larger than {MOST_BYTES} bytes");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, rule));
    }
    Ok(text)
}
