//! The commands `netd node` and `netd route`.

use std::process::ExitCode;

use clap::Subcommand;
use netd_api::v1::{
    GetRouteRequest, ListNodesRequest, cluster_service_client::ClusterServiceClient,
};

use super::table::cluster::{Nodes, Route};
use crate::client::{Client, ClientArgs};
use crate::terminal::{EXIT_NOT_READY, Failure, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the cluster's nodes, their subnets, and whether the kernel has routes to them
    #[command(alias = "ls")]
    List(ClientArgs),
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
    let NodeCommand::List(args) = command;
    let list = service(&args).await?.list_nodes(ListNodesRequest {}).await?.into_inner();
    Nodes::from(list).print(args.output)?;
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
