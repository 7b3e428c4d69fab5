//! The network configuration on stdin: the part that every command reads.

use std::time::Duration;

use serde_json::Value;

use super::{env, keys, version::SpecVersion};
use crate::{
    error::{HookError, shown},
    json::{JsonNode, Reader},
};

/// Seconds that netd has for a call unless `timeout` says otherwise. An ADD takes
/// milliseconds; kubelet gives a pod's sandbox four minutes in all.
pub const DEFAULT_TIMEOUT: u64 = 30;

/// Most seconds of `timeout`.
pub const MAX_TIMEOUT: u64 = 600;

/// The network of a configuration that names none.
pub const DEFAULT_NETWORK: &str = "default";

/// What every command needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `cniVersion`.
    pub version: SpecVersion,
    /// `name` of the network configuration.
    pub name: String,
    /// `network`: netd's network; empty or missing: "default".
    pub network: String,
    /// `defaultRoute`: whether the default routes lead through this interface; missing: if it is
    /// the first one of its sandbox.
    pub default_route: Option<bool>,
    /// `socket`: netd's, gRPC's or the hooks' beside it, which is used either way; missing:
    /// `/run/netd/netd.sock`.
    pub socket: String,
    /// `timeout`: for the whole call, 1 to 600 s; missing: 30 s.
    pub timeout: Duration,
}

impl Config {
    /// Reads the configuration; what is wrong is added to `reader`, and each key that asks for
    /// something that nothing does.
    pub fn read(root: &JsonNode<'_>, version: SpecVersion, reader: &mut Reader) -> Self {
        keys::check(root, reader);
        Self::read_known(root, version, reader)
    }

    /// The same, whatever other keys there are.
    pub(crate) fn read_known(
        root: &JsonNode<'_>,
        version: SpecVersion,
        reader: &mut Reader,
    ) -> Self {
        let name = read_name(root, reader);
        let network = reader.string(root.get("network")).filter(|n| !n.is_empty());
        let socket = reader.string(root.get("socket"));
        let socket = socket.unwrap_or_else(|| netd_api::DEFAULT_SOCKET.into());
        if let Err(problem) = check_socket(&socket) {
            reader.add("socket", problem);
        }
        let default_route = reader.flag(root.get("defaultRoute"));
        let seconds = reader.number(root.get("timeout"), 1..=MAX_TIMEOUT);
        Self {
            version,
            name,
            network: network.unwrap_or_else(|| DEFAULT_NETWORK.into()),
            default_route,
            socket,
            timeout: Duration::from_secs(seconds.unwrap_or(DEFAULT_TIMEOUT)),
        }
    }
}

/// Whom a DEL asks, and how long it waits, as far as the configuration says so: what made an
/// ADD fail must not make the DEL fail.
pub fn connection(root: Option<&JsonNode<'_>>) -> (String, Duration) {
    let text = root.and_then(|root| root.get("socket"));
    let text = text.as_ref().and_then(|node| node.as_str());
    let socket = text.filter(|path| check_socket(path).is_ok());
    let seconds = root.and_then(|root| root.get("timeout")).and_then(|node| node.as_u64());
    let seconds = seconds.filter(|s| (1..=MAX_TIMEOUT).contains(s)).unwrap_or(DEFAULT_TIMEOUT);
    (socket.unwrap_or(netd_api::DEFAULT_SOCKET).to_owned(), Duration::from_secs(seconds))
}

/// `name` is required, and of the same letters as a container id.
fn read_name(root: &JsonNode<'_>, reader: &mut Reader) -> String {
    if root.get("name").is_none() {
        reader.add("name", "is required");
        return String::new();
    }
    let name = reader.string(root.get("name")).unwrap_or_default();
    if let Err(problem) = env::check_id(&name) {
        reader.add("name", problem);
    }
    name
}

/// A Unix socket's path: absolute, at most 107 bytes (unix(7)).
///
/// # Errors
/// The value and the rule.
pub fn check_socket(path: &str) -> Result<(), String> {
    if path.starts_with('/') && path.len() <= 107 && !path.contains('\0') {
        return Ok(());
    }
    Err(format!("{} is not an absolute path of at most 107 bytes", shown(path)))
}

/// `prevResult`, which earlier plugins of the chain made; its parts stay as they are,
/// for they may hold what this hook knows nothing of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PrevResult {
    /// `interfaces`.
    pub interfaces: Vec<Value>,
    /// `ips`.
    pub ips: Vec<Value>,
    /// `routes`.
    pub routes: Vec<Value>,
    /// `dns`.
    pub dns: Option<Value>,
}

impl PrevResult {
    /// Reads `prevResult` into the form of `version`, the configuration's; `None` if there is
    /// none. It may be in the form of another version: a runtime may have kept it since before
    /// the conflist was changed.
    pub fn read(root: &JsonNode<'_>, version: SpecVersion, reader: &mut Reader) -> Option<Self> {
        let prev = reader.object(root.get("prevResult"))?;
        if let Some(own) = reader.string(prev.get("cniVersion"))
            && !SpecVersion::names().contains(&own.as_str())
        {
            let known = SpecVersion::names().join(", ");
            let problem = format!("{} is none of {known}", shown(&own));
            reader.add("prevResult.cniVersion", problem);
        }
        let mut ips = objects(&prev, "ips", reader);
        ips.iter_mut().for_each(|ip| version.shape_ip(ip));
        let mut interfaces = objects(&prev, "interfaces", reader);
        interfaces.iter_mut().for_each(|interface| version.shape_interface(interface));
        Some(Self {
            interfaces,
            ips,
            routes: objects(&prev, "routes", reader),
            dns: reader.object(prev.get("dns")).map(|dns| dns.value().clone()),
        })
    }

    /// The same, where the command can't do without it.
    ///
    /// # Errors
    /// [`HookError::Config`].
    pub fn required(prev: Option<Self>) -> Result<Self, HookError> {
        prev.ok_or_else(|| HookError::field("prevResult", "is required by CHECK"))
    }
}

fn objects(prev: &JsonNode<'_>, key: &str, reader: &mut Reader) -> Vec<Value> {
    let nodes = reader.list(prev.get(key)).into_iter();
    nodes.filter_map(|n| reader.object(Some(n))).map(|n| n.value().clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Config, HookError> {
        let mut reader = Reader::new();
        let config = Config::read(&JsonNode::root(value), SpecVersion::V100, &mut reader);
        reader.finish().map(|()| config)
    }

    #[test]
    fn a_minimal_configuration_has_defaults() {
        let config = read(&json!({"name": "n", "type": "netd-hook"})).unwrap();
        assert_eq!(config.network, "default");
        assert_eq!(config.socket, "/run/netd/netd.sock");
        assert_eq!(config.timeout, Duration::from_secs(30));
    }

    #[test]
    fn every_wrong_key_is_reported_at_once_with_code_7() {
        let error =
            read(&json!({"name": "a/b", "network": 1, "socket": "x", "timeout": 0})).unwrap_err();
        assert_eq!(error.cni_code(), 7);
        let text = error.to_string();
        for field in ["name: ", "network: ", "socket: ", "timeout: "] {
            assert!(text.contains(field), "{field} in {text}");
        }
        assert!(read(&json!({})).is_err());
        assert!(read(&json!({"name": "n", "socket": "/".repeat(108)})).is_err());
    }
}
