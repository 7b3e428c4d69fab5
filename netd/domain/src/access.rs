//! Which pods may use a network, and what they may ask for in it.
//!
//! A pod's author writes annotations, the administrator makes networks: without this anybody
//! who may create pods could join any network under any address. Where a runtime knows no
//! pods (`ctr run`, Docker, podman), root asked, and everything is allowed.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{error::Invalid, ids::NetworkName};

/// Every namespace.
pub const ANY_NAMESPACE: &str = "*";

/// At most so many namespaces are named.
const MAX_NAMESPACES: usize = 1024;
/// Bytes of a namespace's name. Kubernetes allows 63, other orchestrators more.
const MAX_NAMESPACE_BYTES: usize = 253;

/// Which pods may use a network, and what they may ask for in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAccess {
    /// Names of pod namespaces; [`ANY_NAMESPACE`] stands for all.
    namespaces: BTreeSet<String>,
    /// Pods may ask for addresses.
    pub addresses: bool,
    /// Pods may ask for a MAC address.
    pub macs: bool,
}

impl PodAccess {
    /// The access of a network for which nothing else was said: `default` is open to the pods
    /// of all namespaces, any other network to none.
    pub fn of_new(network: &NetworkName) -> Self {
        let open = network.as_str() == NetworkName::DEFAULT;
        let namespaces = open.then(|| ANY_NAMESPACE.to_owned()).into_iter().collect();
        Self { namespaces, ..Self::default() }
    }

    /// The same for these namespaces.
    ///
    /// # Errors
    /// `namespaces[i]`: what is wrong with each.
    pub fn for_namespaces(self, names: Vec<String>) -> Result<Self, Invalid> {
        let mut bad = Invalid::new();
        if names.len() > MAX_NAMESPACES {
            let text = format!("{} entries; at most {MAX_NAMESPACES}", names.len());
            return Err(Invalid::field("namespaces", text));
        }
        for (i, name) in names.iter().enumerate() {
            if let Err(problem) = check_namespace(name) {
                bad.add(format!("namespaces[{i}]"), problem);
            }
        }
        bad.into_result()?;
        Ok(Self { namespaces: names.into_iter().collect(), ..self })
    }

    /// The namespaces in the order of their names, or [`ANY_NAMESPACE`].
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().map(String::as_str)
    }

    /// Whether the pods of `namespace` may use the network.
    pub(crate) fn admits(&self, namespace: &str) -> bool {
        self.namespaces.contains(ANY_NAMESPACE) || self.namespaces.contains(namespace)
    }

    /// Whether a pod of `namespace` may have in `network` what it wishes; an empty namespace
    /// stands for a caller that knows no pods.
    ///
    /// # Errors
    /// [`NotAllowed`]: the network, the pod's namespace, and what the administrator can set.
    pub fn check(
        &self,
        network: &NetworkName,
        namespace: &str,
        wishes: &[Wish],
    ) -> Result<(), NotAllowed> {
        let allowed = |wish: &&Wish| match wish {
            Wish::Network => self.admits(namespace),
            Wish::Addresses => self.addresses,
            Wish::Mac => self.macs,
        };
        match wishes.iter().find(|wish| !namespace.is_empty() && !allowed(wish)) {
            None => Ok(()),
            Some(wish) => {
                let (network, namespace) = (network.clone(), namespace.to_owned());
                Err(NotAllowed { network, namespace, wish: *wish })
            }
        }
    }
}

/// What a pod may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To be in the network.
    Network,
    /// Addresses of its choice.
    Addresses,
    /// A MAC address of its choice.
    Mac,
}

impl Wish {
    /// The field of an attach request that asks for it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Addresses => "addresses",
            Self::Mac => "mac",
        }
    }
}

/// A pod asked for what its network does not give to pods of its namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NotAllowed {
    /// The network.
    pub network: NetworkName,
    /// The pod's namespace.
    pub namespace: String,
    /// What it asked for.
    pub wish: Wish,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, namespace, wish } = self;
        let (problem, key, flag) = match wish {
            Wish::Network => (
                format!("is not open to pods of namespace \"{namespace}\""),
                format!("pod_namespaces = [\"{namespace}\"]"),
                format!("--pod-namespace {namespace}"),
            ),
            Wish::Addresses => (
                format!("lets no pod of namespace \"{namespace}\" choose its address"),
                "pod_addresses = true".to_owned(),
                "--pod-addresses".to_owned(),
            ),
            Wish::Mac => (
                format!("lets no pod of namespace \"{namespace}\" choose its MAC address"),
                "pod_macs = true".to_owned(),
                "--pod-macs".to_owned(),
            ),
        };
        write!(
            f,
            "network \"{network}\" {problem}; the administrator of the node can allow it: {key} \
             under [[network]] in netd.toml, or `netd network allow {network} {flag}`"
        )
    }
}

fn check_namespace(name: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name == ANY_NAMESPACE
        || (1..=MAX_NAMESPACE_BYTES).contains(&name.len()) && name.bytes().all(inner)
    {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(format!(
        "{shown:?} is neither the name of a namespace (1 to {MAX_NAMESPACE_BYTES} of a-z, A-Z, \
         0-9, '-', '_' and '.') nor \"*\" for all"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    const ALL: [Wish; 3] = [Wish::Network, Wish::Addresses, Wish::Mac];

    fn access(names: &[&str]) -> PodAccess {
        let names = names.iter().map(ToString::to_string).collect();
        PodAccess::default().for_namespaces(names).unwrap()
    }

    #[test]
    fn only_the_default_network_is_open_to_all_from_the_start() {
        let (default, blue) = ("default".parse().unwrap(), "blue".parse().unwrap());
        assert!(PodAccess::of_new(&default).check(&default, "shop", &[Wish::Network]).is_ok());
        let refused = PodAccess::of_new(&blue).check(&blue, "shop", &ALL).unwrap_err();
        assert_eq!(refused.wish, Wish::Network);
        let text = refused.to_string();
        for part in ["\"blue\"", "\"shop\"", "pod_namespaces", "--pod-namespace shop"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_named_namespace_is_let_in_and_no_other() {
        let blue = "blue".parse().unwrap();
        let open = access(&["shop", "bank"]);
        assert!(open.check(&blue, "bank", &[Wish::Network]).is_ok());
        for other in ["shop2", "sho", "SHOP", "*"] {
            assert!(open.check(&blue, other, &[Wish::Network]).is_err(), "{other}");
        }
        assert!(access(&["*"]).check(&blue, "anything", &[Wish::Network]).is_ok());
    }

    #[test]
    fn addresses_and_macs_are_each_allowed_by_themselves() {
        let blue = "blue".parse().unwrap();
        let wish = |access: &PodAccess| access.check(&blue, "shop", &ALL).map_err(|e| e.wish);
        let open = access(&["*"]);
        assert_eq!(wish(&open), Err(Wish::Addresses));
        assert_eq!(wish(&PodAccess { addresses: true, ..open.clone() }), Err(Wish::Mac));
        assert_eq!(wish(&PodAccess { macs: true, ..open.clone() }), Err(Wish::Addresses));
        assert_eq!(wish(&PodAccess { addresses: true, macs: true, ..open }), Ok(()));
    }

    #[test]
    fn where_no_pod_is_known_everything_is_allowed() {
        assert!(PodAccess::default().check(&"blue".parse().unwrap(), "", &ALL).is_ok());
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let names = vec!["ok".to_owned(), String::new(), "a b".into(), "a*".into()];
        let bad = PodAccess::default().for_namespaces(names).unwrap_err();
        let fields: Vec<_> = bad.violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["namespaces[1]", "namespaces[2]", "namespaces[3]"]);
    }
}
