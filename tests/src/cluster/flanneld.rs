//! flanneld on a machine, as far as the kernel and etcd show it: what flannel 0.28 does at its
//! start and for each lease, by iproute2 and etcdctl. Pods are the plugins' business.

use std::{fs, net::IpAddr};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    Cluster, Families,
    flannel::{mac_of_device, program, put_lease},
    plan::{NETWORK_V4, NETWORK_V6},
};
use crate::host::Host;

/// What flanneld of one machine does.
#[derive(Debug, Clone)]
pub struct Flanneld {
    /// Its subnets, IPv4 first.
    pub subnets: Vec<IpNet>,
    vxlan: bool,
}

impl Flanneld {
    /// Of a machine with the subnets number `n` of the cluster's networks. `backend`: "vxlan" or
    /// "host-gw".
    pub fn new(backend: &str, families: Families, n: u8) -> Result<Self> {
        let v4 = families.v4().then(|| format!("10.5.{n}.0/24"));
        let v6 = families.v6().then(|| format!("fd00:5:0:{n}::/64"));
        let subnets = v4.into_iter().chain(v6).map(|net| Ok(net.parse()?));
        Ok(Self { subnets: subnets.collect::<Result<_>>()?, vxlan: backend == "vxlan" })
    }

    /// The name of its lease: `10.5.20.0-24`.
    pub fn lease_name(&self) -> String {
        let names = self.subnets.iter().map(|net| net.to_string().replace('/', "-"));
        names.collect::<Vec<_>>().join("&")
    }

    /// Makes the devices that are not there, writes the lease under a new etcd lease, and writes
    /// `subnet.env`. flannel goes on with a device whose settings fit, whatever its MAC.
    pub fn start(&self, host: &Host, cluster: &Cluster) -> Result<()> {
        host.net.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")?;
        for net in self.subnets.iter().filter(|_| self.vxlan) {
            let (device, address) = (device(net), net.network());
            let (local, length) = (public(host, net), net.max_prefix_len());
            host.net.sh(&format!(
                "ip link show dev {device} >/dev/null 2>&1 || ip link add {device} mtu 1450 type vxlan id 1 \
                     dev eth0 local {local} dstport 8472 nolearning
                 ip address replace {address}/{length} dev {device}; ip link set {device} up"
            ))?;
        }
        put_lease(&cluster.etcd, &self.lease_name(), &self.value(host)?.to_string(), 3600)?;
        let mut text = String::new();
        for net in &self.subnets {
            let (part, whole) = match net {
                IpNet::V4(_) => ("", NETWORK_V4),
                IpNet::V6(_) => ("IPV6_", NETWORK_V6),
            };
            let first = net.hosts().find(|ip| *ip != net.network()).context("no address")?;
            let length = net.prefix_len();
            text +=
                &format!("FLANNEL_{part}NETWORK={whole}\nFLANNEL_{part}SUBNET={first}/{length}\n");
        }
        let mtu = if self.vxlan { 1450 } else { 1500 };
        text += &format!("FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n");
        Ok(fs::write(host.directory().join("subnet.env"), text)?)
    }

    /// Programs what etcd has of the others.
    pub fn follow(&self, host: &Host, cluster: &Cluster) -> Result<()> {
        for (name, value) in cluster.leases()? {
            let value: Value = serde_json::from_str(&value)?;
            if value["PublicIP"] == json!(host.v4) {
                continue;
            }
            for net in name.split('&') {
                let net: IpNet = net.replacen('-', "/", 1).parse()?;
                self.follow_one(host, &net, &value)?;
            }
        }
        Ok(())
    }

    fn follow_one(&self, host: &Host, net: &IpNet, value: &Value) -> Result<()> {
        let (ip, data) = match net {
            IpNet::V4(_) => ("PublicIP", "BackendData"),
            IpNet::V6(_) => ("PublicIPv6", "BackendV6Data"),
        };
        let public = value[ip].as_str().with_context(|| format!("no {ip}: {value}"))?;
        if !self.vxlan {
            host.net.sh(&format!("ip route replace {net} via {public} dev eth0"))?;
            return Ok(());
        }
        let mac = value[data]["VtepMAC"].as_str().with_context(|| format!("no MAC: {value}"))?;
        program(host, device(net), &net.trunc().to_string(), public, mac)
    }

    /// The MACs of its devices, as the kernel has them.
    pub fn macs(&self, host: &Host) -> Result<Vec<String>> {
        let nets = self.subnets.iter().filter(|_| self.vxlan);
        nets.map(|net| mac_of_device(host, device(net))).collect()
    }

    fn value(&self, host: &Host) -> Result<Value> {
        let v6 = self.subnets.iter().any(|net| net.addr().is_ipv6());
        let mut value = json!({
            "PublicIP": host.v4, "PublicIPv6": v6.then_some(host.v6),
            "BackendType": if self.vxlan { "vxlan" } else { "host-gw" },
        });
        for net in self.subnets.iter().filter(|_| self.vxlan) {
            let data = if net.addr().is_ipv4() { "BackendData" } else { "BackendV6Data" };
            value[data] = json!({"VNI": 1, "VtepMAC": mac_of_device(host, device(net))?});
        }
        Ok(value)
    }
}

fn device(net: &IpNet) -> &'static str {
    if net.addr().is_ipv4() { "flannel.1" } else { "flannel-v6.1" }
}

fn public(host: &Host, net: &IpNet) -> IpAddr {
    if net.addr().is_ipv4() { host.v4.into() } else { host.v6.into() }
}
