//! Reads the configuration file and the machine's hostname.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use super::{Config, Override, Sources};
use netd_domain::Invalid;

/// The file that is read when no other is named; it may be absent.
pub(crate) const DEFAULT_FILE: &str = "/etc/netd/netd.toml";

const MAX_BYTES: u64 = 1 << 20;

/// Reads `file`, or [`DEFAULT_FILE`] if `None`, and applies `overrides` to it.
///
/// # Errors
/// The file can't be read, or all wrong keys of all sources.
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
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        let rule = format!("larger than {MAX_BYTES} bytes");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, rule));
    }
    Ok(text)
}
