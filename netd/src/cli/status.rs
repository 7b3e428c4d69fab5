//! The command `netd status`.

use std::process::ExitCode;

use netd_api::v1::{GetStatusRequest, node_service_client::NodeServiceClient};

use super::table::status::Status;
use crate::client::ClientArgs;
use crate::terminal::{EXIT_NOT_READY, Failure, Output};

pub(super) async fn run(args: ClientArgs) -> Result<ExitCode, Failure> {
    let mut node = NodeServiceClient::new(args.connect().await?);
    let status = Status::from(node.get_status(GetStatusRequest::default()).await?.into_inner());
    status.print(args.output)?;
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_READY) })
}
