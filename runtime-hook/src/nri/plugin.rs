//! The Plugin service: what a request means and how it is answered. One
//! [`Plugin`] serves one connection, one request at a time, in order.

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
    pods::{Budget, Pods},
    sync::{Collection, Delivery},
};

/// containerd's `plugin_request_timeout`, for runtimes that don't say (NRI < 0.7).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What goes back for one request.
#[derive(Debug)]
pub struct Answer {
    /// The encoded response, or the error.
    pub result: Result<Vec<u8>, Status>,
    /// The connection has to be closed once this is sent.
    pub close: bool,
}

/// The state of one connection.
pub struct Plugin {
    netd: Arc<dyn Netd>,
    policy: Policy,
    timeout: Duration,
    collection: Collection,
    delivery: Option<Delivery>,
}

type Result<T, E = Status> = std::result::Result<T, E>;

impl Plugin {
    /// For a new connection.
    pub fn new(netd: Arc<dyn Netd>, policy: Policy) -> Self {
        let collection = Collection::default();
        Self { netd, policy, timeout: REQUEST_TIMEOUT, collection, delivery: None }
    }

    /// Whether the runtime sent its whole set of pods: from then on it calls us.
    pub fn synchronized(&self) -> bool {
        self.delivery.is_some()
    }

    /// Answers one request that arrived at `arrived`, in time for the caller.
    pub async fn call(&mut self, request: &Request, arrived: Instant) -> Answer {
        let method = request.method.as_str();
        let result = if request.service == PLUGIN_SERVICE {
            let budget = self.budget(request.timeout_nano, arrived);
            self.dispatch(method, &request.payload, budget).await
        } else {
            Err(unimplemented(request))
        };
        if let Err(status) = &result
            && status.code != Code::Unimplemented as i32
        {
            tracing::warn!(method, code = status.code, error = %status.message, "request failed");
        }
        // A plugin whose Synchronize failed is left connected and is never called
        // again (containerd/nri, adaptation.go): only a new connection helps.
        let close = method == "Shutdown" || (method == "Synchronize" && result.is_err());
        Answer { result, close }
    }

    /// A runtime goes on without us after its timeout, as if all were well: the
    /// answer, good or bad, must be there before.
    fn budget(&self, timeout_nano: i64, arrived: Instant) -> Budget {
        let given = u64::try_from(timeout_nano).ok().filter(|n| *n > 0).map(Duration::from_nanos);
        let timeout = given.map_or(self.timeout, |t| t.min(self.timeout));
        Budget { work: arrived + timeout.mul_f64(0.55), reply: arrived + timeout.mul_f64(0.7) }
    }

    async fn dispatch(&mut self, method: &str, payload: &[u8], budget: Budget) -> Result<Vec<u8>> {
        match method {
            "Configure" => Ok(self.configure(&decode(method, payload)?)?.encode_to_vec()),
            "Synchronize" => {
                let request: SynchronizeRequest = decode(method, payload)?;
                let more = request.more;
                if let Some(sandboxes) = self.collection.add(request)? {
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
                self.pod_event(kind, request.pod, budget).await
            }
            "StateChange" => {
                let request: StateChangeEvent = decode(method, payload)?;
                self.pod_event(request.event, request.pod, budget).await
            }
            "Shutdown" => Ok(Empty {}.encode_to_vec()),
            _ => Err(Status {
                code: Code::Unimplemented as i32,
                message: format!("{PLUGIN_SERVICE}/{method} is not implemented"),
            }),
        }
    }

    fn configure(&mut self, request: &ConfigureRequest) -> Result<ConfigureResponse> {
        if let Some(ms) = u64::try_from(request.request_timeout).ok().filter(|ms| *ms > 0) {
            self.timeout = Duration::from_millis(ms);
        }
        if !request.config.trim().is_empty() {
            self.policy = serde_json::from_str(&request.config).map_err(|e| {
                invalid(format!(
                    "configuration of plugin netd: {e}; right is \
                     {{\"allow_unattached\": false, \"unattached_handlers\": []}}"
                ))
            })?;
        }
        let (runtime, version) = (&request.runtime_name, &request.runtime_version);
        tracing::info!(%runtime, %version, timeout = ?self.timeout, "configured by the runtime");
        Ok(ConfigureResponse { events: event::SUBSCRIBED })
    }

    async fn pod_event(
        &self,
        kind: i32,
        pod: Option<PodSandbox>,
        budget: Budget,
    ) -> Result<Vec<u8>> {
        let pods = Pods { netd: &self.netd, policy: &self.policy, budget };
        let known = matches!(
            kind,
            event::RUN_POD_SANDBOX | event::STOP_POD_SANDBOX | event::REMOVE_POD_SANDBOX
        );
        let pod = match pod {
            _ if !known => return Ok(Empty {}.encode_to_vec()),
            Some(pod) if !pod.id.is_empty() => pod,
            _ => return Err(invalid("pod.id: an event about a pod must carry its sandbox id")),
        };
        let done = match kind {
            event::RUN_POD_SANDBOX => pods.run(&pod).await,
            event::STOP_POD_SANDBOX => pods.stop(&pod).await,
            _ => pods.remove(&pod).await,
        };
        done.map(|()| Empty {}.encode_to_vec()).map_err(|e| Status {
            code: e.code() as i32,
            message: format!(
                "netd: sandbox {}, pod {}/{}: {}",
                pod.id,
                pod.namespace,
                pod.name,
                e.message()
            ),
        })
    }
}

fn decode<M: Message + Default>(method: &str, payload: &[u8]) -> Result<M> {
    M::decode(payload).map_err(|e| invalid(format!("{method}: the request can't be decoded: {e}")))
}

/// INVALID_ARGUMENT.
pub fn invalid(message: impl Into<String>) -> Status {
    Status { code: Code::InvalidArgument as i32, message: message.into() }
}

fn unimplemented(request: &Request) -> Status {
    let service: String = request.service.chars().take(64).collect();
    Status {
        code: Code::Unimplemented as i32,
        message: format!("service {service:?} is not served here, only {PLUGIN_SERVICE}"),
    }
}
