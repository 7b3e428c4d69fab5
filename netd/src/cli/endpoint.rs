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
        /// The sandbox's id, or the beginning of it as `list` prints it
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
            let mut service = service(&client).await?;
            show(Some(inspect(&mut service, sandbox, interface).await?), &client)?;
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

async fn list(args: ListArgs) -> Result<(), Failure> {
    let mut service = service(&args.client).await?;
    let request = ListEndpointsRequest {
        network: args.network,
        sandbox_id: args.sandbox,
        pod_namespace: args.namespace,
        pod_name: args.pod,
        ..Default::default()
    };
    let (endpoints, revision) = pages(&mut service, request).await?;
    let endpoints = endpoints.into_iter().map(Endpoint::from).collect();
    Endpoints { endpoints, revision }.print(args.client.output)
}

/// All endpoints that the request selects, and the revision of the first page: a watch from
/// there misses nothing that a later page saw.
async fn pages(
    service: &mut EndpointServiceClient<Client>,
    mut request: ListEndpointsRequest,
) -> Result<(Vec<v1::Endpoint>, Option<i64>), Failure> {
    let (mut all, mut revision) = (Vec::new(), None);
    loop {
        let page = service.list_endpoints(request.clone()).await?.into_inner();
        all.extend(page.endpoints);
        revision = revision.or(Some(page.revision));
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            return Ok((all, revision));
        }
        request.page_token = page.next_page_token;
    }
}

/// The endpoint of the sandbox with this id, or with the only id that begins so.
async fn inspect(
    service: &mut EndpointServiceClient<Client>,
    sandbox: String,
    interface: String,
) -> Result<v1::Endpoint, Failure> {
    let request = GetEndpointRequest { sandbox_id: sandbox.clone(), interface: interface.clone() };
    let missing = match service.get_endpoint(request).await {
        Ok(reply) => return Ok(reply.into_inner().endpoint.unwrap_or_default()),
        Err(status) if status.code() == tonic::Code::NotFound => status,
        Err(status) => return Err(status.into()),
    };
    let (all, _) = pages(service, ListEndpointsRequest::default()).await?;
    let begins = |e: &v1::Endpoint| e.interface == interface && e.sandbox_id.starts_with(&sandbox);
    let mut found: Vec<v1::Endpoint> = all.into_iter().filter(begins).collect();
    match found.len() {
        0 => Err(missing.into()),
        1 => Ok(found.remove(0)),
        n => {
            let ids: Vec<&str> = found.iter().take(5).map(|e| e.sandbox_id.as_str()).collect();
            let more = if n > ids.len() { ", ..." } else { "" };
            let ids = ids.join(", ");
            Err(Failure::Other(format!(
                "{n} sandboxes have an id that begins with \"{sandbox}\": {ids}{more}; give more of it"
            )))
        }
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
