//! The command `netd network`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use netd_api::v1::{
    self, CreateNetworkRequest, DeleteNetworkRequest, GetNetworkRequest, ListNetworksRequest,
    ReleaseAddressRequest, SetPodAccessRequest, network_service_client::NetworkServiceClient,
};

use netd_domain::{NetworkName, access::ANY_NAMESPACE};

use super::table::network::{Network, Networks};
use crate::client::{Client, ClientArgs};
use crate::terminal::{Failure, Format, Output, print, print_json_line};

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List the networks
    #[command(alias = "ls")]
    List(ClientArgs),
    /// Show one network in full
    Inspect {
        /// The network
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Create a network
    Create(Box<CreateArgs>),
    /// Let more pods use a network, or let them ask for more
    Allow {
        /// The network
        name: String,
        #[command(flatten)]
        pods: PodArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Take back what `allow` or `create` let pods do; endpoints that exist stay
    Deny {
        /// The network
        name: String,
        #[command(flatten)]
        pods: PodArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Free an address that Docker has reserved and no longer uses; one that an endpoint has stays
    Release {
        /// The address
        address: std::net::IpAddr,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a network that has no endpoints
    #[command(alias = "rm")]
    Delete {
        /// The network
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// 1 to 63 of a-z, 0-9 and '-'
    name: String,
    /// SUBNET[,gateway=IP][,range=FIRST-LAST][,reserved=IP or SUBNET]...; repeat for more pools
    #[arg(long = "pool", required = true, value_parser = pool, value_name = "SUBNET")]
    pools: Vec<v1::Pool>,
    /// How pods are connected: a bridge, or a host route to each
    #[arg(long, value_enum, default_value_t = DriverArg::Bridge)]
    driver: DriverArg,
    /// The bridge's name [default: made from the network's]
    #[arg(long, default_value = "", hide_default_value = true)]
    bridge: String,
    /// In bytes [default: follow the underlay]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    mtu: u32,
    /// Do not masquerade: packets to the outside keep the pod's address
    #[arg(long)]
    no_masquerade: bool,
    /// Forward nothing in or out of the network
    #[arg(long)]
    internal: bool,
    /// What to put back when another program has changed it: the host's side of endpoints, or
    /// the pod's side too
    #[arg(long, value_enum, default_value_t = RepairArg::Host)]
    repair: RepairArg,
    /// Take a pool although the host itself is in a network that overlaps with it: the host
    /// cannot reach that network then
    #[arg(long)]
    force: bool,
    /// Let others reach pods by host ports only, as Docker's bridge networks do
    #[arg(long)]
    published_only: bool,
    #[command(flatten)]
    pods: PodArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What pods may do in a network. Without a pod namespace (Docker, podman, ctr) everything is
/// allowed.
#[derive(Debug, Args)]
pub(crate) struct PodArgs {
    /// Namespace whose pods may use the network, or "*" for all; repeat for more [default: "*"
    /// for the network "default", none for others]
    #[arg(long = "pod-namespace", value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// Pods may ask for addresses (annotations, capability ips)
    #[arg(long = "pod-addresses")]
    addresses: bool,
    /// Pods may ask for a MAC address
    #[arg(long = "pod-macs")]
    macs: bool,
}

impl PodArgs {
    /// For a new network; `None`: nothing was said.
    fn of_new(self, network: &str) -> Option<v1::PodAccess> {
        let Self { mut namespaces, addresses, macs } = self;
        if namespaces.is_empty() && !addresses && !macs {
            return None;
        }
        if namespaces.is_empty() && network == NetworkName::DEFAULT {
            namespaces.push(ANY_NAMESPACE.to_owned());
        }
        Some(v1::PodAccess { namespaces, addresses, macs })
    }

    fn added_to(self, access: v1::PodAccess) -> v1::PodAccess {
        let mut namespaces = access.namespaces;
        namespaces.extend(self.namespaces);
        let (addresses, macs) = (access.addresses | self.addresses, access.macs | self.macs);
        v1::PodAccess { namespaces, addresses, macs }
    }

    fn taken_from(self, access: v1::PodAccess) -> v1::PodAccess {
        let mut namespaces = access.namespaces;
        namespaces.retain(|name| !self.namespaces.contains(name));
        let (addresses, macs) = (access.addresses & !self.addresses, access.macs & !self.macs);
        v1::PodAccess { namespaces, addresses, macs }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DriverArg {
    Bridge,
    Routed,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RepairArg {
    Host,
    Pod,
}

/// Splits a pool's description; netd checks the addresses.
fn pool(text: &str) -> Result<v1::Pool, String> {
    let mut parts = text.split(',');
    let subnet = parts.next().unwrap_or_default().to_owned();
    let mut pool = v1::Pool { subnet, ..Default::default() };
    for part in parts {
        match part.split_once('=') {
            Some(("gateway", ip)) => pool.gateway = ip.to_owned(),
            Some(("reserved", net)) => pool.reserved.push(net.to_owned()),
            Some(("range", range)) => {
                let (first, last) = range.split_once('-').ok_or("range is FIRST-LAST")?;
                (pool.range_start, pool.range_end) = (first.to_owned(), last.to_owned());
            }
            _ => return Err(format!("\"{part}\" is none of gateway=, range=, reserved=")),
        }
    }
    Ok(pool)
}

pub(super) async fn run(command: NetworkCommand) -> Result<ExitCode, Failure> {
    match command {
        NetworkCommand::List(args) => {
            let reply = service(&args).await?.list_networks(ListNetworksRequest {}).await?;
            Networks::from(reply.into_inner()).print(args.output)?;
        }
        NetworkCommand::Inspect { name, client } => {
            let reply = service(&client).await?.get_network(GetNetworkRequest { name }).await?;
            show(reply.into_inner().network, &client)?;
        }
        NetworkCommand::Create(args) => {
            let client = args.client.clone();
            let force = args.force;
            let request = CreateNetworkRequest { network: Some(args.network()), force };
            let reply = service(&client).await?.create_network(request).await?;
            show(reply.into_inner().network, &client)?;
        }
        NetworkCommand::Allow { name, pods, client } => {
            set_pods(name, &client, |access| pods.added_to(access)).await?;
        }
        NetworkCommand::Deny { name, pods, client } => {
            set_pods(name, &client, |access| pods.taken_from(access)).await?;
        }
        NetworkCommand::Release { address, client } => {
            let address = address.to_string();
            let request = ReleaseAddressRequest { address: address.clone() };
            service(&client).await?.release_address(request).await?;
            match client.output {
                Format::Json => print_json_line(&serde_json::json!({ "released": address }))?,
                Format::Table => print(&format!("{address} is not reserved\n"))?,
            }
        }
        NetworkCommand::Delete { name, client } => {
            let request = DeleteNetworkRequest { name: name.clone() };
            service(&client).await?.delete_network(request).await?;
            match client.output {
                Format::Json => print_json_line(&serde_json::json!({ "deleted": name }))?,
                Format::Table => print(&format!("network {name} is gone\n"))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl CreateArgs {
    fn network(self) -> v1::Network {
        let driver = match self.driver {
            DriverArg::Bridge => v1::Driver::Bridge,
            DriverArg::Routed => v1::Driver::Routed,
        };
        let pods = self.pods.of_new(&self.name);
        v1::Network {
            name: self.name,
            driver: driver.into(),
            pools: self.pools,
            bridge: self.bridge,
            mtu: self.mtu,
            masquerade: !self.no_masquerade && !self.internal,
            internal: self.internal,
            published_only: self.published_only,
            allow_host_overlap: self.force,
            cluster: vec![],
            docker0: vec![],
            pods,
            repair: match self.repair {
                RepairArg::Host => v1::RepairScope::Host,
                RepairArg::Pod => v1::RepairScope::Pod,
            }
            .into(),
        }
    }
}

/// Changes what pods may do in a network, and shows it.
async fn set_pods(
    name: String,
    client: &ClientArgs,
    change: impl FnOnce(v1::PodAccess) -> v1::PodAccess,
) -> Result<(), Failure> {
    let mut service = service(client).await?;
    let reply = service.get_network(GetNetworkRequest { name: name.clone() }).await?.into_inner();
    let network = reply.network.and_then(|status| status.network).unwrap_or_default();
    let pods = Some(change(network.pods.unwrap_or_default()));
    let request = SetPodAccessRequest { network: name, pods };
    show(service.set_pod_access(request).await?.into_inner().network, client)
}

async fn service(args: &ClientArgs) -> Result<NetworkServiceClient<Client>, Failure> {
    Ok(NetworkServiceClient::new(args.connect().await?))
}

fn show(network: Option<v1::NetworkStatus>, args: &ClientArgs) -> Result<(), Failure> {
    Network::from(network.unwrap_or_default()).print(args.output)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_a_subnet_and_what_follows_it() {
        let p = pool("10.1.0.0/16,gateway=10.1.0.9,range=10.1.1.1-10.1.1.9,reserved=10.1.1.5");
        let p = p.unwrap();
        assert_eq!((p.subnet.as_str(), p.gateway.as_str()), ("10.1.0.0/16", "10.1.0.9"));
        assert_eq!((p.range_start.as_str(), p.range_end.as_str()), ("10.1.1.1", "10.1.1.9"));
        assert_eq!(p.reserved, ["10.1.1.5"]);
        assert!(pool("10.1.0.0/16,gw=1").is_err());
        assert!(pool("10.1.0.0/16,range=1").is_err());
    }
}
