//! A fake netd.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use netd_api::v1::{
    AttachRequest, DetachRequest, Endpoint, EndpointState, Sandbox, SynchronizeRequest,
    SynchronizeResponse,
};
use runtime_hook::nri::netd::Netd;
use tonic::Status;

#[derive(Default)]
pub(crate) struct FakeState {
    pub endpoints: BTreeMap<(String, String), Endpoint>,
    pub attached: Vec<AttachRequest>,
    pub detached: Vec<DetachRequest>,
    pub annotated: Vec<Sandbox>,
    pub synchronized: Vec<SynchronizeRequest>,
    /// Attaches to the network of this name fail with this.
    pub refuse: Option<(String, Status)>,
    /// Attaches to the network of this name are made and never answered.
    pub hang: Option<String>,
    pub down: bool,
    /// How long an annotate takes.
    pub slow: Duration,
}

#[derive(Clone, Default)]
pub(crate) struct FakeNetd(Arc<Mutex<FakeState>>);

impl FakeNetd {
    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, FakeState> {
        self.0.lock().unwrap()
    }

    /// Waits for what happens in the background.
    pub(crate) async fn wait_until(&self, reached: impl Fn(&FakeState) -> bool) {
        let poll = async {
            while !reached(&self.state()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), poll).await.expect("it did not happen");
    }

    /// What CNI ADD does.
    pub(crate) fn has(&self, sandbox: &str, interface: &str) {
        let endpoint = Endpoint {
            sandbox_id: sandbox.to_owned(),
            interface: interface.to_owned(),
            state: EndpointState::Attached as i32,
            ..Endpoint::default()
        };
        self.state().endpoints.insert((sandbox.to_owned(), interface.to_owned()), endpoint);
    }

    pub(crate) fn interfaces(&self, sandbox: &str) -> Vec<String> {
        let state = self.state();
        state.endpoints.keys().filter(|k| k.0 == sandbox).map(|k| k.1.clone()).collect()
    }

    fn up(&self) -> Result<(), Status> {
        if self.state().down { Err(Status::unavailable("netd is away")) } else { Ok(()) }
    }

    fn insert(&self, request: &AttachRequest) -> Endpoint {
        let key = (request.sandbox_id.clone(), request.interface.clone());
        let endpoint = Endpoint {
            sandbox_id: key.0.clone(),
            interface: key.1.clone(),
            network: request.network.clone(),
            state: EndpointState::Attached as i32,
            ..Endpoint::default()
        };
        self.state().endpoints.insert(key, endpoint.clone());
        endpoint
    }
}

#[async_trait]
impl Netd for FakeNetd {
    async fn attach(&self, request: AttachRequest) -> Result<Endpoint, Status> {
        self.up()?;
        self.state().attached.push(request.clone());
        let refused = self.state().refuse.clone();
        if let Some((_, status)) = refused.filter(|(network, _)| *network == request.network) {
            return Err(status);
        }
        let endpoint = self.insert(&request);
        let hangs = self.state().hang.as_ref() == Some(&request.network);
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(endpoint)
    }

    async fn detach(&self, request: DetachRequest) -> Result<u32, Status> {
        self.up()?;
        let mut state = self.state();
        let before = state.endpoints.len();
        let (sandbox, one) = (&request.sandbox_id, &request.interface);
        state.endpoints.retain(|(s, i), _| s != sandbox || (!one.is_empty() && i != one));
        let removed = before - state.endpoints.len();
        state.detached.push(request);
        Ok(removed as u32)
    }

    async fn annotate(&self, sandbox: Sandbox) -> Result<Vec<Endpoint>, Status> {
        self.up()?;
        let slow = self.state().slow;
        tokio::time::sleep(slow).await;
        let mut state = self.state();
        let mut found = Vec::new();
        for endpoint in state.endpoints.values_mut().filter(|e| e.sandbox_id == sandbox.id) {
            endpoint.pod = sandbox.pod.clone();
            endpoint.labels.extend(sandbox.labels.clone());
            endpoint.annotations.extend(sandbox.annotations.clone());
            found.push(endpoint.clone());
        }
        state.annotated.push(sandbox);
        if found.is_empty() { Err(Status::not_found("no endpoint")) } else { Ok(found) }
    }

    async fn synchronize(
        &self,
        request: SynchronizeRequest,
    ) -> Result<SynchronizeResponse, Status> {
        self.up()?;
        self.state().synchronized.push(request);
        Ok(SynchronizeResponse::default())
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, Status> {
        self.up()?;
        Ok(self.state().endpoints.values().cloned().collect())
    }
}
