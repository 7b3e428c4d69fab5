//! Clients without any file: reflection of both versions, and health.

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use testbed::{block_on, case, cri::channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::node::Node;

const SERVICES: [&str; 4] = [
    "netd.v1.EndpointService",
    "netd.v1.NetworkService",
    "netd.v1.NodeService",
    "netd.v1.SandboxService",
];

/// What refusals carry.
const DETAILS: [&str; 4] =
    ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo", "google.rpc.Status"];

/// Both versions have the same messages in packages of their own.
macro_rules! reflects {
    ($version:ident, $netd:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest as Ask,
            server_reflection_response::MessageResponse as Answer,
        };
        let mut client = ServerReflectionClient::new(channel(&$netd.socket())?);
        let mut ask = |question: Ask| -> Result<Answer> {
            let request =
                ServerReflectionRequest { host: String::new(), message_request: Some(question) };
            block_on(async {
                let requests = tokio_stream::once(request);
                let mut answers = client.server_reflection_info(requests).await?.into_inner();
                let answer = answers.message().await?.context("no answer")?;
                answer.message_response.context("an empty answer")
            })
        };
        let Answer::ListServicesResponse(list) = ask(Ask::ListServices(String::new()))? else {
            anyhow::bail!("no list of services")
        };
        let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
        for service in SERVICES {
            ensure!(names.contains(&service), "{service} is not among {names:?}");
            let symbol = ask(Ask::FileContainingSymbol(service.to_owned()))?;
            let Answer::FileDescriptorResponse(files) = symbol else {
                anyhow::bail!("{service} is not described: {symbol:?}")
            };
            check(service, &files.file_descriptor_proto)?;
        }
        let foreign: Vec<_> = names.iter().filter(|name| name.contains("tunnel")).collect();
        ensure!(foreign.is_empty(), "{foreign:?} is not served here");
        for detail in DETAILS {
            let symbol = ask(Ask::FileContainingSymbol(detail.to_owned()))?;
            let Answer::FileDescriptorResponse(files) = symbol else {
                anyhow::bail!("{detail} is not described: {symbol:?}")
            };
            check_message(detail, &files.file_descriptor_proto)?;
            // What the file imports is there too.
            for file in ["google/protobuf/any.proto", "google/protobuf/duration.proto"] {
                let import = ask(Ask::FileByFilename(file.to_owned()))?;
                ensure!(matches!(import, Answer::FileDescriptorResponse(_)), "{file}: {import:?}");
            }
        }
        let unknown = ask(Ask::FileContainingSymbol("netd.v1.Nothing".to_owned()));
        ensure!(
            !matches!(unknown, Ok(Answer::FileDescriptorResponse(_))),
            "an unknown symbol is described"
        );
    }};
}

/// One of the files has the service, with methods.
fn check(service: &str, files: &[Vec<u8>]) -> Result<()> {
    let short = service.rsplit('.').next().unwrap_or_default();
    for file in files {
        let file = FileDescriptorProto::decode(file.as_slice())?;
        let found = file.service.iter().find(|found| found.name() == short);
        if found.is_some_and(|found| !found.method.is_empty()) {
            return Ok(());
        }
    }
    anyhow::bail!("{service} is in none of the files")
}

/// One of the files has the message.
fn check_message(message: &str, files: &[Vec<u8>]) -> Result<()> {
    let short = message.rsplit('.').next().unwrap_or_default();
    for file in files {
        let file = FileDescriptorProto::decode(file.as_slice())?;
        if file.message_type.iter().any(|found| found.name() == short) {
            return Ok(());
        }
    }
    anyhow::bail!("{message} is in none of the files")
}

#[test]
fn both_versions_of_reflection_describe_every_service() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        reflects!(v1, node.netd);
        reflects!(v1alpha, node.netd);
        Ok(())
    })
}

#[test]
fn health_says_serving_for_the_whole_and_for_each_service() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let mut client = HealthClient::new(channel(&node.netd.socket())?);
        for service in [""].into_iter().chain(SERVICES) {
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = block_on(client.check(request)).with_context(|| service.to_owned())?;
            ensure!(answer.into_inner().status == 1, "`{service}` is not serving");
        }
        Ok(())
    })
}
