//! The conflist that `install` writes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    cni::capabilities::POD_ANNOTATIONS,
    cni::config::DEFAULT_NETWORK,
    error::{HookError, shown},
};

/// The plugin's file name in the directory of executables, and its `type` in the conflist.
pub(super) const PLUGIN: &str = "netd-hook";

/// What every runtime speaks, and what those of 2024 and later do: these ask netd by STATUS whether
/// pods can start. A runtime takes the newest of `cniVersions` that it knows, and an older one
/// knows `cniVersion` only.
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// What may differ between nodes.
pub(super) struct Settings<'a> {
    /// The only CNI version; `None`: the newest that the runtime speaks.
    pub(super) cni_version: Option<&'a str>,
    /// The name of netd's network.
    pub(super) network: &'a str,
    /// The path of netd's socket.
    pub(super) socket: &'a str,
    /// Limit of each call of netd, in seconds.
    pub(super) timeout: u64,
}

/// The conflist as JSON text. For another network than the default one, its name contains the
/// network's, so that two conflists on one node differ in name.
pub(super) fn render(settings: &Settings<'_>) -> String {
    let name = match settings.network {
        DEFAULT_NETWORK => "netd".to_owned(),
        other => format!("netd-{other}"),
    };
    let plugin = json!({
        "type": PLUGIN,
        "network": settings.network,
        "socket": settings.socket,
        "timeout": settings.timeout,
        "capabilities": {
            "portMappings": true,
            "bandwidth": true,
            "ips": true,
            "mac": true,
            "dns": true,
            POD_ANNOTATIONS: true,
        },
    });
    let mut list = json!({
        "cniVersion": settings.cni_version.unwrap_or(VERSIONS[0]),
        "name": name,
        "plugins": [plugin],
    });
    if settings.cni_version.is_none() {
        list["cniVersions"] = json!(VERSIONS);
    }
    format!("{list:#}\n")
}

/// Whether a conflist has a plugin of netd's type.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return false };
    let calls = |plugin: &Value| plugin.get("type").and_then(Value::as_str) == Some(PLUGIN);
    value.get("plugins").and_then(Value::as_array).is_some_and(|all| all.iter().any(calls))
}

/// CNI configurations whose file names sort before `name`, in order.
///
/// # Errors
/// [`HookError::Io`] when the directory can't be read.
pub(super) fn sorting_before(dir: &Path, name: &str) -> Result<Vec<PathBuf>, HookError> {
    let failed = |e| HookError::io(format!("can't list {}", dir.display()), e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // libcni reads files with these extensions.
        let is_read =
            path.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json");
        if is_read && path.file_name().is_some_and(|other| other < name) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Checks the file name of a conflist; used as a parser of clap.
pub(super) fn file_name(name: &str) -> Result<String, String> {
    if name.ends_with(".conflist") && !name.starts_with('.') && !name.contains('/') {
        return Ok(name.to_owned());
    }
    Err("must be a file name that ends with .conflist".into())
}

/// Checks the name of a network as netd's CreateNetwork does; used as a parser of clap.
pub(super) fn network_name(name: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edges = name.starts_with('-') || name.ends_with('-');
    if (1..=63).contains(&name.len()) && name.bytes().all(inner) && !edges {
        return Ok(name.to_owned());
    }
    Err(format!(
        "{} must be 1 to 63 of a-z, 0-9 and '-', with a letter or a digit at both ends",
        shown(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings<'static> {
        Settings {
            cni_version: None,
            network: DEFAULT_NETWORK,
            socket: netd_api::DEFAULT_SOCKET,
            timeout: 30,
        }
    }

    #[test]
    fn the_reference_copy_is_what_install_writes() {
        let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/cni/10-netd.conflist");
        assert_eq!(fs::read_to_string(copy).unwrap(), render(&settings()));
    }

    #[test]
    fn conflists_are_told_apart() {
        assert!(is_ours(render(&settings()).as_bytes()));
        for other in ["", "{}", "[1]", r#"{"plugins": [{"type": "bridge"}]}"#] {
            assert!(!is_ours(other.as_bytes()), "{other}");
        }
        let second = render(&Settings { network: "blue", ..settings() });
        assert!(second.contains("\"netd-blue\""), "{second}");
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "x.conf", "../x.conflist", ".x.conflist"] {
            assert!(file_name(bad).is_err(), "{bad}");
        }
        for bad in ["", "-a", "A", "a b", &"x".repeat(64)] {
            assert!(network_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_configurations_that_sort_before_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["00-a.conf", "05-b.json", "05-c.txt", "10-netd.conflist", "20-d.conflist"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = sorting_before(dir.path(), "10-netd.conflist").unwrap();
        assert_eq!(found, [dir.path().join("00-a.conf"), dir.path().join("05-b.json")]);
    }
}
