//! `docker network create -o KEY=VALUE` and the flags that reach a driver.

use std::net::IpAddr;

use ipnet::IpNet;
use netd_api::v1::Driver;
use serde_json::{Map, Value};

use super::server::{Failure, shown};

/// The `-o` options.
const GENERIC: &str = "com.docker.network.generic";
/// `--internal`
const INTERNAL: &str = "com.docker.network.internal";

/// What of a network its creator can choose besides pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// A network that netd has already.
    pub network: Option<String>,
    pub driver: Option<Driver>,
    /// Bytes.
    pub mtu: Option<u32>,
    pub bridge: Option<String>,
    pub masquerade: Option<bool>,
    /// The only part of the subnet of its family from which netd itself chooses addresses.
    pub pool: Option<IpNet>,
    pub internal: bool,
}

const KNOWN: &str = "netd.network, netd.driver (bridge, routed), netd.mtu, netd.bridge, \
                     netd.masquerade (true, false), netd.pool (a part of the subnet)";

impl NetworkOptions {
    /// Reads CreateNetwork's options. An `-o` that is not known is refused: it may have
    /// been meant to keep something out.
    pub fn read(options: &Map<String, Value>) -> Result<Self, Failure> {
        let internal = match options.get(INTERNAL) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(internal)) => *internal,
            Some(other) => return Err(wrong(INTERNAL, &other.to_string(), "true or false")),
        };
        let mut read = Self { internal, ..Self::default() };
        match options.get(GENERIC) {
            None | Some(Value::Null) => {}
            Some(Value::Object(all)) => {
                for (key, value) in all {
                    let Value::String(text) = value else {
                        return Err(wrong(key, &value.to_string(), "a string"));
                    };
                    read.set(key, text)?;
                }
            }
            Some(other) => return Err(wrong(GENERIC, &other.to_string(), "an object")),
        }
        Ok(read)
    }

    fn set(&mut self, key: &str, text: &str) -> Result<(), Failure> {
        match key {
            "netd.network" => self.network = Some(text.to_owned()),
            "netd.driver" => {
                self.driver = Some(match text {
                    "bridge" => Driver::Bridge,
                    "routed" => Driver::Routed,
                    _ => return Err(wrong(key, text, "\"bridge\" or \"routed\"")),
                });
            }
            // As Docker's own bridge driver has them.
            "netd.mtu" | "com.docker.network.driver.mtu" => {
                let mtu = text.parse().ok().filter(|mtu| *mtu > 0);
                self.mtu = Some(mtu.ok_or_else(|| wrong(key, text, "a number of bytes"))?);
            }
            "netd.bridge" | "com.docker.network.bridge.name" => self.bridge = Some(text.to_owned()),
            "netd.masquerade" | "com.docker.network.bridge.enable_ip_masquerade" => {
                let on = text.parse().ok();
                self.masquerade = Some(on.ok_or_else(|| wrong(key, text, "true or false"))?);
            }
            "netd.pool" => {
                let part = text.parse().ok();
                self.pool = Some(part.ok_or_else(|| wrong(key, text, "a CIDR"))?);
            }
            _ => {
                let text = format!("there is no such option; there are {KNOWN}");
                return Err(Failure::field(&format!("-o {}", shown(key)), text));
            }
        }
        Ok(())
    }
}

fn wrong(key: &str, value: &str, right: &str) -> Failure {
    Failure::field(&format!("-o {}", shown(key)), format!("\"{}\" is not {right}", shown(value)))
}

/// An address with or without a prefix length.
pub fn address(field: &str, text: &str) -> Result<IpAddr, Failure> {
    let net = text.parse::<IpNet>().map(|net| net.addr());
    let ip = text.parse::<IpAddr>().or(net);
    ip.map_err(|_| Failure::field(field, format!("\"{}\" is not an IP address", shown(text))))
}

/// A subnet.
pub fn subnet(field: &str, text: &str) -> Result<IpNet, Failure> {
    let net = text.parse::<IpNet>();
    net.map_err(|_| Failure::field(field, format!("\"{}\" is not a subnet", shown(text))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(generic: Value) -> Result<NetworkOptions, String> {
        let options = json!({GENERIC: generic, "com.docker.network.enable_ipv6": false});
        let read = NetworkOptions::read(options.as_object().unwrap());
        read.map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn options_are_read_under_both_names() {
        let options =
            read(json!({"netd.driver": "routed", "com.docker.network.driver.mtu": "1400",
            "netd.masquerade": "false", "netd.pool": "10.1.2.0/24"}))
            .unwrap();
        assert_eq!((options.driver, options.mtu), (Some(Driver::Routed), Some(1400)));
        assert_eq!((options.masquerade, options.internal), (Some(false), false));
        assert_eq!(options.pool.unwrap().to_string(), "10.1.2.0/24");
        assert_eq!(read(Value::Null).unwrap(), NetworkOptions::default());
    }

    #[test]
    fn a_wrong_or_unknown_option_is_refused_by_name() {
        for (generic, word) in [
            (json!({"netd.driver": "macvlan"}), "-o netd.driver: \\\"macvlan"),
            (json!({"netd.mtu": "-1"}), "a number of bytes"),
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
