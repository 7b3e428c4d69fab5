//! The command `netd endpoint`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use netd_api::v1::{
    self, DetachRequest, EventType, GetEndpointRequest, ListEndpointsRequest,
    WatchEndpointsRequest, endpoint_service_client::EndpointServiceClient,
};

use super::table::endpoint::{Endpoint, Endpoints, Event};
use crate::client::{Client, ClientArgs};
use crate::terminal::{Failure, Format, Output, print, print_json_line};

mod attach;

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// List the endpoints
    #[command(alias = "ls")]
    List(ListArgs),
    /// Show one endpoint in full
    Inspect {
        /// The sandbox's id
        sandbox: String,
        /// The interface inside the sandbox
        #[arg(default_value = "eth0")]
        interface: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Give a network namespace an endpoint
    Attach(Box<attach::AttachArgs>),
    /// Remove an endpoint
    Detach {
        /// The sandbox's id
        sandbox: String,
        /// The interface inside the sandbox
        #[arg(default_value = "eth0", conflicts_with = "all")]
        interface: String,
        /// Every endpoint of the sandbox
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print all endpoints, then every change
    Watch {
        /// Only changes after this revision
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
        after: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this network
    #[arg(long, default_value = "", hide_default_value = true)]
    network: String,
    /// Only of this sandbox
    #[arg(long, default_value = "", hide_default_value = true)]
    sandbox: String,
    /// Only of pods in this Kubernetes namespace
    #[arg(short = 'n', long, default_value = "", hide_default_value = true)]
    namespace: String,
    /// Only of pods of this name
    #[arg(long, default_value = "", hide_default_value = true)]
    pod: String,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(command: EndpointCommand) -> Result<ExitCode, Failure> {
    match command {
        EndpointCommand::List(args) => list(args).await?,
        EndpointCommand::Inspect { sandbox, interface, client } => {
            let request = GetEndpointRequest { sandbox_id: sandbox, interface };
            let reply = service(&client).await?.get_endpoint(request).await?.into_inner();
            show(reply.endpoint, &client)?;
        }
        EndpointCommand::Attach(args) => {
            let client = args.client.clone();
            let reply = service(&client).await?.attach(args.request()).await?.into_inner();
            show(reply.endpoint, &client)?;
        }
        EndpointCommand::Detach { sandbox, interface, all, client } => {
            let interface = if all { String::new() } else { interface };
            let request =
                DetachRequest { sandbox_id: sandbox, interface, ..DetachRequest::default() };
            let removed = service(&client).await?.detach(request).await?.into_inner().removed;
            match client.output {
                Format::Json => print_json_line(&serde_json::json!({ "removed": removed }))?,
                Format::Table => print(&format!("endpoints removed: {removed}\n"))?,
            }
        }
        EndpointCommand::Watch { after, client } => watch(after, &client).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn service(args: &ClientArgs) -> Result<EndpointServiceClient<Client>, Failure> {
    Ok(EndpointServiceClient::new(args.connect().await?))
}

fn show(endpoint: Option<v1::Endpoint>, args: &ClientArgs) -> Result<(), Failure> {
    Endpoint::from(endpoint.unwrap_or_default()).print(args.output)
}

/// All pages.
async fn list(args: ListArgs) -> Result<(), Failure> {
    let mut service = service(&args.client).await?;
    let mut request = ListEndpointsRequest {
        network: args.network,
        sandbox_id: args.sandbox,
        pod_namespace: args.namespace,
        pod_name: args.pod,
        ..Default::default()
    };
    let mut all = Endpoints::default();
    loop {
        let page = service.list_endpoints(request.clone()).await?.into_inner();
        all.endpoints.extend(page.endpoints.into_iter().map(Endpoint::from));
        // The first page's: a watch from there misses nothing that a later page saw.
        all.revision = all.revision.or(Some(page.revision));
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            return all.print(args.client.output);
        }
        request.page_token = page.next_page_token;
    }
}

async fn watch(after: i64, args: &ClientArgs) -> Result<(), Failure> {
    let request = WatchEndpointsRequest { after_revision: after };
    let mut events = service(args).await?.watch_endpoints(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        let synced = event.r#type() == EventType::Synced;
        let event = Event::from(event);
        match args.output {
            Format::Json => print_json_line(&event)?,
            Format::Table if synced => {}
            Format::Table => print(&event.line())?,
        }
    }
    Ok(())
}
