//! netd as built, on a host of the bed.

mod calls;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use netd_api::v1::{
    Endpoint, GetStatusRequest, GetStatusResponse, ListEndpointsRequest, ListNetworksRequest,
    ListNetworksResponse, NetworkStatus, endpoint_service_client::EndpointServiceClient,
    network_service_client::NetworkServiceClient, node_service_client::NodeServiceClient,
    sandbox_service_client::SandboxServiceClient,
};
use tonic::transport::Channel;

use crate::{block_on, cri::channel, host::Host, paths, service::Service, unit, wait};

/// What goes into netd's configuration file besides its directories.
#[derive(Debug, Clone)]
pub struct DaemonConfig {
    /// Top-level keys, a line each.
    pub top: String,
    /// `[[network]]` tables.
    pub networks: String,
    /// What is logged.
    pub filter: &'static str,
}

/// The pools that most tests use.
pub(crate) const V4_POOL: &str = "10.88.0.0/16";
/// See [`V4_POOL`].
pub(crate) const V6_POOL: &str = "fd00:88::/64";

impl DaemonConfig {
    /// One dual-stack network `default`, with `driver` "bridge" or "routed".
    pub fn with_driver(driver: &str) -> Self {
        let networks = network("default", driver, &[V4_POOL, V6_POOL]);
        Self { top: String::new(), networks, filter: "info,netd=debug" }
    }

    /// A network `default` that is as netd makes it, without a word about pods.
    pub fn plain() -> Self {
        Self::default().without_access()
    }

    /// The same without a word about pods, as releases before 0.2 take it.
    pub fn without_access(self) -> Self {
        Self { networks: self.networks.replace(OPEN, ""), ..self }
    }

    /// As the default, logging only what a node in use does.
    pub fn quiet() -> Self {
        Self { filter: "info", ..Self::default() }
    }

    /// The network puts back what others change inside its pods, too.
    pub fn repairing_pods(mut self) -> Self {
        self.networks = self.networks.replacen("driver =", "repair = \"pod\"\ndriver =", 1);
        self
    }

    /// One more network.
    pub fn and_network(mut self, name: &str, driver: &str, pools: &[&str]) -> Self {
        self.networks += &network(name, driver, pools);
        self
    }
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self::with_driver("bridge")
    }
}

/// What opens a network to all pods and their wishes.
const OPEN: &str = "pod_namespaces = [\"*\"]\npod_addresses = true\npod_macs = true\n";

/// A network that is open to all pods and their wishes; see tests/tests/access.rs for others.
fn network(name: &str, driver: &str, pools: &[&str]) -> String {
    let mut text = format!("[[network]]\nname = \"{name}\"\ndriver = \"{driver}\"\n");
    text += OPEN;
    for pool in pools {
        text += &format!("[[network.pool]]\nsubnet = \"{pool}\"\n");
    }
    text
}

/// A netd with directories and a socket of its own.
#[derive(Debug)]
pub struct Daemon {
    directory: PathBuf,
    host_net: PathBuf,
    log: PathBuf,
    service: Service,
}

impl Daemon {
    /// Starts netd on the host and waits until it is ready.
    pub fn start(host: &Host, config: &DaemonConfig) -> Result<Self> {
        let mut daemon = Self::launch(host, config)?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts netd, which may fail.
    pub fn launch(host: &Host, config: &DaemonConfig) -> Result<Self> {
        Self::launch_in(host, config, "netd")
    }

    /// The same with directories and a socket of another name: a second netd on the host.
    pub fn launch_in(host: &Host, config: &DaemonConfig, name: &str) -> Result<Self> {
        let directory = host.directory().join(name);
        fs::create_dir_all(directory.join("state"))?;
        fs::create_dir_all(directory.join("run"))?;
        configure_in(host, config, name)?;
        let log = host.directory().join(format!("{name}.log"));
        let host_net = host.net.path().to_owned();
        let service = spawn(&directory, &host_net, &log, &[])?;
        Ok(Self { directory, host_net, log, service })
    }

    /// Starts netd with the capabilities of `unit` in deploy/systemd and no others.
    pub fn start_confined(host: &Host, config: &DaemonConfig, unit: &str) -> Result<Self> {
        let confined = [vec!["setpriv".to_owned()], unit::setpriv(unit)?].concat();
        Self::start_by(host, config, &confined)
    }

    /// Starts netd by a program that executes it: `before` is that and its arguments.
    pub fn start_by(host: &Host, config: &DaemonConfig, before: &[String]) -> Result<Self> {
        let mut daemon = Self::launch(host, config)?;
        daemon.service.stop(Duration::from_secs(20))?;
        daemon.service = spawn(&daemon.directory, &daemon.host_net, &daemon.log, before)?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Where a host's netd listens.
    pub fn socket_of(host: &Host) -> PathBuf {
        host.directory().join("netd/run/netd.sock")
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/netd.sock")
    }

    /// Where it listens for hooks.
    pub fn hook_socket(&self) -> PathBuf {
        netd_api::hook::socket_beside(&self.socket().to_string_lossy()).into()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// The process itself, for tests that end it.
    pub fn service(&mut self) -> &mut Service {
        &mut self.service
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Empties its state_dir and run_dir, as a mistaken `rm -rf` does.
    pub fn empty_directories(&self) -> Result<()> {
        for name in ["state", "run"] {
            fs::remove_dir_all(self.directory.join(name))?;
            fs::create_dir_all(self.directory.join(name))?;
        }
        Ok(())
    }

    /// SIGKILL.
    pub fn kill9(&mut self) -> Result<()> {
        self.service.kill9()
    }

    /// Stops it as systemd would, if it runs, and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.service.stop(Duration::from_secs(20))?;
        self.respawn()?;
        self.wait_ready()
    }

    /// Starts it again after its end, without waiting for anything.
    pub fn respawn(&mut self) -> Result<()> {
        self.service = spawn(&self.directory, &self.host_net, &self.log, &[])?;
        Ok(())
    }

    /// Until it says so itself.
    pub fn wait_ready(&mut self) -> Result<()> {
        let nodes = self.nodes()?;
        let service = &mut self.service;
        let (running, _) = wait::until(Duration::from_secs(20), "netd is ready", || {
            Ok(match service.check_alive() {
                Err(ended) => Err(ended),
                Ok(()) => {
                    let mut nodes = nodes.clone();
                    let status =
                        block_on(nodes.get_status(GetStatusRequest::default()))?.into_inner();
                    ensure!(status.ready, "{:?}", status.components);
                    Ok(())
                }
            })
        })?;
        running
    }

    /// `netd ARGUMENTS` as people type it, against this netd.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(paths::built("netd")?)
            .args(arguments)
            .env("NETD_SOCKET", self.socket())
            .env("NETD_CONFIG", self.directory.join("netd.toml"))
            .output()
            .context("run netd")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr);
            bail!("netd {arguments:?}: {}\n{printed}{messages}", output.status);
        }
        Ok(printed)
    }

    /// NodeService.
    pub fn nodes(&self) -> Result<NodeServiceClient<Channel>> {
        Ok(NodeServiceClient::new(channel(&self.socket())?))
    }

    /// EndpointService.
    pub fn endpoint_service(&self) -> Result<EndpointServiceClient<Channel>> {
        Ok(EndpointServiceClient::new(channel(&self.socket())?))
    }

    /// NetworkService.
    pub fn network_service(&self) -> Result<NetworkServiceClient<Channel>> {
        Ok(NetworkServiceClient::new(channel(&self.socket())?))
    }

    /// SandboxService.
    pub fn sandbox_service(&self) -> Result<SandboxServiceClient<Channel>> {
        Ok(SandboxServiceClient::new(channel(&self.socket())?))
    }

    /// What it says about itself.
    pub fn status(&self) -> Result<GetStatusResponse> {
        Ok(block_on(self.nodes()?.get_status(GetStatusRequest::default()))?.into_inner())
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        let request = ListEndpointsRequest { page_size: 5000, ..Default::default() };
        let mut service = self.endpoint_service()?;
        Ok(block_on(service.list_endpoints(request))?.into_inner().endpoints)
    }

    /// Every network.
    pub fn networks(&self) -> Result<Vec<NetworkStatus>> {
        Ok(self.list_networks()?.networks)
    }

    /// As [`Daemon::networks`], with the subnets that are no networks of netd's.
    pub fn list_networks(&self) -> Result<ListNetworksResponse> {
        let mut service = self.network_service()?;
        Ok(block_on(service.list_networks(ListNetworksRequest {}))?.into_inner())
    }

    /// Addresses in use, over all pools.
    pub fn addresses_used(&self) -> Result<u64> {
        let pools = self.networks()?.into_iter().flat_map(|network| network.pools);
        Ok(pools.map(|pool| pool.used).sum())
    }
}

/// Writes a host's configuration, which netd reads when it starts.
pub fn configure(host: &Host, config: &DaemonConfig) -> Result<()> {
    configure_in(host, config, "netd")
}

fn configure_in(host: &Host, config: &DaemonConfig, name: &str) -> Result<()> {
    let directory = host.directory().join(name);
    let here = directory.display();
    let text = format!(
        "node = \"{}\"\nstate_dir = \"{here}/state\"\nrun_dir = \"{here}/run\"\n{}\n\
         [log]\nformat = \"json\"\nfilter = \"{}\"\n{}",
        host.name, config.top, config.filter, config.networks
    );
    Ok(fs::write(directory.join("netd.toml"), text)?)
}

/// `before`: a program and its arguments that execute netd.
fn spawn(directory: &Path, net: &Path, log: &Path, before: &[String]) -> Result<Service> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", net.display()))
        .arg("--")
        .args(before)
        .arg(paths::built("netd")?)
        .args(["serve", "--config"])
        .arg(directory.join("netd.toml"))
        .env("NETD_HOST_LOCAL_DIR", directory.with_file_name("cni").join("networks"));
    Service::start("netd", command, log)
}
