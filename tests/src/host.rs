//! A host: a network namespace plugged into the underlay.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::namespace::Namespace;

/// A machine as the network sees it: `eth0` in the underlay, and a directory.
#[derive(Debug)]
pub struct Host {
    /// Its network namespace.
    pub net: Namespace,
    /// Its name, unique within the bed.
    pub name: String,
    /// Its own address in 192.0.2.0/24.
    pub v4: Ipv4Addr,
    /// Its own address in 2001:db8::/64.
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
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let number = u8::try_from(number)?;
        let net = Namespace::create(directory.join("net"))?;
        let v4 = Ipv4Addr::new(192, 0, 2, number);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number));
        let path = net.path().display();
        underlay.sh(&format!(
            "nsenter --net={path} ip link add eth0 type veth peer name u{number}
             nsenter --net={path} ip link set u{number} netns $$
             ip link set u{number} master under up"
        ))?;
        net.sh(&format!(
            "sysctl -qw net.ipv6.conf.eth0.accept_dad=0
             ip link set eth0 up
             ip address add {v4}/24 dev eth0; ip address add {v6}/64 dev eth0 nodad
             ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1"
        ))?;
        Ok(Self { net, name: name.to_owned(), v4, v6, directory: directory.to_owned() })
    }

    /// A directory of the host's own.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
