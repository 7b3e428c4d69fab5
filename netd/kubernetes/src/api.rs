//! Requests to the API server, each with an end.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tokio::{sync::Mutex, time::timeout};

use crate::{
    annotations::AnnotationPrefix,
    node::{Node, NodeFacts},
    node_event,
    options::ApiAccess,
};

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The API server can't be reached, or refuses.
    #[error("{0}")]
    Failed(String),
    /// What was known is too old to go on from: everything has to be listed.
    #[error("the API server no longer knows what came after the last change that was seen")]
    Expired,
}

/// The API server.
pub(crate) struct ApiServer {
    access: ApiAccess,
    prefix: AnnotationPrefix,
    client: Mutex<Option<(u64, Client)>>,
    /// Since when the API server is known not to send a list as a stream.
    pub(crate) no_streams_since: parking_lot::Mutex<Option<Instant>>,
}

impl ApiServer {
    pub(crate) fn new(access: ApiAccess, prefix: AnnotationPrefix) -> Self {
        Self {
            access,
            prefix,
            client: Mutex::default(),
            no_streams_since: parking_lot::Mutex::default(),
        }
    }

    /// All objects of a kind.
    pub(crate) async fn objects<K>(&self) -> Result<Api<K>, ApiError>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Ok(Api::all(self.client().await?))
    }

    /// A client is made again when its certificates or keys have changed; tokens, and the
    /// authority of a pod's service account, it reads again itself.
    async fn client(&self) -> Result<Client, ApiError> {
        let mut client = self.client.lock().await;
        let credentials = match &self.access.kubeconfig {
            Some(path) => fingerprint(path).await,
            None => 0,
        };
        if let Some((of, client)) = &*client
            && *of == credentials
            && !is_old(client)
        {
            return Ok(client.clone());
        }
        let made = match timeout(self.access.timeout, self.make()).await {
            Ok(made) => made?,
            Err(_) => {
                let text = format!("no credentials within {:?}", self.access.timeout);
                return Err(ApiError::Failed(text));
            }
        };
        *client = Some((credentials, made.clone()));
        Ok(made)
    }

    async fn make(&self) -> Result<Client, ApiError> {
        let config = self.config().await?;
        // A kubeconfig may name a program to be run.
        let made = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
        made.map_err(|e| ApiError::Failed(e.to_string()))?.map_err(|e| explain(&e))
    }

    async fn config(&self) -> Result<Config, ApiError> {
        let mut config = match &self.access.kubeconfig {
            Some(path) => {
                let failed = |e: &dyn std::error::Error| {
                    ApiError::Failed(format!("kubeconfig {}: {}", path.display(), chain(e)))
                };
                let read = Kubeconfig::read_from(path).map_err(|e| failed(&e))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(read, &options).await.map_err(|e| failed(&e))?
            }
            None => Config::incluster().map_err(|e| {
                ApiError::Failed(format!(
                    "no service account of a pod: {}; outside of a pod set kubernetes.kubeconfig",
                    chain(&e)
                ))
            })?,
        };
        if let Some(url) = &self.access.url {
            config.cluster_url = url.clone();
        }
        config.connect_timeout = Some(self.access.timeout);
        // This crate tries again itself, and more slowly.
        config.default_retry = false;
        Ok(config)
    }

    /// Whether the API server is behind `version`: its etcd was restored from an older copy. It
    /// would tell nothing of its changes then, as if they were known.
    pub(crate) async fn is_behind(&self, version: &str) -> Result<bool, ApiError> {
        // Its number is one of all objects.
        let nodes = self.objects::<Node>().await?;
        let answer = self.in_time(nodes.list(&ListParams::default().limit(1))).await?;
        let number = |text: &str| text.parse::<u64>().ok();
        let now = answer.metadata.resource_version.as_deref().and_then(number);
        Ok(now.zip(number(version)).is_some_and(|(now, known)| now < known))
    }

    /// Patches the status of a Node; the Node as it is then.
    pub(crate) async fn patch_status(
        &self,
        node: &str,
        patch: Value,
    ) -> Result<NodeFacts, ApiError> {
        let nodes = self.objects::<Node>().await?;
        let patch = Patch::Strategic(patch);
        let params =
            PatchParams { field_manager: Some("netd".to_owned()), ..PatchParams::default() };
        let done = self.in_time(nodes.patch_status(node, &params, &patch)).await?;
        NodeFacts::of(done, &self.prefix)
            .ok_or_else(|| ApiError::Failed("the API server sent a Node without a name".to_owned()))
    }

    /// Makes an Event; one that is there already is right as it is.
    pub(crate) async fn create_event(&self, event: Value) -> Result<(), ApiError> {
        const ALREADY_EXISTS: u16 = 409;
        let event: Event = serde_json::from_value(event)
            .map_err(|e| ApiError::Failed(format!("the event can't be encoded: {e}")))?;
        let events: Api<Event> = Api::namespaced(self.client().await?, node_event::NAMESPACE);
        let create = async {
            match events.create(&PostParams::default(), &event).await {
                Err(kube::Error::Api(status)) if status.code == ALREADY_EXISTS => Ok(()),
                done => done.map(drop),
            }
        };
        self.in_time(create).await
    }

    pub(crate) async fn in_time<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApiError> {
        self.answered(request).await?.map_err(|e| explain(&e))
    }

    /// What comes within the time of one request, whatever it is.
    pub(crate) async fn answered<T>(&self, what: impl Future<Output = T>) -> Result<T, ApiError> {
        let late = |_| ApiError::Failed(format!("no answer within {:?}", self.access.timeout));
        timeout(self.access.timeout, what).await.map_err(late)
    }
}

/// Whether a certificate that a program gave is about to end.
fn is_old(client: &Client) -> bool {
    const MARGIN: u64 = 60;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let end = client.valid_until().as_ref().map(|end| end.as_second());
    end.is_some_and(|end| u64::try_from(end).unwrap_or(0) < now + MARGIN)
}

/// An error in words that say what to do.
pub(crate) fn explain(error: &kube::Error) -> ApiError {
    const GONE: u16 = 410;
    let kube::Error::Api(status) = error else { return ApiError::Failed(chain(error)) };
    let hint = match status.code {
        GONE => return ApiError::Expired,
        401 => ": the token or certificate is not accepted",
        403 => ": netd's account needs what deploy/kubernetes/netd.yaml gives it",
        _ => "",
    };
    ApiError::Failed(format!("{} ({}){hint}", status.message, status.code))
}

/// An error with all that caused it, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Of a kubeconfig and the files that it names; files that can't be read count as empty.
async fn fingerprint(path: &Path) -> u64 {
    let path = path.to_owned();
    let read = move || {
        let mut hasher = DefaultHasher::new();
        let named = Kubeconfig::read_from(&path).map(|config| files(&config)).unwrap_or_default();
        for file in [path].into_iter().chain(named) {
            std::fs::read(file).unwrap_or_default().hash(&mut hasher);
        }
        hasher.finish()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn files(config: &Kubeconfig) -> BTreeSet<PathBuf> {
    let authorities = config.clusters.iter().filter_map(|c| c.cluster.as_ref());
    let authorities = authorities.filter_map(|c| c.certificate_authority.as_ref());
    let users = config.auth_infos.iter().filter_map(|u| u.auth_info.as_ref());
    let users = users.flat_map(|u| [u.client_certificate.as_ref(), u.client_key.as_ref()]);
    authorities.chain(users.flatten()).map(PathBuf::from).collect()
}
