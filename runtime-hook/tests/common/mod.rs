//! A netd that says what a test wants, and the hook's binary to talk to it.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    fs::File,
    io::{IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{
            fs::MetadataExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use netd_api::{
    hook::{NETNS_IS_DESCRIPTOR, NETNS_KEY},
    ttrpc,
    v1::*,
};
use prost::Message as _;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
pub(crate) use script::{Asked, Script};
use tonic::Status;

mod script;

#[derive(Clone)]
struct Fake {
    script: Script,
    asked: Arc<Mutex<Vec<Asked>>>,
    namespaces: Arc<Mutex<Vec<u64>>>,
    stop: Arc<AtomicBool>,
}

impl Fake {
    fn note(&self, asked: Asked) -> Result<(), Status> {
        let count = {
            let mut all = self.asked.lock().unwrap();
            all.push(asked);
            all.len()
        };
        while self.script.hang && !self.stop.load(Ordering::Relaxed) {
            pause();
        }
        self.script.verdict(count)
    }
}

impl Fake {
    /// A call of one of the five methods, as netd answers it.
    fn call(&self, request: &ttrpc::Request) -> Result<Vec<u8>, Status> {
        let payload = request.payload.as_slice();
        match (request.service.as_str(), request.method.as_str()) {
            ("netd.v1.EndpointService", "Attach") => {
                let r = AttachRequest::decode(payload).unwrap();
                self.note(Asked::Attach(r.clone()))?;
                let endpoint = self.script.endpoint(&r.sandbox_id, &r.interface, r.dns);
                Ok(AttachResponse { endpoint }.encode_to_vec())
            }
            ("netd.v1.EndpointService", "Detach") => {
                self.note(Asked::Detach(DetachRequest::decode(payload).unwrap()))?;
                Ok(DetachResponse { removed: 1 }.encode_to_vec())
            }
            ("netd.v1.EndpointService", "Check") => {
                let r = CheckRequest::decode(payload).unwrap();
                self.note(Asked::Check(r.clone()))?;
                let endpoint = self.script.endpoint(&r.sandbox_id, &r.interface, None);
                Ok(CheckResponse { endpoint }.encode_to_vec())
            }
            ("netd.v1.SandboxService", "Synchronize") => {
                self.note(Asked::Synchronize(SynchronizeRequest::decode(payload).unwrap()))?;
                Ok(SynchronizeResponse::default().encode_to_vec())
            }
            ("netd.v1.NodeService", "GetStatus") => {
                self.note(Asked::Status(GetStatusRequest::decode(payload).unwrap()))?;
                Ok(self.status().encode_to_vec())
            }
            other => panic!("the hook never calls {other:?}"),
        }
    }

    fn status(&self) -> GetStatusResponse {
        if let Some(name) = &self.script.waiting {
            let reason = "it waits".to_owned();
            let component = Component { name: name.clone(), reason, ..Component::default() };
            return GetStatusResponse { components: vec![component], ..Default::default() };
        }
        let component = Component {
            name: "store".into(),
            ready: !self.script.starting,
            reason: "the disk is full".into(),
            since: 0,
        };
        GetStatusResponse {
            ready: !self.script.starting,
            components: vec![component],
            ..GetStatusResponse::default()
        }
    }

    /// One connection, until the hook closes it.
    fn serve(&self, stream: &UnixStream) {
        let (mut decoder, mut descriptors) = (ttrpc::Decoder::default(), Vec::new());
        loop {
            let mut bytes = [0; 65_536];
            let Some(read) = receive(stream, &mut bytes, &mut descriptors) else { return };
            let mut items = Vec::new();
            decoder.push(&bytes[..read], |item| items.push(item));
            for item in items {
                let ttrpc::Item::Message(head, payload) = item else { panic!("{item:?}") };
                let request = ttrpc::Request::decode(payload.as_slice()).unwrap();
                assert!(head.kind == ttrpc::REQUEST && head.stream % 2 == 1, "{head:?}");
                assert!(request.timeout_nano > 0);
                self.note_namespace(&request, std::mem::take(&mut descriptors));
                let response = response(self.call(&request)).encode_to_vec();
                let frame = ttrpc::encode(head.stream, ttrpc::RESPONSE, &response);
                // It may have given up.
                let _ = (&mut &*stream).write_all(&frame);
            }
        }
    }

    /// A call that names a namespace brings it along, and no other does.
    fn note_namespace(&self, request: &ttrpc::Request, descriptors: Vec<OwnedFd>) {
        let takes_one = ["Attach", "Check"].contains(&request.method.as_str());
        assert_eq!(descriptors.len(), usize::from(takes_one), "{}", request.method);
        let says = |m: &ttrpc::KeyValue| m.key == NETNS_KEY && m.value == NETNS_IS_DESCRIPTOR;
        assert_eq!(request.metadata.iter().any(says), takes_one);
        for descriptor in descriptors {
            let inode = File::from(descriptor).metadata().unwrap().ino();
            self.namespaces.lock().unwrap().push(inode);
        }
    }
}

fn receive(stream: &UnixStream, to: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Option<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(to)];
    let received = recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Some(received.bytes).filter(|bytes| *bytes > 0)
}

fn response(done: Result<Vec<u8>, Status>) -> ttrpc::Response {
    match done {
        Ok(payload) => ttrpc::Response { status: None, payload },
        Err(status) => {
            let details = ttrpc::Status::decode(status.details()).unwrap().details;
            let (code, message) = (status.code() as i32, status.message().to_owned());
            let status = Some(ttrpc::Status { code, message, details });
            ttrpc::Response { status, payload: Vec::new() }
        }
    }
}

#[allow(clippy::disallowed_methods)] // a thread of the fake's own
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// A fake netd on a hooks' socket of its own; ends when dropped.
pub(crate) struct Netd {
    pub dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    namespaces: Arc<Mutex<Vec<u64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Netd {
    pub(crate) fn start(script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("hook.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (asked, namespaces) = (Arc::default(), Arc::default());
        let stop = Arc::<AtomicBool>::default();
        let fake = Fake {
            script,
            asked: Arc::clone(&asked),
            namespaces: Arc::clone(&namespaces),
            stop: stop.clone(),
        };
        let thread = Some(std::thread::spawn(move || accept(&fake, &listener)));
        Self { dir, asked, namespaces, stop, thread }
    }

    pub(crate) fn ready() -> Self {
        Self::start(Script::default())
    }

    pub(crate) fn refusing(status: Status) -> Self {
        Self::start(Script { refuse: Some(status), ..Script::default() })
    }

    /// As configurations name it: gRPC's, beside which the hooks' is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("netd.sock")
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Inodes of the namespaces that came as descriptors.
    pub(crate) fn namespaces(&self) -> Vec<u64> {
        self.namespaces.lock().unwrap().clone()
    }
}

impl Drop for Netd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn accept(fake: &Fake, listener: &UnixListener) {
    let mut served = Vec::new();
    while !fake.stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            pause();
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        let fake = fake.clone();
        served.push(std::thread::spawn(move || fake.serve(&stream)));
    }
    // The hooks have ended, and so have their connections.
    served.into_iter().for_each(|thread| thread.join().unwrap());
}

const HOOK: &str = env!("CARGO_BIN_EXE_netd-hook");

/// The plugin alone, as it is shipped: `make build` puts it there.
pub(crate) fn plugin() -> PathBuf {
    let plugin = Path::new(HOOK).with_file_name("netd-cni");
    assert!(plugin.exists(), "there is no {}: run `make build`", plugin.display());
    plugin
}

/// Both executables that are the CNI plugin.
pub(crate) fn plugins() -> Vec<PathBuf> {
    vec![HOOK.into(), plugin()]
}

/// Runs the hook, or the plugin if it is called as one, with this environment only.
pub(crate) fn exec(args: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Output {
    let as_plugin = args.is_empty() && env.iter().any(|(name, _)| *name == "CNI_COMMAND");
    let program = if as_plugin { plugin() } else { HOOK.into() };
    execute(&program, args, env, stdin)
}

/// Runs a program with this environment only.
pub(crate) fn execute(program: &Path, args: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The hook may end before it has read all.
    drop(child.stdin.take().unwrap().write_all(stdin));
    child.wait_with_output().unwrap()
}

/// One that is there, whoever opens it.
pub(crate) const NETNS: &str = "/proc/self/ns/net";

/// Runs a CNI command for container "abc", interface eth0.
pub(crate) fn cni(command: &str, config: &serde_json::Value) -> Output {
    cni_with(command, config, &[])
}

/// The same with more variables.
pub(crate) fn cni_with(command: &str, config: &serde_json::Value, more: &[(&str, &str)]) -> Output {
    let mut env = vec![
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "abc"),
        ("CNI_NETNS", NETNS),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    env.extend(more);
    exec(&[], &env, config.to_string().as_bytes())
}

/// What was printed, which must be JSON.
pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// The code of an error, which must have the spec's form.
pub(crate) fn code(output: &Output) -> u64 {
    assert_eq!(output.status.code(), Some(1));
    let error = json(output);
    assert!(error["cniVersion"].is_string() && error["details"].is_string(), "{error}");
    assert!(!error["msg"].as_str().unwrap().is_empty());
    error["code"].as_u64().unwrap()
}
