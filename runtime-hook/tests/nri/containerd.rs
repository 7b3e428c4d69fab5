//! A fake containerd: the runtime's side of NRI. Its framing is independent of the hook's, so
//! that no mistake in one hides in the other.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use prost::Message;
use runtime_hook::nri::messages::{
    ConfigureRequest, ConfigureResponse, LinuxNamespace, LinuxPodSandbox, PLUGIN_SERVICE,
    PodRequest, PodSandbox, RegisterPluginRequest, Request, Response, StateChangeEvent, Status,
    SynchronizeRequest, SynchronizeResponse,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};

/// The socket that plugins connect to.
pub(crate) struct Listener {
    listener: UnixListener,
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Listener {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nri.sock");
        Self { listener: UnixListener::bind(&path).unwrap(), path, _dir: dir }
    }

    pub(crate) async fn accept(&self) -> PluginConnection {
        PluginConnection::on(limit(self.listener.accept()).await.unwrap().0)
    }

    /// A plugin that is registered, configured and synchronized with no pods.
    pub(crate) async fn ready(&self) -> PluginConnection {
        let mut peer = self.accept().await;
        peer.register().await;
        peer.configure(2000).await;
        assert!(!peer.synchronize(vec![], false).await.unwrap().more);
        peer
    }
}

pub(crate) async fn limit<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(8), future).await.expect("the plugin did not act in time")
}

/// One plugin's connection.
pub(crate) struct PluginConnection {
    pub stream: UnixStream,
    served: VecDeque<u8>,
    called: VecDeque<u8>,
    next: u32,
}

pub(crate) fn frame(conn: u32, payload: &[u8]) -> Vec<u8> {
    let head = [conn.to_be_bytes(), (payload.len() as u32).to_be_bytes()].concat();
    [head, payload.to_vec()].concat()
}

pub(crate) fn message(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut all = [(payload.len() as u32).to_be_bytes(), stream.to_be_bytes()].concat();
    all.extend([kind, 0]);
    all.extend(payload);
    all
}

pub(crate) fn request(stream: u32, service: &str, method: &str, payload: Vec<u8>) -> Vec<u8> {
    let (service, method) = (service.to_owned(), method.to_owned());
    let request = Request { service, method, payload, ..Request::default() };
    message(stream, 1, &request.encode_to_vec())
}

impl PluginConnection {
    pub(crate) fn on(stream: UnixStream) -> Self {
        Self { stream, served: VecDeque::new(), called: VecDeque::new(), next: 1 }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        limit(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next whole message on `conn` (stream, type, payload); `None` at the end.
    pub(crate) async fn receive(&mut self, conn: u32) -> Option<(u32, u8, Vec<u8>)> {
        loop {
            let queue = if conn == 1 { &mut self.served } else { &mut self.called };
            let bytes = queue.make_contiguous();
            if let [a, b, c, d, e, f, g, h, kind, _, rest @ ..] = &*bytes {
                let n = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() >= n {
                    let stream = u32::from_be_bytes([*e, *f, *g, *h]);
                    let got = (stream, *kind, rest[..n].to_vec());
                    queue.drain(..10 + n);
                    return Some(got);
                }
            }
            let mut head = [0; 8];
            limit(self.stream.read_exact(&mut head)).await.ok()?;
            let from = u32::from_be_bytes(head[..4].try_into().unwrap());
            let n = u32::from_be_bytes(head[4..].try_into().unwrap()) as usize;
            assert!(n <= 4096, "a Go peer can't take a frame of {n} bytes");
            let mut payload = vec![0; n];
            limit(self.stream.read_exact(&mut payload)).await.unwrap();
            if from == 1 { self.served.extend(payload) } else { self.called.extend(payload) }
        }
    }

    /// The plugin's registration, not answered yet.
    pub(crate) async fn registration(&mut self) -> RegisterPluginRequest {
        let (stream, kind, payload) = self.receive(2).await.unwrap();
        assert_eq!((stream, kind), (1, 1));
        let request = Request::decode(payload.as_slice()).unwrap();
        assert_eq!(request.service, "nri.pkg.api.v1alpha1.Runtime");
        assert_eq!(request.method, "RegisterPlugin");
        RegisterPluginRequest::decode(request.payload.as_slice()).unwrap()
    }

    pub(crate) async fn answer_registration(&mut self, status: Option<Status>) {
        let response = Response { status, payload: vec![] }.encode_to_vec();
        self.send(&frame(2, &message(1, 2, &response))).await;
    }

    pub(crate) async fn register(&mut self) -> RegisterPluginRequest {
        let request = self.registration().await;
        self.answer_registration(None).await;
        request
    }

    /// Sends a request and gives its stream.
    pub(crate) async fn begin(&mut self, service: &str, method: &str, payload: Vec<u8>) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.send(&frame(1, &request(stream, service, method, payload))).await;
        stream
    }

    /// The next answer and the stream it is for.
    pub(crate) async fn answer(&mut self) -> Option<(u32, Result<Vec<u8>, Status>)> {
        let (stream, kind, payload) = self.receive(1).await?;
        assert_eq!(kind, 2);
        let response = Response::decode(payload.as_slice()).unwrap();
        Some((stream, response.status.map_or(Ok(response.payload), Err)))
    }

    pub(crate) async fn call(
        &mut self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        let stream = self.begin(service, method, payload).await;
        let (answered, result) = self.answer().await.expect("the plugin closed the connection");
        assert_eq!(answered, stream);
        result
    }

    pub(crate) async fn configure(&mut self, request_timeout: i64) -> ConfigureResponse {
        let request = ConfigureRequest { request_timeout, ..named() };
        let answer = self.call(PLUGIN_SERVICE, "Configure", request.encode_to_vec()).await;
        ConfigureResponse::decode(answer.unwrap().as_slice()).unwrap()
    }

    pub(crate) async fn synchronize(
        &mut self,
        pods: Vec<PodSandbox>,
        more: bool,
    ) -> Result<SynchronizeResponse, Status> {
        let request = SynchronizeRequest { pods, more }.encode_to_vec();
        let answer = self.call(PLUGIN_SERVICE, "Synchronize", request).await?;
        Ok(SynchronizeResponse::decode(answer.as_slice()).unwrap())
    }

    /// An event in the style of NRI 0.12 (a call of its own) or of those before.
    pub(crate) async fn event(
        &mut self,
        style: Style,
        which: i32,
        pod: &PodSandbox,
    ) -> Result<(), Status> {
        let (method, payload) = encode_event(style, which, pod);
        let answer = self.call(PLUGIN_SERVICE, method, payload).await?;
        assert_eq!(answer, Vec::<u8>::new());
        Ok(())
    }
}

pub(crate) fn named() -> ConfigureRequest {
    ConfigureRequest {
        runtime_name: "fake".to_owned(),
        runtime_version: "0.0".to_owned(),
        ..ConfigureRequest::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    StateChange,
    Calls,
}

pub(crate) const RUN: i32 = 1;
pub(crate) const STOP: i32 = 2;
pub(crate) const REMOVE: i32 = 3;

pub(crate) fn encode_event(style: Style, which: i32, pod: &PodSandbox) -> (&'static str, Vec<u8>) {
    let pod = Some(pod.clone());
    let method = match (style, which) {
        (Style::StateChange, _) => {
            return ("StateChange", StateChangeEvent { event: which, pod }.encode_to_vec());
        }
        (Style::Calls, RUN) => "RunPodSandbox",
        (Style::Calls, STOP) => "StopPodSandbox",
        (Style::Calls, _) => "RemovePodSandbox",
    };
    (method, PodRequest { pod }.encode_to_vec())
}

/// A pod with a network namespace.
pub(crate) fn pod(id: &str, annotations: &[(&str, &str)]) -> PodSandbox {
    let namespace =
        |kind: &str, path: &str| LinuxNamespace { r#type: kind.to_owned(), path: path.to_owned() };
    let namespaces = vec![namespace("pid", ""), namespace("network", "/run/netns/cni-x")];
    PodSandbox {
        id: id.to_owned(),
        name: "web-0".to_owned(),
        uid: "u-1".to_owned(),
        namespace: "shop".to_owned(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        annotations: annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        linux: Some(LinuxPodSandbox { namespaces }),
        ..PodSandbox::default()
    }
}

/// The same pod as Stop of containerd 1.7 and 2.0 shows it.
pub(crate) fn without_namespaces(pod: &PodSandbox) -> PodSandbox {
    PodSandbox { linux: None, ..pod.clone() }
}
