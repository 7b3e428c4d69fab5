//! Whose an address is: the longest prefix counts.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Prefixes of both families, each with a value.
#[derive(Debug, Clone)]
pub struct Table<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T> Table<T> {
    /// Sets a prefix's value; the one it had before is returned.
    pub fn insert(&mut self, net: IpNet, value: T) -> Option<T> {
        match net.trunc() {
            IpNet::V4(net) => self.v4.insert(net, value),
            IpNet::V6(net) => self.v6.insert(net, value),
        }
    }

    /// Takes a prefix out.
    pub fn remove(&mut self, net: &IpNet) -> Option<T> {
        match net.trunc() {
            IpNet::V4(net) => self.v4.remove(&net),
            IpNet::V6(net) => self.v6.remove(&net),
        }
    }

    /// The value of the longest prefix that `address` is in.
    pub fn find(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(ip) => self.v4.get_lpm(&Ipv4Net::from(ip)).map(|(_, value)| value),
            IpAddr::V6(ip) => self.v6.get_lpm(&Ipv6Net::from(ip)).map(|(_, value)| value),
        }
    }

    /// Whether there is no prefix at all.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl<T> FromIterator<(IpNet, T)> for Table<T> {
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(iter: I) -> Self {
        let mut table = Self::default();
        for (net, value) in iter {
            table.insert(net, value);
        }
        table
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd00::/48", "0.0.0.0/0"];
        let table: Table<&str> = nets.iter().map(|net| (net.parse().unwrap(), *net)).collect();
        for (address, net) in [
            ("10.1.2.255", "10.1.2.0/24"),
            ("10.1.3.0", "10.1.0.0/16"),
            ("10.2.0.1", "10.0.0.0/8"),
            ("192.0.2.1", "0.0.0.0/0"),
            ("fd00::1", "fd00::/48"),
        ] {
            assert_eq!(table.find(address.parse().unwrap()), Some(&net), "{address}");
        }
        assert_eq!(table.find("fe80::1".parse().unwrap()), None);
        let mut table = table;
        let net: IpNet = "10.1.2.0/24".parse().unwrap();
        assert_eq!((table.remove(&net), table.remove(&net)), (Some("10.1.2.0/24"), None));
        assert_eq!(table.find("10.1.2.255".parse().unwrap()), Some(&"10.1.0.0/16"));
    }
}
