//! What a cluster is to be like.

use std::path::Path;

use serde_json::{Value, json};

use crate::{daemon::DaemonConfig, etcd::EtcdCluster, kubernetes::ApiServer};

/// Which addresses pods have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// One of each.
    Dual,
}

impl Families {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Dual];

    /// Whether pods have an IPv4 address.
    pub fn v4(self) -> bool {
        self != Self::V6
    }

    /// Whether pods have an IPv6 address.
    pub fn v6(self) -> bool {
        self != Self::V4
    }

    /// How many addresses a pod has.
    pub fn count(self) -> usize {
        usize::from(self.v4()) + usize::from(self.v6())
    }
}

/// The cluster's IPv4 network.
pub(crate) const NETWORK_V4: &str = "10.5.0.0/16";
/// The cluster's IPv6 network.
pub(crate) const NETWORK_V6: &str = "fd00:5::/48";
/// Where flannel's keys are.
pub const PREFIX: &str = "/coreos.com/network";

/// flannel's configuration, as people write it to `<prefix>/config`.
pub fn network_config(families: Families, backend: Value) -> Value {
    let mut config = json!({ "Backend": backend });
    if families.v4() {
        config["Network"] = json!(NETWORK_V4);
    } else {
        config["EnableIPv4"] = json!(false);
    }
    if families.v6() {
        config["EnableIPv6"] = json!(true);
        config["IPv6Network"] = json!(NETWORK_V6);
    }
    config
}

/// What a cluster is to be like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the names of its nodes begin with, where one bed has several clusters.
    pub name: String,
    /// `<prefix>/config` in etcd.
    pub config: Value,
    /// Which addresses pods have.
    pub families: Families,
    /// How many nodes, those behind the router among them.
    pub nodes: usize,
    /// How many of them, the last ones, are on a second link behind a router.
    pub far: usize,
    /// How many members etcd has.
    pub members: usize,
    /// More lines of netd's section `[overlay]`.
    pub overlay: String,
    /// "bridge" or "routed".
    pub driver: &'static str,
    /// What netd logs.
    pub filter: &'static str,
    /// Whether nodes have an IPv4 address.
    pub underlay_v4: bool,
    /// Whether nodes have an IPv6 address.
    pub underlay_v6: bool,
}

impl Plan {
    /// Three nodes on one link, one member of etcd.
    pub fn new(families: Families, backend: Value) -> Self {
        Self {
            name: String::new(),
            config: network_config(families, backend),
            families,
            nodes: 3,
            far: 0,
            members: 1,
            overlay: String::new(),
            driver: "bridge",
            filter: "info,netd=debug",
            underlay_v4: true,
            underlay_v6: true,
        }
    }

    /// Names begin with this.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// As many nodes.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// So many of them on a second link.
    pub fn far(mut self, far: usize) -> Self {
        self.far = far;
        self
    }

    /// Three members of etcd.
    pub fn three_members(mut self) -> Self {
        self.members = 3;
        self
    }

    /// A line of netd's section `[overlay]`.
    pub fn overlay(mut self, line: &str) -> Self {
        self.overlay += line;
        self.overlay.push('\n');
        self
    }

    /// Another key of `<prefix>/config`.
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Whether the backend works through netd-tunnel; the kernels that tests run on
    /// may have no WireGuard.
    pub fn tunnelled(&self) -> bool {
        matches!(self.config["Backend"]["Type"].as_str(), Some("udp" | "wireguard"))
    }

    /// A node's configuration of netd; `own` are further lines of `[overlay]`.
    pub(super) fn daemon(&self, etcd: &EtcdCluster, subnet_file: &str, own: &str) -> DaemonConfig {
        let (endpoints, overlay, driver) = (etcd.endpoints(), &self.overlay, self.driver);
        let networks = format!(
            "[etcd]\nendpoints = {endpoints:?}\ntimeout = \"2s\"\n\
             [overlay]\nsubnet_file = \"{subnet_file}\"\n{overlay}{own}\
             [[network]]\nname = \"default\"\ndriver = \"{driver}\"\n"
        );
        DaemonConfig { top: String::new(), networks, filter: self.filter }
    }

    /// The same with the Kubernetes API in place of etcd; `directory` is the host's own.
    pub(super) fn daemon_in_kubernetes(&self, api: &ApiServer, directory: &Path) -> DaemonConfig {
        let (overlay, driver, here) = (&self.overlay, self.driver, directory.display());
        let networks = format!(
            "[kubernetes]\nenabled = true\nkubeconfig = {:?}\ntimeout = \"2s\"\n\
             net_conf = \"{here}/net-conf.json\"\n\
             [overlay]\nsubnet_file = \"{here}/subnet.env\"\n{overlay}\
             [[network]]\nname = \"default\"\ndriver = \"{driver}\"\n",
            api.kubeconfig()
        );
        DaemonConfig { top: String::new(), networks, filter: self.filter }
    }
}
