//! NRI's Plugin service. One [`Plugin`] serves one connection, one request at a time, in
//! order.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tokio::time::Instant;
use tonic::Code;

use super::{
    messages::{
        ConfigureRequest, ConfigureResponse, Empty, PLUGIN_SERVICE, PodRequest, PodSandbox,
        Request, StateChangeEvent, Status, SynchronizeRequest, SynchronizeResponse, event,
    },
    netd::Netd,
    options::Policy,
    pods::{Deadlines, PodEvents},
    sync::{Delivery, PodSetParts},
};

/// containerd's default `plugin_request_timeout`, for runtimes that don't send theirs (NRI
/// before 0.7).
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The reply to one request.
#[derive(Debug)]
pub(super) struct PluginReply {
    /// The encoded response, or the error.
    pub(super) result: Result<Vec<u8>, Status>,
    /// Whether the connection must be closed after the reply.
    pub(super) close: bool,
}

/// The state of one connection.
pub(super) struct Plugin {
    netd: Arc<dyn Netd>,
    policy: Policy,
    timeout: Duration,
    pod_set: PodSetParts,
    delivery: Option<Delivery>,
}

type Result<T, E = Status> = std::result::Result<T, E>;

impl Plugin {
    /// The state at the start of a connection.
    pub(super) fn new(netd: Arc<dyn Netd>, policy: Policy) -> Self {
        let pod_set = PodSetParts::default();
        Self { netd, policy, timeout: DEFAULT_REQUEST_TIMEOUT, pod_set, delivery: None }
    }

    /// Whether the runtime has sent its whole set of pods. It sends events only after that.
    pub(super) fn synchronized(&self) -> bool {
        self.delivery.is_some()
    }

    /// Answers a request that arrived at `arrived` before the runtime's timeout.
    pub(super) async fn call(&mut self, request: &Request, arrived: Instant) -> PluginReply {
        let method = request.method.as_str();
        let result = if request.service == PLUGIN_SERVICE {
            let deadlines = self.deadlines(request.timeout_nano, arrived);
            self.dispatch(method, &request.payload, deadlines).await
        } else {
            Err(unimplemented(request))
        };
        if let Err(status) = &result
            && status.code != Code::Unimplemented as i32
        {
            let (code, error) = (status.code, &status.message);
            tracing::warn!(method, code, %error, "refused the runtime's {method}: {error}");
        }
        // After a failed Synchronize the runtime keeps the connection but never calls the
        // plugin again (containerd/nri, adaptation.go), so the front has to reconnect.
        let close = method == "Shutdown" || (method == "Synchronize" && result.is_err());
        PluginReply { result, close }
    }

    /// After its timeout the runtime goes on as if the plugin had agreed, so the reply must be
    /// there earlier even if it is an error.
    fn deadlines(&self, timeout_nano: i64, arrived: Instant) -> Deadlines {
        let given = u64::try_from(timeout_nano).ok().filter(|n| *n > 0).map(Duration::from_nanos);
        let timeout = given.map_or(self.timeout, |t| t.min(self.timeout));
        Deadlines { work: arrived + timeout.mul_f64(0.55), reply: arrived + timeout.mul_f64(0.7) }
    }

    async fn dispatch(
        &mut self,
        method: &str,
        payload: &[u8],
        deadlines: Deadlines,
    ) -> Result<Vec<u8>> {
        match method {
            "Configure" => Ok(self.configure(&decode(method, payload)?)?.encode_to_vec()),
            "Synchronize" => {
                let request: SynchronizeRequest = decode(method, payload)?;
                let more = request.more;
                if let Some(sandboxes) = self.pod_set.add(request)? {
                    let netd = Arc::clone(&self.netd);
                    self.delivery = Some(Delivery::start(netd, sandboxes));
                }
                let answer = SynchronizeResponse { more };
                Ok(answer.encode_to_vec())
            }
            "RunPodSandbox" | "StopPodSandbox" | "RemovePodSandbox" => {
                let request: PodRequest = decode(method, payload)?;
                let kind = match method {
                    "RunPodSandbox" => event::RUN_POD_SANDBOX,
                    "StopPodSandbox" => event::STOP_POD_SANDBOX,
                    _ => event::REMOVE_POD_SANDBOX,
                };
                self.pod_event(kind, request.pod, deadlines).await
            }
            "StateChange" => {
                let request: StateChangeEvent = decode(method, payload)?;
                self.pod_event(request.event, request.pod, deadlines).await
            }
            "Shutdown" => Ok(Empty {}.encode_to_vec()),
            _ => {
                let message = format!("{PLUGIN_SERVICE}/{method} is not implemented");
                Err(Status::new(Code::Unimplemented as i32, message))
            }
        }
    }

    fn configure(&mut self, request: &ConfigureRequest) -> Result<ConfigureResponse> {
        if let Some(ms) = u64::try_from(request.request_timeout).ok().filter(|ms| *ms > 0) {
            self.timeout = Duration::from_millis(ms);
        }
        if !request.config.trim().is_empty() {
            self.policy = serde_json::from_str(&request.config).map_err(|e| {
                invalid(format!(
                    "configuration of plugin netd: {e}; an example that works: \
                     {{\"allow_unattached\": false, \"unattached_handlers\": []}}"
                ))
            })?;
        }
        let (runtime, version) = (&request.runtime_name, &request.runtime_version);
        let timeout = self.timeout;
        tracing::info!(%runtime, %version, ?timeout, "configured by {runtime} {version}");
        Ok(ConfigureResponse { events: event::SUBSCRIBED })
    }

    async fn pod_event(
        &self,
        kind: i32,
        pod: Option<PodSandbox>,
        deadlines: Deadlines,
    ) -> Result<Vec<u8>> {
        let events = PodEvents { netd: &self.netd, policy: &self.policy, deadlines };
        let known = matches!(
            kind,
            event::RUN_POD_SANDBOX | event::STOP_POD_SANDBOX | event::REMOVE_POD_SANDBOX
        );
        let pod = match pod {
            _ if !known => return Ok(Empty {}.encode_to_vec()),
            Some(pod) if !pod.id.is_empty() => pod,
            _ => {
                return Err(invalid(
                    "pod.id: is missing; an event about a pod must carry its sandbox id",
                ));
            }
        };
        let result = match kind {
            event::RUN_POD_SANDBOX => events.run(&pod).await,
            event::STOP_POD_SANDBOX => events.stop(&pod).await,
            _ => events.remove(&pod).await,
        };
        result.map(|()| Empty {}.encode_to_vec()).map_err(|e| {
            let (namespace, name) = (&pod.namespace, &pod.name);
            let message =
                format!("netd: sandbox {}, pod {namespace}/{name}: {}", pod.id, e.message());
            Status::new(e.code() as i32, message)
        })
    }
}

fn decode<M: Message + Default>(method: &str, payload: &[u8]) -> Result<M> {
    M::decode(payload).map_err(|e| invalid(format!("can't decode the {method} request: {e}")))
}

/// A status with code INVALID_ARGUMENT.
pub(super) fn invalid(message: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument as i32, message)
}

fn unimplemented(request: &Request) -> Status {
    let service: String = request.service.chars().take(64).collect();
    let message = format!("service {service:?} is not implemented, only {PLUGIN_SERVICE}");
    Status::new(Code::Unimplemented as i32, message)
}
