//! What netd writes about a node beside flannel's keys. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use netd_store::Revision;

/// Longest id or name that is read, bytes: it is shown and logged.
const MAX_TEXT_BYTES: usize = 253;
/// Longest record that is read, bytes.
const MAX_RECORD_BYTES: usize = 16 << 10;

/// Who has a subnet: the value of its owner key. The owner is the node with this id,
/// whatever its name and its addresses are.
///
/// Whenever a node writes a lease it writes its owner key in the same transaction. So
/// the two have one `mod_revision` unless another writer changed the lease since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The node's id.
    pub id: String,
    /// The node's name, for people.
    pub node: String,
    /// Since when, seconds since the epoch by the owner's clock.
    pub since: u64,
    /// `mod_revision` of a reservation that was found right and therefore not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Revision>,
}

/// A node about itself: the value of its node key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Random, made once, kept until another machine turns out to have it.
    pub id: String,
    /// For people.
    pub name: String,
    /// netd's.
    pub version: String,
    /// As in its leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_ip: Option<Ipv4Addr>,
    /// As in its leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_ipv6: Option<Ipv6Addr>,
    /// As in its leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Since when it is in the cluster, seconds since the epoch by its clock.
    pub since: u64,
    /// The boot of the machine that wrote this; `None`: by a netd that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Another incarnation, which asks whether `incarnation` still runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contender: Option<String>,
}

impl OwnerRecord {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(value: &[u8]) -> Result<Self, String> {
        let record: Self = parse(value)?;
        check("id", &record.id)?;
        check("node", &record.node)?;
        Ok(record)
    }
}

impl NodeRecord {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(value: &[u8]) -> Result<Self, String> {
        let record: Self = parse(value)?;
        check("id", &record.id)?;
        check("name", &record.name)?;
        check("version", &record.version)?;
        for (field, text) in [
            ("backend", &record.backend),
            ("incarnation", &record.incarnation),
            ("contender", &record.contender),
        ] {
            text.as_deref().map_or(Ok(()), |text| check(field, text))?;
        }
        Ok(record)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Result<T, String> {
    if value.len() > MAX_RECORD_BYTES {
        return Err(format!("{} bytes; a record has at most {MAX_RECORD_BYTES}", value.len()));
    }
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

/// # Errors
/// It can't be an id or a name; what is wrong.
pub(super) fn check(field: &str, text: &str) -> Result<(), String> {
    match text.len() {
        0 => Err(format!("{field} is empty")),
        n if n > MAX_TEXT_BYTES => {
            Err(format!("{field} has {n} bytes; at most {MAX_TEXT_BYTES} are read"))
        }
        _ if text.chars().any(char::is_control) => Err(format!("{field} has control characters")),
        _ => Ok(()),
    }
}

/// As JSON. A record always has some.
pub(super) fn render<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let owner = OwnerRecord { id: "i".into(), node: "n".into(), since: 7, reserved: Some(3) };
        assert_eq!(OwnerRecord::parse(&render(&owner)), Ok(owner.clone()));
        let plain = render(&OwnerRecord { reserved: None, ..owner });
        assert_eq!(plain, br#"{"id":"i","node":"n","since":7}"#);
        let node = NodeRecord {
            id: "i".into(),
            name: "n".into(),
            version: "1".into(),
            public_ip: Some("192.0.2.1".parse().unwrap()),
            public_ipv6: None,
            backend: Some("vxlan".into()),
            since: 9,
            incarnation: Some("b".into()),
            contender: None,
        };
        assert_eq!(NodeRecord::parse(&render(&node)), Ok(node));
        // As netd 0.1 wrote it.
        let old = br#"{"id":"i","name":"n","version":"1","public_ip":"192.0.2.1","since":9}"#;
        assert_eq!(NodeRecord::parse(old).map(|node| node.incarnation), Ok(None));
    }

    #[test]
    fn junk_is_refused_and_more_fields_are_fine() {
        let more = br#"{"id":"i","node":"n","since":7,"new":[1]}"#;
        assert!(OwnerRecord::parse(more).is_ok());
        let long = format!(r#"{{"id":"{}","node":"n","since":7}}"#, "x".repeat(300));
        let huge = vec![b' '; 1 << 20];
        let junk: [&[u8]; 7] = [
            b"",
            b"{",
            b"[]",
            br#"{"id":"","node":"n","since":7}"#,
            br#"{"id":"i","node":"a\nb","since":7}"#,
            long.as_bytes(),
            &huge,
        ];
        for value in junk {
            assert!(OwnerRecord::parse(value).is_err(), "{:?}", &value[..value.len().min(60)]);
        }
    }
}
