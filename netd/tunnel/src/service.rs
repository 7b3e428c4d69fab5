//! The gRPC edge.

use std::{
    io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use netd_api::{ERROR_DOMAIN, tunnel::v1 as pb};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    manager::{Error, Manager},
    sys::TunError,
    tunnel::TunnelError,
};

/// Serves a manager.
#[derive(Debug, Clone)]
pub struct Service {
    manager: Arc<Manager>,
    started_at: i64,
}

impl Service {
    /// Started now.
    pub fn new(manager: Arc<Manager>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { manager, started_at: i64::try_from(now.as_secs()).unwrap_or(0) }
    }

    /// Off the runtime's threads: the system takes its time.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Manager) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let manager = self.manager.clone();
        let done = tokio::task::spawn_blocking(move || work(&manager)).await;
        done.map_err(|e| Status::internal(format!("the call ended early: {e}")))?
            .map_err(|e| status(&e))
    }
}

#[tonic::async_trait]
impl pb::tunnel_service_server::TunnelService for Service {
    async fn configure(
        &self,
        request: Request<pb::ConfigureRequest>,
    ) -> Result<Response<pb::ConfigureResponse>, Status> {
        let request = request.into_inner();
        self.run(move |manager| manager.configure(&request)).await?;
        Ok(Response::new(pb::ConfigureResponse {}))
    }

    async fn update_peers(
        &self,
        request: Request<pb::UpdatePeersRequest>,
    ) -> Result<Response<pb::UpdatePeersResponse>, Status> {
        let request = request.into_inner();
        self.run(move |manager| manager.update_peers(&request)).await?;
        Ok(Response::new(pb::UpdatePeersResponse {}))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveRequest>,
    ) -> Result<Response<pb::RemoveResponse>, Status> {
        let request = request.into_inner();
        self.run(move |manager| manager.remove(&request)).await?;
        Ok(Response::new(pb::RemoveResponse {}))
    }

    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let tunnels = self.run(|manager| Ok(manager.status())).await?;
        Ok(Response::new(pb::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at,
            tunnels,
        }))
    }
}

fn status(error: &Error) -> Status {
    let (code, reason) = match error {
        Error::Invalid(_) => (Code::InvalidArgument, "INVALID_FIELD"),
        Error::NoTunnel(_) => (Code::NotFound, "TUNNEL_NOT_FOUND"),
        Error::ListenTaken { .. } => (Code::FailedPrecondition, "LISTEN_ADDRESS_TAKEN"),
        Error::Tunnel(TunnelError::Tun(TunError::Foreign { .. })) => {
            (Code::FailedPrecondition, "DEVICE_TAKEN")
        }
        Error::Tunnel(TunnelError::Listen { source, .. }) => match source.kind() {
            io::ErrorKind::AddrInUse => (Code::FailedPrecondition, "LISTEN_ADDRESS_TAKEN"),
            io::ErrorKind::AddrNotAvailable => {
                (Code::FailedPrecondition, "LISTEN_ADDRESS_NOT_HERE")
            }
            _ => (Code::Internal, "SYSTEM_FAILED"),
        },
        Error::Tunnel(_) => (Code::Internal, "SYSTEM_FAILED"),
    };
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    if let Error::Invalid(invalid) = error {
        for violation in &invalid.violations {
            details.add_bad_request_violation(&violation.field, &violation.rule);
        }
    }
    tracing::warn!(reason, %error, "request failed");
    Status::with_error_details(code, error.to_string(), details)
}
