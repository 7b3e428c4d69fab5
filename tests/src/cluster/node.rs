//! One node of a cluster.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use netd_api::v1::{
    GetRouteRequest, GetRouteResponse, ListNodesRequest, ListNodesResponse, NodeSubnet,
    cluster_service_client::ClusterServiceClient,
};
use tonic::transport::Channel;

use super::plan::Plan;
use crate::{
    bed::Bed,
    block_on,
    cri::channel,
    daemon,
    daemon::{Daemon, DaemonConfig},
    etcd::EtcdCluster,
    host::Host,
    kubernetes::ApiServer,
    paths,
    service::Service,
    wait,
};

/// Of netd's metrics.
const METRICS: &str = "127.0.0.1:9479";

/// A node: its namespace, its netd, and a netd-tunnel where the backend needs one.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub host: Host,
    /// Its netd.
    pub netd: Daemon,
    /// Its netd-tunnel.
    pub tunnel: Option<Service>,
    plan: Plan,
}

impl Node {
    /// Makes the namespace and starts the processes; nothing is waited for.
    pub(super) fn launch(
        bed: &Bed,
        plan: &Plan,
        etcd: &EtcdCluster,
        number: usize,
    ) -> Result<Self> {
        let name = format!("{}n{number}", plan.name);
        let far = number + plan.far >= plan.nodes && number < plan.nodes;
        let host = if far { bed.far_host(&name)? } else { bed.host(&name)? };
        if !plan.underlay_v4 {
            host.net.sh("ip -4 address flush dev eth0")?;
        }
        if !plan.underlay_v6 {
            host.net.sh("ip -6 address flush dev eth0 scope global")?;
        }
        Self::launch_on(host, plan, etcd)
    }

    /// The same on a host that is there.
    pub fn launch_on(host: Host, plan: &Plan, etcd: &EtcdCluster) -> Result<Self> {
        let config = plan.daemon(etcd, &subnet_file(&host).display().to_string(), "");
        Self::launch_with(host, plan, &config)
    }

    /// The same of a node whose cluster's truth is not in etcd.
    pub fn launch_in_kubernetes(host: Host, plan: &Plan, api: &ApiServer) -> Result<Self> {
        std::fs::write(host.directory().join("net-conf.json"), plan.config.to_string())?;
        let config = plan.daemon_in_kubernetes(api, host.directory());
        Self::launch_with(host, plan, &config)
    }

    fn launch_with(host: Host, plan: &Plan, config: &DaemonConfig) -> Result<Self> {
        // Its socket's directory is made by who comes first.
        std::fs::create_dir_all(host.directory().join("netd/run"))?;
        let tunnel = plan.tunnelled().then(|| start_tunnel(&host)).transpose()?;
        let netd = Daemon::launch(&host, config)?;
        Ok(Self { host, netd, tunnel, plan: plan.clone() })
    }

    /// Starts a netd-tunnel if there is none.
    pub fn need_tunnel(&mut self) -> Result<()> {
        if self.tunnel.is_none() {
            self.tunnel = Some(start_tunnel(&self.host)?);
        }
        Ok(())
    }

    /// Writes netd's configuration again, with these lines in `[overlay]`; it counts from
    /// the next start on.
    pub fn reconfigure(&self, etcd: &EtcdCluster, own: &str) -> Result<()> {
        let file = subnet_file(&self.host).display().to_string();
        daemon::configure(&self.host, &self.plan.daemon(etcd, &file, own))
    }

    /// flannel's environment file, as netd writes it here.
    pub fn subnet_file(&self) -> PathBuf {
        subnet_file(&self.host)
    }

    /// ClusterService.
    pub fn cluster_service(&self) -> Result<ClusterServiceClient<Channel>> {
        let client = ClusterServiceClient::new(channel(&self.netd.socket())?);
        Ok(client.max_decoding_message_size(64 << 20))
    }

    /// ListNodes.
    pub fn listed(&self) -> Result<ListNodesResponse> {
        Ok(block_on(self.cluster_service()?.list_nodes(ListNodesRequest {}))?.into_inner())
    }

    /// GetRoute.
    pub fn route(&self, ip: IpAddr) -> Result<GetRouteResponse> {
        let request = GetRouteRequest { ip: ip.to_string() };
        Ok(block_on(self.cluster_service()?.get_route(request))?.into_inner())
    }

    /// The node's own leases.
    pub fn own(&self) -> Result<Vec<NodeSubnet>> {
        Ok(self.listed()?.nodes.into_iter().filter(|n| n.local).collect())
    }

    /// The subnets of its only lease.
    pub fn subnets(&self) -> Result<Vec<String>> {
        let own = self.own()?;
        Ok(own
            .first()
            .with_context(|| format!("{} has no subnet", self.host.name))?
            .subnets
            .clone())
    }

    /// What this node says of a subnet's lease, if it knows it.
    pub fn knows(&self, subnet: &str) -> Result<Option<NodeSubnet>> {
        let mut nodes = self.listed()?.nodes.into_iter();
        Ok(nodes.find(|n| n.subnets.iter().any(|s| s == subnet)))
    }

    /// The text of a component's problem; empty when it has none.
    pub fn problem(&self, component: &str) -> Result<String> {
        let components = self.netd.status()?.components;
        let found = components.into_iter().find(|c| c.name == component);
        Ok(found.map(|c| c.reason).unwrap_or_default())
    }

    /// What is in its kernel's main tables, one route a line.
    pub fn routes(&self) -> Result<String> {
        self.host.net.sh("ip -4 route; ip -6 route | grep -v fe80::/64 || true")
    }

    /// All metrics, as Prometheus reads them.
    pub fn metrics(&self) -> Result<String> {
        let address: SocketAddr = METRICS.parse()?;
        let text = self.host.net.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream
                .write_all(b"GET /metrics HTTP/1.0\r\nHost: netd\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).context("read the metrics")?;
            Ok(text)
        })?;
        Ok(text)
    }

    /// The sum of all series that begin like this: `netd_overlay_peers{state="failed"`.
    pub fn metric(&self, begins: &str) -> Result<f64> {
        let text = self.metrics()?;
        let lines = text.lines().filter(|line| line.starts_with(begins));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits until netd is ready again.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.netd.wait_ready()
    }
}

fn subnet_file(host: &Host) -> PathBuf {
    host.directory().join("subnet.env")
}

fn start_tunnel(host: &Host) -> Result<Service> {
    let run = host.directory().join("netd/run");
    std::fs::create_dir_all(&run)?;
    let socket = run.join("tunnel.sock");
    let mut command = host.net.command(paths::built("netd-tunnel")?);
    command.arg("--socket").arg(&socket).arg("--state").arg(run.join("tunnel.state"));
    let mut service = Service::start("netd-tunnel", command, &host.directory().join("tunnel.log"))?;
    // So that netd's first call is answered.
    wait::until(Duration::from_secs(5), "netd-tunnel listens", || {
        service.check_alive()?;
        Ok(std::fs::metadata(&socket)?)
    })?;
    Ok(service)
}
