//! A host: a network namespace plugged into the underlay.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::namespace::Namespace;

/// A link of the underlay: a bridge, and the addresses of hosts on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// The bridge's name in the underlay's namespace.
    pub bridge: &'static str,
    /// The first three bytes of its /24.
    pub v4: [u8; 3],
    /// The third group of its /64: 2001:db8:V6::/64.
    pub v6: u16,
}

impl Segment {
    /// Where hosts are unless they are put elsewhere.
    pub(crate) const NEAR: Self = Self { bridge: "under", v4: [192, 0, 2], v6: 0 };
    /// Behind the underlay's router.
    pub(crate) const FAR: Self = Self { bridge: "far", v4: [198, 51, 100], v6: 1 };

    /// A host's addresses; number 1 is the router's.
    pub(crate) fn addresses(self, number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let [a, b, c] = self.v4;
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, self.v6, 0, 0, 0, 0, u16::from(number));
        (Ipv4Addr::new(a, b, c, number), v6)
    }
}

/// A machine as the network sees it: `eth0` in the underlay, and a directory.
#[derive(Debug)]
pub struct Host {
    /// Its network namespace.
    pub net: Namespace,
    /// Its name, unique within the bed.
    pub name: String,
    /// Its own address in 192.0.2.0/24, or 198.51.100.0/24 behind the router.
    pub v4: Ipv4Addr,
    /// Its own address in 2001:db8::/64, or 2001:db8:1::/64 behind the router.
    pub v6: Ipv6Addr,
    directory: PathBuf,
}

impl Host {
    /// `number` makes its addresses: 192.0.2.NUMBER and 2001:db8::NUMBER.
    pub(crate) fn plug(
        directory: &Path,
        underlay: &Namespace,
        name: &str,
        number: usize,
        segment: Segment,
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let number = u8::try_from(number)?;
        let net = Namespace::create(directory.join("net"))?;
        let (v4, v6) = segment.addresses(number);
        let (router4, router6) = segment.addresses(1);
        let (path, bridge) = (net.path().display(), segment.bridge);
        underlay.sh(&format!(
            "nsenter --net={path} ip link add eth0 type veth peer name u{number}
             nsenter --net={path} ip link set u{number} netns $$
             ip link set u{number} master {bridge} up"
        ))?;
        net.sh(&format!(
            "sysctl -qw net.ipv6.conf.eth0.accept_dad=0
             ip link set eth0 up
             ip address add {v4}/24 dev eth0; ip address add {v6}/64 dev eth0 nodad
             ip route add default via {router4}; ip -6 route add default via {router6}"
        ))?;
        Ok(Self { net, name: name.to_owned(), v4, v6, directory: directory.to_owned() })
    }

    /// A directory of the host's own.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
