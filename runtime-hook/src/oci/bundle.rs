//! Which network namespace a container has: `linux.namespaces` of its config.json.

use std::{fs::File, path::Path};

use serde_json::Value;

use crate::{
    error::HookError,
    input::{parse, slurp},
    json::{JsonNode, Reader},
};

/// Where the container's network namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// No `network` entry: it stays in the runtime's, the host's.
    Host,
    /// An entry without path: the runtime makes a new one.
    Own,
    /// An entry with a path: a program made it before.
    Joined(String),
}

/// Reads `BUNDLE/config.json`.
///
/// # Errors
/// [`HookError::Io`], [`HookError::Decode`], [`HookError::Config`].
pub fn netns(bundle: &Path) -> Result<Netns, HookError> {
    let path = bundle.join("config.json");
    let what = path.display().to_string();
    let file = File::open(&path).map_err(|e| HookError::io(format!("can't open {what}"), e))?;
    of_config(&parse(&slurp(file, &what)?, &what)?)
}

fn of_config(config: &Value) -> Result<Netns, HookError> {
    let root = JsonNode::root(config);
    let mut reader = Reader::new();
    let linux = reader.object(root.get("linux"));
    let mut found = Netns::Host;
    for node in reader.list(linux.and_then(|l| l.get("namespaces"))) {
        let Some(entry) = reader.object(Some(node)) else { continue };
        if reader.string(entry.get("type")).as_deref() != Some("network") {
            continue;
        }
        found = match reader.string(entry.get("path")) {
            Some(path) if !path.is_empty() => Netns::Joined(path),
            _ => Netns::Own,
        };
    }
    reader.finish().map(|()| found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_namespace_s_entry_decides() {
        let of = |entries: Value| of_config(&json!({"linux": {"namespaces": entries}})).unwrap();
        assert_eq!(of(json!([{"type": "mount"}, {"type": "network"}])), Netns::Own);
        assert_eq!(of(json!([{"type": "network", "path": ""}])), Netns::Own);
        assert_eq!(of(json!([{"type": "pid"}])), Netns::Host);
        assert_eq!(of_config(&json!({})).unwrap(), Netns::Host);
        let joined = of(json!([{"type": "network", "path": "/run/netns/x"}]));
        assert_eq!(joined, Netns::Joined("/run/netns/x".into()));
    }

    #[test]
    fn a_broken_config_is_an_error_and_not_the_host_s_namespace() {
        for bad in [
            json!({"linux": 1}),
            json!({"linux": {"namespaces": {}}}),
            json!({"linux": {"namespaces": ["network"]}}),
            json!({"linux": {"namespaces": [{"type": "network", "path": 1}]}}),
        ] {
            assert!(of_config(&bad).is_err(), "{bad}");
        }
        assert!(netns(Path::new("/nonexistent")).is_err());
    }
}
