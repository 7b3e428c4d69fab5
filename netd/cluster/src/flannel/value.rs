//! A lease's value.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Value, json};

use super::{
    LONGEST,
    fields::{Fields, number, parsed, shown, text},
};
use crate::{BackendData, Family, LeaseAttrs, peer_problem::PeerProblem};
use netd_domain::Mac;

/// Writes a value with flannel's keys, in its order, byte by byte as it does.
pub fn format(attrs: &LeaseAttrs) -> String {
    let value = Written {
        public_ip: attrs.public_v4.unwrap_or(Ipv4Addr::UNSPECIFIED),
        public_ipv6: attrs.public_v6,
        backend_type: attrs.backend_type.as_deref(),
        backend_data: attrs.data_v4.as_ref().map(Ordered),
        backend_v6_data: attrs.data_v6.as_ref().map(Ordered),
    };
    // Addresses, text and JSON values have no way not to be written.
    let plain = serde_json::to_string(&value).unwrap_or_default();
    escaped(plain)
}

/// flannel's `LeaseAttrs`: which fields it writes as null, and which it leaves out.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "PublicIP")]
    public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(rename = "BackendType", skip_serializing_if = "Option::is_none")]
    backend_type: Option<&'a str>,
    #[serde(rename = "BackendData", skip_serializing_if = "Option::is_none")]
    backend_data: Option<Ordered<'a>>,
    #[serde(rename = "BackendV6Data", skip_serializing_if = "Option::is_none")]
    backend_v6_data: Option<Ordered<'a>>,
}

/// A backend's data as flannel writes it where it stands alone, in an annotation of
/// Kubernetes' Node; "null" for none.
pub fn format_data(data: Option<&BackendData>) -> String {
    let plain = serde_json::to_string(&data.map(Ordered)).unwrap_or_default();
    escaped(plain)
}

/// Reads what [`format_data`] writes; nothing at all is none.
///
/// # Errors
/// It is too long, or not JSON.
pub fn parse_data(text: &str) -> Result<Option<BackendData>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > LONGEST {
        return Err(format!("{} bytes; at most {LONGEST}", text.len()));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    Ok((!value.is_null()).then(|| value.into()))
}

/// A backend's data with its keys in flannel's order.
struct Ordered<'a>(&'a BackendData);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const ORDER: [&str; 4] = ["VNI", "VtepMAC", "PublicKey", "Port"];
        let value = self.0.value();
        let Value::Object(fields) = &value else { return value.serialize(serializer) };
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        let known = ORDER.iter().filter_map(|key| fields.get_key_value(*key));
        let other = fields.iter().filter(|(key, _)| !ORDER.contains(&key.as_str()));
        for (key, value) in known.chain(other) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// As Go's encoder writes them: fit to stand in HTML. Outside of strings JSON has none
/// of these.
fn escaped(json: String) -> String {
    const ESCAPES: [(char, &str); 5] = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    if !json.contains(ESCAPES.map(|(c, _)| c)) {
        return json;
    }
    ESCAPES.iter().fold(json, |text, (c, escape)| text.replace(*c, escape))
}

/// Reads a value. Unknown keys are ignored; the backend's data is left to the backend.
///
/// # Errors
/// The field that is unreadable, its value, what would be right.
pub fn parse(bytes: &[u8]) -> Result<LeaseAttrs, PeerProblem> {
    if bytes.len() > LONGEST {
        return Err(problem("value", format!("{} bytes; at most {LONGEST}", bytes.len())));
    }
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| problem("value", format!("not JSON: {e}")))?;
    let mut f = Fields::new(value, "").ok_or_else(|| problem("value", "not a JSON object"))?;
    // flannel writes 0.0.0.0 for none.
    let public_v4 = address(&mut f, "PublicIP", "an IPv4 address")?
        .filter(|ip: &Ipv4Addr| !ip.is_unspecified());
    let public_v6 = address(&mut f, "PublicIPv6", "an IPv6 address")?
        .filter(|ip: &Ipv6Addr| !ip.is_unspecified());
    let backend_type = match f.take("BackendType") {
        Some(value) => {
            let name = text(&value).map_err(|e| problem("BackendType", e))?;
            Some(name.to_owned()).filter(|name| !name.is_empty())
        }
        None => None,
    };
    let mut data = |field| f.take(field).map(BackendData::from);
    let (data_v4, data_v6) = (data("BackendData"), data("BackendV6Data"));
    Ok(LeaseAttrs { public_v4, public_v6, backend_type, data_v4, data_v6 })
}

fn problem(field: &'static str, problem: impl Into<String>) -> PeerProblem {
    PeerProblem { field, problem: problem.into() }
}

fn address<T: FromStr>(
    f: &mut Fields,
    field: &'static str,
    what: &str,
) -> Result<Option<T>, PeerProblem> {
    let Some(value) = f.take(field) else { return Ok(None) };
    parsed(&value, what).map(Some).map_err(|e| problem(field, e))
}

/// `BackendData` of vxlan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VxlanData {
    /// Of the VNI the low 16 bits: flannel writes only those. Old releases write none.
    pub vni: Option<u16>,
    /// The node's VTEP.
    pub mac: Mac,
}

/// Which data, and its fields' names in messages.
struct Names {
    data: &'static str,
    vni: &'static str,
    mac: &'static str,
    key: &'static str,
    port: &'static str,
}

const NAMES_V4: Names = Names {
    data: "BackendData",
    vni: "BackendData.VNI",
    mac: "BackendData.VtepMAC",
    key: "BackendData.PublicKey",
    port: "BackendData.Port",
};
const NAMES_V6: Names = Names {
    data: "BackendV6Data",
    vni: "BackendV6Data.VNI",
    mac: "BackendV6Data.VtepMAC",
    key: "BackendV6Data.PublicKey",
    port: "BackendV6Data.Port",
};

/// The backend's data of a family as an object.
fn data(attrs: &LeaseAttrs, family: Family) -> Result<(Fields, &'static Names), PeerProblem> {
    let (value, names) = match family {
        Family::V4 => (&attrs.data_v4, &NAMES_V4),
        Family::V6 => (&attrs.data_v6, &NAMES_V6),
    };
    let value = value.as_ref().ok_or_else(|| problem(names.data, "missing"))?.value();
    let not = format!("{} is not an object", shown(&value));
    Ok((Fields::new(value, "").ok_or_else(|| problem(names.data, not))?, names))
}

impl VxlanData {
    /// To be announced.
    pub(crate) fn json(vni: u32, mac: Mac) -> Value {
        json!({ "VNI": vni & 0xffff, "VtepMAC": mac.to_string() })
    }

    /// Of a lease.
    ///
    /// # Errors
    /// The field that is missing or wrong.
    pub(crate) fn read(attrs: &LeaseAttrs, family: Family) -> Result<Self, PeerProblem> {
        let (mut f, names) = data(attrs, family)?;
        let vni = f.take("VNI").map(|v| number(&v, 0..=u16::MAX));
        let vni = vni.transpose().map_err(|e| problem(names.vni, e))?;
        let mac = f.take("VtepMAC").ok_or_else(|| problem(names.mac, "missing"))?;
        let mac = text(&mac).map_err(|e| problem(names.mac, e))?;
        let mac = mac
            .parse()
            .map_err(|e: netd_domain::ids::NameError| problem(names.mac, e.to_string()))?;
        Ok(Self { vni, mac })
    }
}

/// `BackendData` of wireguard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WireguardData {
    /// X25519.
    pub public_key: [u8; 32],
    /// UDP; old releases write none.
    pub port: Option<u16>,
}

impl WireguardData {
    /// To be announced.
    pub(crate) fn json(&self) -> Value {
        let key = BASE64_STANDARD.encode(self.public_key);
        match self.port {
            Some(port) => json!({ "PublicKey": key, "Port": port }),
            None => json!({ "PublicKey": key }),
        }
    }

    /// Of a lease.
    ///
    /// # Errors
    /// The field that is missing or wrong.
    pub(crate) fn read(attrs: &LeaseAttrs, family: Family) -> Result<Self, PeerProblem> {
        let (mut f, names) = data(attrs, family)?;
        let port = f.take("Port").map(|v| number(&v, 0..=u16::MAX));
        let port = port.transpose().map_err(|e| problem(names.port, e))?.filter(|p| *p != 0);
        let key = f.take("PublicKey").ok_or_else(|| problem(names.key, "missing"))?;
        let bytes = text(&key).ok().and_then(|t| BASE64_STANDARD.decode(t).ok());
        let public_key = bytes.and_then(|b| <[u8; 32]>::try_from(b).ok());
        let public_key = public_key.filter(|k| *k != [0; 32]).ok_or_else(|| {
            problem(names.key, format!("{} is not a key (32 bytes in base64)", shown(&key)))
        })?;
        Ok(Self { public_key, port })
    }
}
