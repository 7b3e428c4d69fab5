//! What can happen to a node.

use anyhow::Result;

use super::{Cluster, Node};

impl Node {
    /// Cuts the node off from etcd, and from nobody else: connections hang.
    pub fn cut_from_etcd(&self) -> Result<()> {
        self.host
            .net
            .sh("nft -f - <<EOF
             table inet cut {
                 chain out { type filter hook output priority -300; tcp dport 2379 drop; }
                 chain in { type filter hook input priority -300; tcp sport 2379 drop; }
             }
EOF")
            .map(drop)
    }

    /// Undoes [`Self::cut_from_etcd`].
    pub fn heal(&self) -> Result<()> {
        self.host.net.sh("nft delete table inet cut").map(drop)
    }

    /// The machine is gone: its netd, and its plug in the underlay. Nobody says goodbye.
    pub fn die(&mut self) -> Result<()> {
        self.netd.kill9()?;
        self.host.net.sh("ip link set eth0 down").map(drop)
    }

    /// The machine is back, without anything that the kernel held; pods are gone.
    pub fn come_back(&mut self) -> Result<()> {
        self.host.net.sh(&format!(
            "for device in $(ip -o link show type vxlan | sed 's/^[0-9]*: //; s/:.*//'); do
                 ip link delete $device; done
             ip link set eth0 up
             ip -4 address replace {}/24 dev eth0; ip -6 address replace {}/64 dev eth0 nodad
             ip route replace default via 192.0.2.1; ip -6 route replace default via 2001:db8::1",
            self.host.v4, self.host.v6
        ))?;
        self.netd.respawn()
    }
}

impl Cluster {
    /// No subnet has two owners, and no two leases overlap: which would be a fault for
    /// ever. Answers how many leases there are.
    pub fn check_no_subnet_twice(&self) -> Result<usize> {
        let mut seen: Vec<ipnet::IpNet> = Vec::new();
        let leases = self.leases()?;
        for (key, _) in &leases {
            for part in key.split('&') {
                let (address, length) = part.rsplit_once('-').unwrap_or((part, ""));
                let net: ipnet::IpNet = format!("{address}/{length}").parse()?;
                let clash = seen.iter().find(|other| other.contains(&net) || net.contains(*other));
                anyhow::ensure!(clash.is_none(), "{net} and {clash:?} are leased at once");
                seen.push(net);
            }
        }
        Ok(leases.len())
    }

    /// What each node believes to be its own, which no two may share.
    pub fn check_nobody_shares(&self) -> Result<()> {
        let mut seen: Vec<(String, String)> = Vec::new();
        for node in &self.nodes {
            for subnet in node.own()?.into_iter().flat_map(|own| own.subnets) {
                let other = seen.iter().find(|(taken, _)| *taken == subnet);
                anyhow::ensure!(
                    other.is_none(),
                    "{subnet} is {other:?}'s and {}'s",
                    node.host.name
                );
                seen.push((subnet, node.host.name.clone()));
            }
        }
        Ok(())
    }
}
