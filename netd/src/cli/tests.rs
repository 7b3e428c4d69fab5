//! The client commands against a real gRPC server on a socket, by running the
//! commands' own code; what they print is tested on the views.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, pin::Pin};

use clap::{CommandFactory, Parser};
use netd_api::v1::{self, endpoint_service_server, node_service_server};
use tokio::net::UnixListener;
use tokio_stream::{Stream, wrappers::UnixListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::terminal::EXIT_NOT_READY;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

/// Flags and variables share their parsers; a unit's environment file leaves a variable
/// out by an empty value.
#[test]
fn an_empty_path_counts_as_not_given() {
    for args in [
        ["netd", "serve", "--config="].as_slice(),
        &["netd", "doctor", "--config=", "--socket="],
        &["netd", "status", "--socket="],
        &["netd", "docker-opts", "--socket="],
    ] {
        Cli::try_parse_from(args).unwrap();
    }
    let Command::Status(status) =
        Cli::try_parse_from(["netd", "status", "--socket="]).unwrap().command
    else {
        panic!("not status");
    };
    assert_eq!(status.socket, PathBuf::from(netd_api::DEFAULT_SOCKET));
}

fn exit(args: &[&str]) -> Result<u8, Vec<String>> {
    let cli = Cli::try_parse_from(["netd"].iter().chain(args)).unwrap();
    match dispatch(cli.command) {
        Ok(code) if code == ExitCode::SUCCESS => Ok(0),
        Ok(code) if code == ExitCode::from(EXIT_NOT_READY) => Ok(3),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => Err(failure.lines()),
    }
}

#[test]
fn wrong_usage_is_two() {
    for args in [
        &["netd", "frob"][..],
        &["netd", "endpoint", "attach", "x"],
        &["netd", "endpoint", "attach", "x", "/n", "-p", "80"],
        &["netd", "network", "create", "x"],
        &["netd", "status", "-o", "xml"],
        &["netd", "endpoint", "detach", "x", "eth1", "--all"],
    ] {
        assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
}

#[test]
fn a_netd_that_is_not_there_is_named_with_its_socket_and_a_hint() {
    let lines = exit(&["status", "--socket", "/nonexistent/netd.sock"]).unwrap_err().join("\n");
    assert!(lines.starts_with("error: netd can't be reached at /nonexistent/netd.sock: "));
    assert!(lines.contains("systemctl status netd"), "{lines}");
}

#[test]
fn a_configuration_is_checked_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("netd.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "node = \"n\"\n").unwrap();
    assert_eq!(exit(&["serve", "--check-config", "--config", path]), Ok(0));
    std::fs::write(&file, "node = \"N!\"\nsockt = 1\n").unwrap();
    let lines =
        exit(&["serve", "--check-config", "--config", path, "--gc-grace", "1s"]).unwrap_err();
    assert_eq!(lines[0], "error: 3 errors in the configuration");
    assert!(lines[1].starts_with("  node: "), "{lines:?}");
    assert!(lines[2].contains("(from --gc-grace or NETD_GC_GRACE)"), "{lines:?}");
    assert!(lines[3].starts_with("  sockt: "), "{lines:?}");
}

struct Fake {
    ready: bool,
}

#[tonic::async_trait]
impl node_service_server::NodeService for Fake {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(v1::GetStatusResponse { ready: self.ready, ..Default::default() }))
    }
}

fn endpoint(sandbox: &str) -> v1::Endpoint {
    v1::Endpoint { sandbox_id: sandbox.to_owned(), ..Default::default() }
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::WatchEndpointsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl endpoint_service_server::EndpointService for Fake {
    type WatchEndpointsStream = Events;

    async fn create_endpoint(
        &self,
        _: Request<v1::CreateEndpointRequest>,
    ) -> Result<Response<v1::CreateEndpointResponse>, Status> {
        Err(Status::unimplemented("create_endpoint"))
    }

    async fn join(
        &self,
        _: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("join"))
    }

    async fn leave(
        &self,
        _: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        Err(Status::unimplemented("leave"))
    }

    async fn publish(
        &self,
        _: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        Err(Status::unimplemented("publish"))
    }

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachResponse>, Status> {
        let got = request.into_inner();
        let mut details = ErrorDetails::new();
        details.set_error_info("BAD_FIELD", "netd", [("hint".to_owned(), "look".to_owned())]);
        details.add_bad_request_violation("netns_path", format!("{} is none", got.netns_path));
        Err(Status::with_error_details(Code::InvalidArgument, "1 field is wrong", details))
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        let all = request.into_inner().interface.is_empty();
        Ok(Response::new(v1::DetachResponse { removed: if all { 2 } else { 1 } }))
    }

    async fn check(
        &self,
        _: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        Err(Status::unimplemented("check"))
    }

    async fn get_endpoint(
        &self,
        request: Request<v1::GetEndpointRequest>,
    ) -> Result<Response<v1::GetEndpointResponse>, Status> {
        let got = request.into_inner();
        match got.interface.as_str() {
            "eth0" => Ok(Response::new(v1::GetEndpointResponse {
                endpoint: Some(endpoint(&got.sandbox_id)),
            })),
            _ => Err(Status::not_found("no such endpoint")),
        }
    }

    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        let (sandbox, next) = match request.into_inner().page_token.as_str() {
            "" => ("one", "2"),
            "2" => ("two", ""),
            other => return Err(Status::invalid_argument(other)),
        };
        Ok(Response::new(v1::ListEndpointsResponse {
            endpoints: vec![endpoint(sandbox)],
            next_page_token: next.to_owned(),
            revision: 7,
        }))
    }

    async fn watch_endpoints(
        &self,
        _: Request<v1::WatchEndpointsRequest>,
    ) -> Result<Response<Events>, Status> {
        let event =
            v1::WatchEndpointsResponse { endpoint: Some(endpoint("a")), ..Default::default() };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(event)]))))
    }
}

/// A server on a thread of its own, as the commands bring their own runtime.
struct Running {
    socket: PathBuf,
    _dir: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Running {
    fn start(ready: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(async { UnixListener::bind(&socket).unwrap() });
        let server = Server::builder()
            .add_service(node_service_server::NodeServiceServer::new(Fake { ready }))
            .add_service(endpoint_service_server::EndpointServiceServer::new(Fake { ready }))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        Self { socket, _dir: dir, runtime: Some(runtime) }
    }

    fn exit(&self, args: &[&str]) -> Result<u8, Vec<String>> {
        exit(&[args, &["--socket", self.socket.to_str().unwrap()]].concat())
    }
}

#[test]
fn status_is_three_when_netd_is_not_ready() {
    assert_eq!(Running::start(true).exit(&["status"]), Ok(0));
    assert_eq!(Running::start(false).exit(&["status", "-o", "json"]), Ok(3));
}

#[test]
fn endpoint_commands_do_their_calls() {
    let netd = Running::start(true);
    assert_eq!(netd.exit(&["endpoint", "list"]), Ok(0));
    assert_eq!(netd.exit(&["endpoint", "inspect", "x"]), Ok(0));
    assert_eq!(netd.exit(&["endpoint", "watch", "-o", "json"]), Ok(0));
    assert_eq!(netd.exit(&["endpoint", "detach", "x", "--all"]), Ok(0));
    let lines = netd.exit(&["endpoint", "inspect", "x", "eth7"]).unwrap_err();
    assert_eq!(lines, ["error: no such endpoint (NOT_FOUND)"]);
}

#[test]
fn a_refusal_names_reason_fields_and_hint() {
    let netd = Running::start(true);
    let lines = netd.exit(&["endpoint", "attach", "x", "/n"]).unwrap_err();
    let want = [
        "error: 1 field is wrong (INVALID_ARGUMENT, BAD_FIELD)",
        "  netns_path: /n is none",
        "  hint: look",
    ];
    assert_eq!(lines, want);
}

#[test]
fn a_service_that_netd_lacks_says_so() {
    let lines = Running::start(true).exit(&["network", "list"]).unwrap_err();
    assert!(lines.join("\n").contains("another version"), "{lines:?}");
}
