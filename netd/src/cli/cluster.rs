//! The commands `netd node` and `netd route`.

use std::process::ExitCode;

use clap::Subcommand;
use netd_api::v1::{
    GetRouteRequest, ListNodesRequest, RemoveNodeRequest,
    cluster_service_client::ClusterServiceClient,
};

use super::table::cluster::{Nodes, RemovedNode, Route};
use crate::client::{Client, ClientArgs};
use crate::terminal::{EXIT_NOT_READY, Failure, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the cluster's nodes, their subnets, and whether the kernel has routes to them
    #[command(alias = "ls")]
    List(ClientArgs),
    /// Remove a node that is gone, so that its subnets are free before its lease expires
    ///
    /// A netd node is asked first whether it runs, for 10 seconds. One that is cut off from etcd
    /// can't answer: make sure that it is off, or its pods keep addresses that others get.
    #[command(alias = "rm")]
    Remove {
        /// The node's name or id, its public address, or one of its subnets: then only that lease
        node: String,
        /// Do not ask whether it runs; needed for nodes of flannel and for reservations
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Show which node and pod have an address, and the route to it
    ///
    /// The exit code is 3 when the kernel's route is not the one that netd wants.
    Get {
        /// A pod's address
        ip: std::net::IpAddr,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(crate) async fn nodes(command: NodeCommand) -> Result<ExitCode, Failure> {
    match command {
        NodeCommand::List(args) => {
            let list = service(&args).await?.list_nodes(ListNodesRequest {}).await?.into_inner();
            Nodes::from(list).print(args.output)?;
        }
        NodeCommand::Remove { node, force, client } => {
            let request = RemoveNodeRequest { node: node.clone(), force };
            let removed = service(&client).await?.remove_node(request).await?.into_inner();
            RemovedNode::new(node, removed).print(client.output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn route(command: RouteCommand) -> Result<ExitCode, Failure> {
    let RouteCommand::Get { ip, client } = command;
    let request = GetRouteRequest { ip: ip.to_string() };
    let route = service(&client).await?.get_route(request).await?.into_inner();
    let agrees = route.agrees;
    Route::from(route).print(client.output)?;
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_READY) })
}

async fn service(args: &ClientArgs) -> Result<ClusterServiceClient<Client>, Failure> {
    const MAX_BYTES: usize = 64 << 20;
    let client = ClusterServiceClient::new(args.connect().await?);
    Ok(client.max_decoding_message_size(MAX_BYTES))
}
