//! Options of `docker network create`: `-o KEY=VALUE`, and the flags that reach a driver.

use std::net::IpAddr;

use ipnet::IpNet;
use netd_api::v1::{Driver, RepairScope};
use serde_json::{Map, Value};

use super::error::DriverError;
use crate::excerpt::escaped;

/// The key under which dockerd passes all `-o` options.
const GENERIC: &str = "com.docker.network.generic";
/// `--internal`
const INTERNAL: &str = "com.docker.network.internal";

/// What the creator of a network can choose besides its pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NetworkOptions {
    /// The netd network to share instead of creating one.
    pub(super) network: Option<String>,
    pub(super) driver: Option<Driver>,
    /// Bytes.
    pub(super) mtu: Option<u32>,
    pub(super) bridge: Option<String>,
    pub(super) masquerade: Option<bool>,
    /// Others reach containers by published ports only.
    pub(super) published_only: Option<bool>,
    pub(super) repair: Option<RepairScope>,
    /// netd chooses addresses of this family from this part of the subnet only.
    pub(super) pool: Option<IpNet>,
    pub(super) internal: bool,
}

const KNOWN: &str = "netd.network, netd.driver (bridge, routed), netd.mtu, netd.bridge, \
                     netd.masquerade (true, false), netd.published_only (true, false), \
                     netd.repair (host, pod), netd.pool (a part of the subnet)";

impl NetworkOptions {
    /// Reads the options of CreateNetwork. An unknown `-o` is refused, because its author may
    /// have relied on it to isolate the network.
    pub(super) fn parse(options: &Map<String, Value>) -> Result<Self, DriverError> {
        let internal = match options.get(INTERNAL) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(internal)) => *internal,
            Some(other) => return Err(wrong(INTERNAL, &other.to_string(), "true or false")),
        };
        let mut parsed = Self { internal, ..Self::default() };
        match options.get(GENERIC) {
            None | Some(Value::Null) => {}
            Some(Value::Object(all)) => {
                for (key, value) in all {
                    let Value::String(text) = value else {
                        return Err(wrong(key, &value.to_string(), "a string"));
                    };
                    parsed.set(key, text)?;
                }
            }
            Some(other) => return Err(wrong(GENERIC, &other.to_string(), "an object")),
        }
        Ok(parsed)
    }

    fn set(&mut self, key: &str, text: &str) -> Result<(), DriverError> {
        match key {
            "netd.network" => self.network = Some(text.to_owned()),
            "netd.driver" => {
                self.driver = Some(match text {
                    "bridge" => Driver::Bridge,
                    "routed" => Driver::Routed,
                    _ => return Err(wrong(key, text, "\"bridge\" or \"routed\"")),
                });
            }
            // The long keys are those of Docker's own bridge driver.
            "netd.mtu" | "com.docker.network.driver.mtu" => {
                let mtu = text.parse().ok().filter(|mtu| *mtu > 0);
                self.mtu = Some(mtu.ok_or_else(|| wrong(key, text, "a number of bytes"))?);
            }
            "netd.bridge" | "com.docker.network.bridge.name" => self.bridge = Some(text.to_owned()),
            "netd.masquerade" | "com.docker.network.bridge.enable_ip_masquerade" => {
                let on = text.parse().ok();
                self.masquerade = Some(on.ok_or_else(|| wrong(key, text, "true or false"))?);
            }
            "netd.published_only" => {
                let on = text.parse().ok();
                self.published_only = Some(on.ok_or_else(|| wrong(key, text, "true or false"))?);
            }
            "netd.repair" => {
                self.repair = Some(match text {
                    "host" => RepairScope::Host,
                    "pod" => RepairScope::Pod,
                    _ => return Err(wrong(key, text, "\"host\" or \"pod\"")),
                });
            }
            "netd.pool" => {
                let part = text.parse().ok();
                self.pool =
                    Some(part.ok_or_else(|| wrong(key, text, "a subnet in CIDR notation"))?);
            }
            _ => {
                let text = format!("there is no such option; netd knows {KNOWN}");
                return Err(DriverError::field(&format!("-o {}", escaped(key)), text));
            }
        }
        Ok(())
    }
}

fn wrong(key: &str, value: &str, right: &str) -> DriverError {
    DriverError::field(
        &format!("-o {}", escaped(key)),
        format!("\"{}\" is not {right}", escaped(value)),
    )
}

/// Reads an address that may carry a prefix length.
pub(super) fn address(field: &str, text: &str) -> Result<IpAddr, DriverError> {
    let net = text.parse::<IpNet>().map(|net| net.addr());
    let ip = text.parse::<IpAddr>().or(net);
    ip.map_err(|_| DriverError::field(field, format!("\"{}\" is not an IP address", escaped(text))))
}

pub(super) fn subnet(field: &str, text: &str) -> Result<IpNet, DriverError> {
    let net = text.parse::<IpNet>();
    net.map_err(|_| {
        DriverError::field(
            field,
            format!(
                "\"{}\" is not a subnet in CIDR notation, for example 10.1.0.0/16",
                escaped(text)
            ),
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(generic: Value) -> Result<NetworkOptions, String> {
        let options = json!({GENERIC: generic, "com.docker.network.enable_ipv6": false});
        let parsed = NetworkOptions::parse(options.as_object().unwrap());
        parsed.map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn options_are_read_under_both_names() {
        let options =
            read(json!({"netd.driver": "routed", "com.docker.network.driver.mtu": "1400",
            "netd.masquerade": "false", "netd.published_only": "false", "netd.repair": "pod",
            "netd.pool": "10.1.2.0/24"}))
            .unwrap();
        assert_eq!((options.driver, options.mtu), (Some(Driver::Routed), Some(1400)));
        assert_eq!((options.masquerade, options.internal), (Some(false), false));
        assert_eq!(options.published_only, Some(false));
        assert_eq!(options.repair, Some(RepairScope::Pod));
        assert_eq!(options.pool.unwrap().to_string(), "10.1.2.0/24");
        assert_eq!(read(Value::Null).unwrap(), NetworkOptions::default());
    }

    #[test]
    fn a_wrong_or_unknown_option_is_refused_by_name() {
        for (generic, word) in [
            (json!({"netd.driver": "macvlan"}), "-o netd.driver: \\\"macvlan"),
            (json!({"netd.mtu": "-1"}), "a number of bytes"),
            (json!({"netd.repair": "all"}), "-o netd.repair: \\\"all"),
            (json!({"netd.mtu": 1400}), "a string"),
            (json!({"mtu": "1400"}), "-o mtu: there is no such option"),
            (json!({"com.docker.network.bridge.enable_icc": "false"}), "enable_icc"),
            (json!([]), "an object"),
        ] {
            let error = read(generic).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
