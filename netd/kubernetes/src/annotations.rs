//! flannel's annotations of a Node: what it writes of a node, letter by letter, and reads of
//! others. Pure.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use netd_cluster::{BackendData, Family, LeaseAttrs, Subnets, flannel::value, is_reachable};

/// Says whether the Node has a pod network: only "true" counts.
const MANAGED: &str = "kube-subnet-manager";
const BACKEND_TYPE: &str = "backend-type";
/// Names of a family's annotations.
struct Names {
    data: &'static str,
    public: &'static str,
    /// An operator's word: it is announced in place of what the node finds.
    overwrite: &'static str,
    /// An operator's word: the node's own address, by which its device is chosen.
    node_public: &'static str,
}
const V4: Names = Names {
    data: "backend-data",
    public: "public-ip",
    overwrite: "public-ip-overwrite",
    node_public: "node-public-ip",
};
const V6: Names = Names {
    data: "backend-v6-data",
    public: "public-ipv6",
    overwrite: "public-ipv6-overwrite",
    node_public: "node-public-ipv6",
};

type Annotations = BTreeMap<String, String>;

/// What comes before the names of the annotations: `flannel.alpha.coreos.com/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationPrefix(String);

impl Default for AnnotationPrefix {
    fn default() -> Self {
        Self("flannel.alpha.coreos.com/".to_owned())
    }
}

impl FromStr for AnnotationPrefix {
    type Err = String;

    /// As flannel's `--kube-annotation-prefix`: a slash is added where there is none, and a dash
    /// behind what comes after the slash.
    fn from_str(text: &str) -> Result<Self, String> {
        let (domain, rest) = text.split_once('/').unwrap_or((text, ""));
        let rest = if rest.is_empty() || rest.ends_with('-') {
            rest.to_owned()
        } else {
            format!("{rest}-")
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        let labels: Vec<_> = domain.split('.').collect();
        let right = labels.len() > 1
            && labels.iter().all(|label| !label.is_empty() && label.chars().all(plain))
            && rest.chars().all(plain)
            && text.len() <= 200;
        if !right {
            let shown: String = text.chars().take(64).collect();
            return Err(format!("{shown:?} is not a prefix like flannel.alpha.coreos.com"));
        }
        Ok(Self(format!("{domain}/{rest}")))
    }
}

/// An operator's words about a node's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl AnnotationPrefix {
    pub(crate) fn is_of(&self, key: &str) -> bool {
        key.starts_with(&self.0)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    fn get<'a>(&self, all: &'a Annotations, name: &str) -> &'a str {
        all.get(&self.key(name)).map_or("", String::as_str)
    }

    /// How a Node's pods are reached; `None`: it has no pod network. Of a family of which the
    /// Node has no podCIDR nothing is read.
    ///
    /// # Errors
    /// The annotation that can't be read, and its value.
    pub(crate) fn read(
        &self,
        all: &Annotations,
        subnets: Option<&Subnets>,
    ) -> Option<Result<LeaseAttrs, String>> {
        (self.get(all, MANAGED) == "true").then(|| self.attrs(all, subnets))
    }

    fn attrs(&self, all: &Annotations, subnets: Option<&Subnets>) -> Result<LeaseAttrs, String> {
        let has = |family| subnets.is_none_or(|subnets| subnets.of(family).is_some());
        let mut attrs = LeaseAttrs::default();
        if has(Family::V4) {
            let public: Option<Ipv4Addr> = self.address(all, V4.public)?;
            attrs.public_v4 = public.filter(|ip| !ip.is_unspecified());
            attrs.data_v4 = self.data(all, V4.data)?;
        }
        if has(Family::V6) {
            let public: Option<Ipv6Addr> = self.address(all, V6.public)?;
            attrs.public_v6 = public.filter(|ip| !ip.is_unspecified());
            attrs.data_v6 = self.data(all, V6.data)?;
        }
        let kind = self.get(all, BACKEND_TYPE);
        if kind.len() > 64 {
            return Err(self.wrong(BACKEND_TYPE, kind, "is too long"));
        }
        attrs.backend_type = (!kind.is_empty()).then(|| kind.to_owned());
        Ok(attrs)
    }

    fn data(&self, all: &Annotations, name: &str) -> Result<Option<BackendData>, String> {
        let text = self.get(all, name);
        value::parse_data(text).map_err(|why| self.wrong(name, text, &why))
    }

    fn address<T: FromStr>(&self, all: &Annotations, name: &str) -> Result<Option<T>, String> {
        let text = self.get(all, name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| self.wrong(name, text, "is not an address of its family"))
    }

    fn wrong(&self, name: &str, value: &str, why: &str) -> String {
        let shown: String = value.chars().take(64).collect();
        format!("annotation {}: {shown:?} {why}", self.key(name))
    }

    /// What is to be announced in place of the addresses that the node found, and what is wrong.
    /// In place of an overwrite that can't be read stays what was announced before.
    pub(crate) fn overwrites(&self, all: &Annotations) -> (Addresses, Vec<String>) {
        let mut wrong = vec![];
        let v4 = self.reachable_or(all, V4.overwrite, Some(V4.public), &mut wrong);
        let v6 = self.reachable_or(all, V6.overwrite, Some(V6.public), &mut wrong);
        (Addresses { v4, v6 }, wrong)
    }

    /// The node's own addresses, by which its device is chosen, and what is wrong.
    pub(crate) fn node_public(&self, all: &Annotations) -> (Addresses, Vec<String>) {
        let mut wrong = vec![];
        let v4 = self.reachable_or(all, V4.node_public, None, &mut wrong);
        let v6 = self.reachable_or(all, V6.node_public, None, &mut wrong);
        (Addresses { v4, v6 }, wrong)
    }

    /// An address; where it can't be read, that of another annotation.
    fn reachable_or<T>(
        &self,
        all: &Annotations,
        name: &str,
        other: Option<&str>,
        wrong: &mut Vec<String>,
    ) -> Option<T>
    where
        T: FromStr + Copy + Into<IpAddr>,
    {
        self.reachable(all, name).unwrap_or_else(|why| {
            wrong.push(why);
            other.and_then(|other| self.reachable(all, other).ok().flatten())
        })
    }

    /// An address that other nodes can send to.
    fn reachable<T>(&self, all: &Annotations, name: &str) -> Result<Option<T>, String>
    where
        T: FromStr + Copy + Into<IpAddr>,
    {
        let found: Option<T> = self.address(all, name)?;
        if found.is_some_and(|ip| !is_reachable(ip.into())) {
            return Err(self.wrong(name, self.get(all, name), "can't be reached from other nodes"));
        }
        Ok(found)
    }

    /// What is to be changed of a Node's annotations so that they say `attrs`; `None` removes one.
    /// Empty: nothing.
    pub(crate) fn changes(
        &self,
        all: &Annotations,
        attrs: &LeaseAttrs,
        overwrites: Addresses,
    ) -> BTreeMap<String, Option<String>> {
        let mut wanted = self.wanted(attrs, overwrites);
        // What is as it should be is not written again.
        wanted.retain(|key, value| all.get(key) != value.as_ref());
        wanted
    }

    /// As flannel 0.28 writes them: vxlan's data of a family only where there is some.
    fn wanted(&self, attrs: &LeaseAttrs, over: Addresses) -> BTreeMap<String, Option<String>> {
        let kind = attrs.backend_type.as_deref().unwrap_or("");
        let tells_v4 = kind != "vxlan" || attrs.data_v4.is_some();
        let tells_v6 = match kind {
            "vxlan" => attrs.data_v6.is_some(),
            "wireguard" => attrs.data_v6.is_some() && attrs.public_v6.is_some(),
            // flannel's other backends have no IPv6; netd's ipip and udp have neither.
            _ => attrs.public_v6.is_some(),
        };
        let data = |data| Some(value::format_data(data));
        let public_v4 = over.v4.or(attrs.public_v4).filter(|_| tells_v4);
        let public_v6 = over.v6.or(attrs.public_v6).filter(|_| tells_v6);
        let text = |ip: &dyn Display| ip.to_string();
        let wanted = [
            (MANAGED, Some("true".to_owned())),
            (BACKEND_TYPE, Some(kind.to_owned())),
            (V4.data, data(attrs.data_v4.as_ref()).filter(|_| tells_v4)),
            (V4.public, public_v4.map(|ip| text(&ip))),
            (V6.data, data(attrs.data_v6.as_ref()).filter(|_| tells_v6)),
            (V6.public, public_v6.map(|ip| text(&ip))),
        ];
        wanted.into_iter().map(|(name, value)| (self.key(name), value)).collect()
    }
}
