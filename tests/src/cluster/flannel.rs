//! A node as flannel leaves it: devices and routes made by hand with iproute2, leases
//! written with etcdctl. It reads of the others' leases what flannel reads.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::{Cluster, PREFIX};
use crate::{bed::Bed, etcd::EtcdCluster, host::Host, namespace::Namespace, net::raw};

/// A vxlan node of flannel's with a pod.
#[derive(Debug)]
pub struct FlannelNode {
    /// The machine.
    pub host: Host,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// MAC of its `flannel.1`.
    pub mac: String,
    /// Its pod.
    pub pod: Namespace,
    /// The pod's address.
    pub pod_ip: IpAddr,
}

impl FlannelNode {
    /// Makes the node's devices; nobody knows of it yet.
    pub fn vxlan(bed: &Bed, name: &str, subnet: &str) -> Result<Self> {
        let host = bed.host(name)?;
        let subnet: Ipv4Net = subnet.parse()?;
        device(&host, subnet.network())?;
        let (gateway, ip) = (nth(subnet, 1), nth(subnet, 2));
        let pod = Namespace::create(host.directory().join("pod"))?;
        let (path, length) = (pod.path().display(), subnet.prefix_len());
        host.net.sh(&format!(
            "sysctl -qw net.ipv4.ip_forward=1
             ip link add cni0 type bridge; ip link set cni0 up
             ip address add {gateway}/{length} dev cni0
             nsenter --net={path} ip link add eth0 mtu 1450 type veth peer name pod
             nsenter --net={path} ip link set pod netns $$
             ip link set pod master cni0 up"
        ))?;
        pod.sh(&format!(
            "ip link set eth0 up; ip address add {ip}/{length} dev eth0
             ip route add default via {gateway}"
        ))?;
        let mac = mac_of(&host)?;
        Ok(Self { host, subnet, mac, pod, pod_ip: ip.into() })
    }

    /// The lease's value, byte by byte as flannel writes it.
    pub fn value(&self) -> String {
        vxlan_value(self.host.v4, &self.mac)
    }

    /// Writes the lease, bound to an etcd lease of its own.
    pub fn lease(&self, etcd: &EtcdCluster) -> Result<()> {
        put_lease(etcd, &key_name(self.subnet), &self.value(), 3600).map(drop)
    }

    /// Programs what etcd has of the others, as flannel does; how many there are.
    pub fn follow(&self, cluster: &Cluster) -> Result<usize> {
        self.program(cluster.leases()?)
    }

    /// The same of netd's nodes only.
    pub fn follow_netd(&self, cluster: &Cluster) -> Result<usize> {
        let owners = cluster.keys("/netd/v1/cluster/owners/")?;
        let owned = |name: &str| owners.iter().any(|(owner, _)| owner == name);
        self.program(cluster.leases()?.into_iter().filter(|(name, _)| owned(name)).collect())
    }

    fn program(&self, leases: Vec<(String, String)>) -> Result<usize> {
        let mut peers = 0;
        for (name, value) in leases {
            let (address, length) = name.rsplit_once('-').context("a lease's name")?;
            let value: Value = serde_json::from_str(&value)?;
            let public = value["PublicIP"].as_str().context("no PublicIP")?;
            if public == self.host.v4.to_string() {
                continue;
            }
            ensure!(value["BackendType"] == "vxlan", "{value}");
            let mac = value["BackendData"]["VtepMAC"].as_str().context("no VtepMAC")?;
            self.program_one(&format!("{address}/{length}"), public, mac)?;
            peers += 1;
        }
        Ok(peers)
    }

    /// Programs one node's subnet: where it is, and its VTEP's MAC.
    pub fn program_one(&self, subnet: &str, public: &str, mac: &str) -> Result<()> {
        program(&self.host, "flannel.1", subnet, public, mac)
    }
}

/// What flannel programs of another node's subnet, on any host: where it is, and its VTEP's MAC.
pub fn program(host: &Host, device: &str, subnet: &str, public: &str, mac: &str) -> Result<()> {
    let (address, _) = subnet.split_once('/').context("a subnet")?;
    host.net.sh(&format!(
        "ip neigh replace {address} lladdr {mac} dev {device} nud permanent
         bridge fdb replace {mac} dev {device} dst {public}
         ip route replace {subnet} via {address} dev {device} onlink"
    ))?;
    Ok(())
}

/// flannel's annotations of a Node.
pub fn annotations(backend: &str, data: &str, public: &str) -> Value {
    json!({
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": backend,
        "flannel.alpha.coreos.com/backend-data": data,
        "flannel.alpha.coreos.com/public-ip": public,
    })
}

/// `flannel.1` as flannel makes it, on any host.
pub fn device(host: &Host, address: Ipv4Addr) -> Result<()> {
    host.net.sh(&format!(
        "ip link add flannel.1 mtu 1450 type vxlan id 1 dev eth0 local {} dstport 8472 nolearning
         ip address add {address}/32 dev flannel.1; ip link set flannel.1 up",
        host.v4
    ))?;
    Ok(())
}

/// MAC of a host's `flannel.1`.
pub fn mac_of(host: &Host) -> Result<String> {
    mac_of_device(host, "flannel.1")
}

/// MAC of a host's device.
pub fn mac_of_device(host: &Host, device: &str) -> Result<String> {
    let bytes = raw::mac_of(&host.net, device)?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).join(":"))
}

/// A vxlan lease's value, byte by byte as flannel writes it.
pub fn vxlan_value(public: Ipv4Addr, mac: &str) -> String {
    format!(
        "{{\"PublicIP\":\"{public}\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\
         \"BackendData\":{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}}}"
    )
}

/// The same as flannel's host-gw writes it.
pub fn host_gw_value(public: Ipv4Addr) -> String {
    let value = json!({"PublicIP": public, "PublicIPv6": null, "BackendType": "host-gw"});
    value.to_string()
}

/// `10.5.52.0-24`.
pub(crate) fn key_name(subnet: Ipv4Net) -> String {
    subnet.to_string().replace('/', "-")
}

/// Writes a lease that ends `seconds` after now; its number.
pub fn put_lease(etcd: &EtcdCluster, name: &str, value: &str, seconds: u32) -> Result<String> {
    let granted = etcd.ctl(&["lease", "grant", &seconds.to_string()])?;
    // "lease 694d7a... granted with TTL(3600s)"
    let id = granted.split(' ').nth(1).context("no lease")?.to_owned();
    etcd.ctl(&["put", &format!("--lease={id}"), &lease_key(name), value])?;
    Ok(id)
}

/// Writes a key without a lease: a reservation.
pub fn reserve(etcd: &EtcdCluster, name: &str, value: &str) -> Result<()> {
    etcd.ctl(&["put", &lease_key(name), value]).map(drop)
}

/// Where a lease is.
pub fn lease_key(name: &str) -> String {
    format!("{PREFIX}/subnets/{name}")
}

fn nth(subnet: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + n)
}
