//! The pod annotation that requests additional networks.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Deserialize;

use crate::excerpt::excerpt;

/// The annotation: `blue,red`, or a JSON list of objects with the fields of
/// [`AdditionalNetwork`].
pub const ANNOTATION: &str = netd_api::annotations::NETWORKS;
/// The interface of the pod's primary network, which CNI ADD creates.
pub(crate) const PRIMARY_INTERFACE: &str = "eth0";
/// The limit of additional networks: the runtime's timeout must suffice to attach them all.
pub const MAX_NETWORKS: usize = 16;

/// One additional network that a pod requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdditionalNetwork {
    /// The network's name.
    pub network: String,
    /// Name inside the sandbox; by default `eth1`, `eth2`, ... in the list's order.
    pub interface: String,
    /// Requested addresses, at most one of each family; if empty, netd chooses.
    pub addresses: Vec<String>,
    /// Requested MAC address; if empty, netd chooses.
    pub mac: String,
    /// The pod's default routes lead through it, before those of eth0.
    pub default_route: bool,
}

/// The value of the annotation can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "annotation {ANNOTATION}: {problem}, in {value:?}; use a list of network names \
     (\"blue,red\") or JSON ([{{\"network\":\"blue\",\"interface\":\"eth1\",\
     \"addresses\":[\"10.1.0.9\"],\"mac\":\"0a:58:0a:01:00:09\"}}])"
)]
pub struct BadNetworks {
    problem: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnnotationItem {
    network: String,
    #[serde(default)]
    interface: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    mac: String,
    #[serde(default, rename = "defaultRoute")]
    default_route: bool,
}

/// Reads the value of the annotation. White space alone requests nothing.
///
/// # Errors
/// [`BadNetworks`]. netd checks the rest: whether the network exists and the address is free.
pub fn parse(value: &str) -> Result<Vec<AdditionalNetwork>, BadNetworks> {
    networks(value).map_err(|problem| BadNetworks { problem, value: excerpt(value) })
}

fn networks(value: &str) -> Result<Vec<AdditionalNetwork>, String> {
    let items = items(value.trim())?;
    if items.iter().filter(|item| item.default_route).count() > 1 {
        return Err("defaultRoute: only one network can have the default route".to_owned());
    }
    if items.len() > MAX_NETWORKS {
        return Err(format!("{} networks are more than the limit of {MAX_NETWORKS}", items.len()));
    }
    let mut names = BTreeSet::from([PRIMARY_INTERFACE.to_owned()]);
    let mut all = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let network = check(at, item)?;
        if !names.insert(network.interface.clone()) {
            let name = &network.interface;
            return Err(format!("[{at}].interface: {name:?} is already taken; choose another"));
        }
        all.push(network);
    }
    Ok(all)
}

fn items(value: &str) -> Result<Vec<AnnotationItem>, String> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    if value.starts_with(['[', '{']) {
        return serde_json::from_str(value).map_err(|e| excerpt(&e.to_string()));
    }
    let plain = |name: &str| AnnotationItem {
        network: name.trim().to_owned(),
        interface: String::new(),
        addresses: Vec::new(),
        mac: String::new(),
        default_route: false,
    };
    Ok(value.split(',').map(plain).collect())
}

fn check(at: usize, item: AnnotationItem) -> Result<AdditionalNetwork, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let name = item.network.as_str();
    let edges = name.starts_with('-') || name.ends_with('-');
    if name.is_empty() || name.len() > 63 || edges || !name.bytes().all(inner) {
        let name = excerpt(name);
        return Err(format!(
            "[{at}].network: {name:?} is not 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
        ));
    }
    let interface = match item.interface.as_str() {
        "" => format!("eth{}", at + 1),
        name if is_interface(name) => item.interface,
        name => {
            let name = excerpt(name);
            return Err(format!(
                "[{at}].interface: {name:?} is not 1 to 15 printable ASCII characters without '/', ':', '%', '*' and quotes"
            ));
        }
    };
    check_addresses(at, &item.addresses)?;
    if !item.mac.is_empty() && !is_mac(&item.mac) {
        let mac = excerpt(&item.mac);
        return Err(format!("[{at}].mac: {mac:?} is not a unicast MAC like 0a:58:0a:01:00:09"));
    }
    Ok(AdditionalNetwork {
        network: item.network,
        interface,
        addresses: item.addresses,
        mac: item.mac.to_ascii_lowercase(),
        default_route: item.default_route,
    })
}

fn check_addresses(at: usize, addresses: &[String]) -> Result<(), String> {
    let mut families = [false, false];
    for text in addresses {
        let (ip, prefix) = text.split_once('/').unwrap_or((text, "0"));
        let parsed = ip.parse::<IpAddr>().ok();
        let most = if ip.contains(':') { 128 } else { 32 };
        let Some(ip) = parsed.filter(|_| prefix.parse::<u8>().is_ok_and(|p| p <= most)) else {
            let text = excerpt(text);
            return Err(format!("[{at}].addresses: {text:?} is not an IP address"));
        };
        if std::mem::replace(&mut families[usize::from(ip.is_ipv6())], true) {
            return Err(format!(
                "[{at}].addresses: there may be at most one IPv4 and one IPv6 address"
            ));
        }
    }
    Ok(())
}

fn is_interface(name: &str) -> bool {
    let reserved = matches!(name, "." | ".." | "lo" | "all" | "default");
    let ok = |b: u8| b.is_ascii_graphic() && !b"/:%\"\\*".contains(&b);
    !reserved && name.len() <= 15 && name.bytes().all(ok)
}

fn is_mac(text: &str) -> bool {
    let hex = |p: &str| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split(':').collect();
    let first = parts.first().and_then(|p| u8::from_str_radix(p, 16).ok());
    let zero = parts.iter().all(|p| *p == "00");
    parts.len() == 6 && parts.iter().all(|p| hex(p)) && first.is_some_and(|b| b & 1 == 0) && !zero
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_list_names_its_interfaces_in_order() {
        let got = parse(" blue, red ").unwrap();
        let pairs: Vec<_> =
            got.iter().map(|w| (w.network.as_str(), w.interface.as_str())).collect();
        assert_eq!(pairs, [("blue", "eth1"), ("red", "eth2")]);
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("[]").unwrap(), []);
    }

    #[test]
    fn a_json_list_may_choose_everything() {
        let got = parse(
            r#"[{"network":"blue","interface":"net0","addresses":["10.1.0.9/24","fd00::9"],
                "mac":"0A:58:0a:01:00:09"},{"network":"blue","defaultRoute":true}]"#,
        )
        .unwrap();
        assert_eq!((got[0].default_route, got[1].default_route), (false, true));
        assert_eq!(got[0].interface, "net0");
        assert_eq!(got[0].addresses, ["10.1.0.9/24", "fd00::9"]);
        assert_eq!(got[0].mac, "0a:58:0a:01:00:09");
        assert_eq!(got[1].interface, "eth2");
    }

    #[test]
    fn a_bad_value_is_refused_with_its_name_its_text_and_what_is_right() {
        for (value, word) in [
            ("blue,,red", "[1].network"),
            ("Blue", "\"Blue\""),
            ("blue;rm -rf /", "network"),
            ("../etc", "network"),
            ("[{}]", "missing field `network`"),
            ("{\"network\":\"blue\"}", "expected a sequence"),
            (r#"[{"network":"blue","ifname":"eth1"}]"#, "unknown field"),
            (r#"[{"network":"blue","interface":"eth0"}]"#, "taken"),
            (r#"[{"network":"blue","interface":"a/b"}]"#, "[0].interface"),
            (r#"[{"network":"blue","interface":"abcdefghijklmnop"}]"#, "15"),
            (r#"[{"network":"blue","interface":"eth2"},{"network":"red"}]"#, "[1].interface"),
            (r#"[{"network":"blue","addresses":["10.0.0"]}]"#, "IP address"),
            (r#"[{"network":"blue","addresses":["10.0.0.1/33"]}]"#, "IP address"),
            (r#"[{"network":"blue","addresses":["10.0.0.1","10.0.0.2"]}]"#, "at most one"),
            (r#"[{"network":"blue","mac":"01:00:5e:00:00:01"}]"#, "unicast"),
            (r#"[{"network":"blue","mac":"0a:58"}]"#, "[0].mac"),
            (
                r#"[{"network":"a","defaultRoute":true},{"network":"b","defaultRoute":true}]"#,
                "only one network",
            ),
            ("[", "EOF"),
        ] {
            let err = parse(value).unwrap_err().to_string();
            assert!(err.starts_with("annotation netd.io/networks: "), "{err}");
            assert!(err.contains(word) && err.contains("\"blue,red\""), "{value}: {err}");
        }
        let many = vec!["blue"; MAX_NETWORKS + 1].join(",");
        assert!(parse(&many).unwrap_err().to_string().contains("17 networks"));
    }

    #[test]
    fn a_huge_value_makes_a_short_error() {
        for value in ["x".repeat(1 << 18), format!("[{{\"{}\":1}}]", "é".repeat(1 << 17))] {
            assert!(parse(&value).unwrap_err().to_string().len() < 2000);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(value in "\\PC{0,60}|\\[\\{\"network\":\"[a-z]{1,3}\",\"mac\":\"\\PC{0,20}\"\\}\\]") {
            if let Ok(all) = parse(&value) {
                proptest::prop_assert!(all.iter().all(|w| w.interface != PRIMARY_INTERFACE));
            }
        }
    }
}
