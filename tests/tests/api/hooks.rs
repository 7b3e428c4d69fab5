//! The hooks' socket: what hostile, slow and impatient peers get, and that netd goes on
//! serving the others.

use std::{
    fs::File,
    io::{IoSlice, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::{
            fs::{OpenOptionsExt as _, PermissionsExt as _},
            net::UnixStream,
        },
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use netd_api::{
    hook::{NETNS_IS_DESCRIPTOR, NETNS_KEY},
    ttrpc::{self, Item, KeyValue, Request, Response},
    v1::{AttachRequest, DetachRequest, GetStatusRequest, GetStatusResponse},
};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use prost::Message;
use testbed::{Sandbox, case, wait};
use tonic::Code;

use crate::node::{LIMIT, Node, noise};

const ENDPOINTS: &str = "netd.v1.EndpointService";
/// netd gives up on a request that does not arrive whole; and some.
const FRAME_TIMEOUT: Duration = Duration::from_secs(12);

fn call(service: &str, method: &str, message: &impl Message) -> Request {
    Request {
        service: service.to_owned(),
        method: method.to_owned(),
        payload: message.encode_to_vec(),
        timeout_nano: 5_000_000_000,
        metadata: Vec::new(),
    }
}

fn status() -> Request {
    call("netd.v1.NodeService", "GetStatus", &GetStatusRequest::default())
}

/// An attach that says whether a descriptor comes along.
fn attach(request: AttachRequest, announced: bool) -> Request {
    let descriptor = KeyValue { key: NETNS_KEY.into(), value: NETNS_IS_DESCRIPTOR.into() };
    let mut call = call(ENDPOINTS, "Attach", &request);
    call.metadata.extend(announced.then_some(descriptor));
    call
}

fn frame(stream: u32, request: &Request) -> Vec<u8> {
    ttrpc::encode(stream, ttrpc::REQUEST, &request.encode_to_vec())
}

/// A hook's end of a connection.
struct Hook(UnixStream);

impl Hook {
    fn send(&mut self, bytes: &[u8], descriptors: &[RawFd]) -> Result<()> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(bytes)];
        let fd = self.0.as_raw_fd();
        let sent = sendmsg::<UnixAddr>(fd, &parts, rights, MsgFlags::MSG_NOSIGNAL, None)?;
        self.0.write_all(&bytes[sent..]).map_err(Into::into)
    }

    /// The next answer, which is to the call `stream`.
    fn answer(&mut self, stream: u32) -> Result<Response> {
        let mut decoder = ttrpc::Decoder::default();
        loop {
            // Byte by byte, so that nothing of a next answer is taken.
            let mut byte = [0];
            ensure!(self.0.read(&mut byte)? == 1, "netd closed the connection");
            let mut item = None;
            decoder.push(&byte, |found| item = Some(found));
            match item {
                None => {}
                Some(Item::Message(head, payload)) => {
                    ensure!((head.kind, head.stream) == (ttrpc::RESPONSE, stream), "{head:?}");
                    return Ok(Response::decode(payload.as_slice())?);
                }
                Some(other) => bail!("{other:?}"),
            }
        }
    }

    fn closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 64]), Ok(0))
            || self
                .0
                .read(&mut [0; 64])
                .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
    }
}

impl Node {
    fn hook(&self) -> Result<Hook> {
        let stream = UnixStream::connect(self.netd.hook_socket())?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        stream.set_read_timeout(Some(FRAME_TIMEOUT))?;
        Ok(Hook(stream))
    }

    /// A pod comes and goes through the plugin, and nothing is left.
    fn serves_hooks(&mut self) -> Result<()> {
        self.netd.service().check_alive()?;
        let mut pod = self.bare("check")?;
        pod.add(&self.host)?;
        pod.del(&self.host)?;
        self.nothing_left()
    }

    /// An attach with these descriptors has to be refused, naming the field.
    fn refuses_netns(&self, what: &str, request: &Request, files: &[&File]) -> Result<()> {
        let mut hook = self.hook()?;
        let numbers: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        hook.send(&frame(1, request), &numbers)?;
        let refused = hook.answer(1)?.status.with_context(|| format!("{what}: it succeeded"))?;
        ensure!(refused.code == Code::InvalidArgument as i32, "{what}: {refused:?}");
        let mut details = refused.details.iter();
        let bad = details.find(|any| any.type_url.ends_with("google.rpc.BadRequest"));
        let bad = bad.with_context(|| format!("{what}: no field is named: {refused:?}"))?;
        let named = String::from_utf8_lossy(&bad.value).into_owned();
        ensure!(named.contains("netns_path"), "{what}: {named}");
        // The connection goes on.
        hook.send(&frame(3, &status()), &[])?;
        ensure!(hook.answer(3)?.status.is_none());
        Ok(())
    }
}

#[test]
fn several_calls_go_over_one_connection_in_order() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let mut hook = node.hook()?;
        // All at once, before any answer.
        let frames: Vec<u8> = [1, 3, 5, 7].iter().flat_map(|n| frame(*n, &status())).collect();
        hook.send(&frames, &[])?;
        for stream in [1, 3, 5, 7] {
            let response = hook.answer(stream)?;
            ensure!(response.status.is_none(), "{response:?}");
            ensure!(GetStatusResponse::decode(response.payload.as_slice())?.ready);
        }
        let unknown = call("netd.v1.NetworkService", "DeleteNetwork", &GetStatusRequest::default());
        hook.send(&frame(9, &unknown), &[])?;
        let refused = hook.answer(9)?.status.context("it was answered")?;
        ensure!(refused.code == Code::Unimplemented as i32, "{refused:?}");
        let gone = DetachRequest { sandbox_id: "../x".into(), ..Default::default() };
        hook.send(&frame(11, &call(ENDPOINTS, "Detach", &gone)), &[])?;
        let refused = hook.answer(11)?.status.context("it was answered")?;
        ensure!(refused.code == Code::InvalidArgument as i32 && !refused.details.is_empty());
        Ok(())
    })
}

#[test]
fn a_descriptor_that_is_no_pod_s_network_namespace_is_refused_by_name() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let netns = File::open(pod.net.path())?;
        let with = attach(pod.request(), true);
        let hosts = File::open(node.host.net.path())?;
        let file = File::open("/etc/passwd")?;
        let directory = File::open("/")?;
        let mounts = File::open("/proc/self/ns/mnt")?;
        let pids = File::open("/proc/self/ns/pid")?;
        let (null, pipe) = (File::open("/dev/null")?, std::io::pipe()?);
        let pipe = File::from(std::os::fd::OwnedFd::from(pipe.0));
        let path = File::options().read(true).open("/proc/self/ns")?;
        for (what, other) in [
            ("the host's", &hosts),
            ("a file", &file),
            ("a directory", &directory),
            ("a mount namespace", &mounts),
            ("a PID namespace", &pids),
            ("a device", &null),
            ("a pipe", &pipe),
            ("a directory of /proc", &path),
        ] {
            node.refuses_netns(what, &with, &[other])?;
        }
        node.refuses_netns("none", &with, &[])?;
        node.refuses_netns("two", &with, &[&netns, &netns])?;
        node.refuses_netns("a hundred", &with, &vec![&netns; 100])?;
        node.refuses_netns("one that is not announced", &attach(pod.request(), false), &[&netns])?;
        let detach = DetachRequest { sandbox_id: pod.id.clone(), ..Default::default() };
        let mut detach = call(ENDPOINTS, "Detach", &detach);
        detach.metadata.clone_from(&with.metadata);
        node.refuses_netns("a detach with one", &detach, &[&netns])?;
        ensure!(!pod.net.sh("ip -o link")?.contains("eth0"));
        // Whatever was sent, netd holds none of it.
        let held = std::fs::read_dir(format!("/proc/{}/fd", node.netd.pid()))?;
        let held = held.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let held: Vec<_> = held.filter(|to| to.starts_with("/etc/passwd")).collect();
        ensure!(held.is_empty(), "{held:?}");
        node.serves_hooks()
    })
}

/// The path is for people: what counts is the descriptor.
#[test]
fn the_descriptor_counts_and_not_the_path() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (own, other) = (node.bare("own")?, node.bare("other")?);
        let request = AttachRequest { sandbox_id: own.id.clone(), ..other.request() };
        let mut hook = node.hook()?;
        let netns = File::open(own.net.path())?;
        hook.send(&frame(1, &attach(request, true)), &[netns.as_raw_fd()])?;
        let refused = hook.answer(1)?.status;
        ensure!(refused.is_none(), "{refused:?}");
        ensure!(own.net.sh("ip -o link")?.contains("eth0"));
        ensure!(!other.net.sh("ip -o link")?.contains("eth0"));
        node.detach(&own)?;
        node.nothing_left()
    })
}

#[test]
fn noise_in_place_of_ttrpc_does_not_disturb() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let netns = File::open(node.host.net.path())?;
        let mut noise = noise();
        for round in 0..200 {
            let mut hook = node.hook()?;
            let mut bytes = noise.bytes(1 + round * 17);
            match round % 4 {
                // A request's head before it.
                0 => bytes.splice(0..0, [0, 0, 4, 0, 0, 0, 0, 1, ttrpc::REQUEST, 0]).for_each(drop),
                1 => bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").for_each(drop),
                _ => {}
            }
            // netd may hang up before all is written.
            let with = if round % 3 == 0 { vec![netns.as_raw_fd(); round % 5] } else { vec![] };
            let _ = hook.send(&bytes, &with);
        }
        node.serves_hooks()
    })
}

#[test]
fn requests_that_stop_halfway_are_given_up_and_disturb_nobody() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let whole = frame(1, &status());
        let mut held = Vec::new();
        for cut in [0, 1, 9, 10, whole.len() - 1] {
            let mut hook = node.hook()?;
            if cut > 0 {
                hook.send(&whole[..cut], &[])?;
            }
            held.push(hook);
        }
        // One that sends a byte a second has run out of time.
        let mut slow = node.hook()?;
        node.serves_hooks()?;
        let start = Instant::now();
        for byte in &whole {
            if slow.send(&[*byte], &[]).is_err() || start.elapsed() > FRAME_TIMEOUT {
                break;
            }
            wait::pause(Duration::from_secs(1));
        }
        ensure!(slow.send(&whole, &[]).is_err() || slow.closed(), "it still has a connection");
        for mut hook in held {
            ensure!(hook.closed(), "a connection is still open");
        }
        node.serves_hooks()
    })
}

#[test]
fn more_idle_connections_than_are_served_lock_nobody_out() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let mut idle = Vec::new();
        for _ in 0..1000 {
            idle.push(node.hook()?);
        }
        node.serves_hooks()?;
        // Now more than netd serves at a time; they have to end before the pod's turn.
        for _ in 0..150 {
            idle.push(node.hook()?);
        }
        let start = Instant::now();
        node.serves_hooks()?;
        ensure!(start.elapsed() < 2 * FRAME_TIMEOUT, "{:?}", start.elapsed());
        drop(idle);
        node.serves_hooks()
    })
}

#[test]
fn a_request_of_five_mebibytes_is_refused_with_a_clear_code() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let huge = [("k".to_owned(), "x".repeat(5 << 20))].into();
        let request = attach(AttachRequest { annotations: huge, ..pod.request() }, false);
        let mut hook = node.hook()?;
        // netd does not wait for all of it.
        let _ = hook.send(&frame(1, &request), &[]);
        let refused = hook.answer(1)?.status.context("it succeeded")?;
        ensure!(refused.code == Code::ResourceExhausted as i32, "{refused:?}");
        ensure!(hook.closed());
        node.serves_hooks()
    })
}

#[test]
fn a_call_runs_to_its_end_though_its_caller_goes_away_or_its_time_is_over() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (leaves, late) = (node.bare("leaves")?, node.bare("late")?);
        let attach_in = |pod: &Sandbox, hook: &mut Hook, timeout_nano| -> Result<()> {
            let netns = File::open(pod.net.path())?;
            let request = Request { timeout_nano, ..attach(pod.request(), true) };
            hook.send(&frame(1, &request), &[netns.as_raw_fd()])
        };
        attach_in(&leaves, &mut node.hook()?, 0)?;
        let mut hook = node.hook()?;
        attach_in(&late, &mut hook, 1)?;
        let refused = hook.answer(1)?.status.context("one nanosecond was enough")?;
        ensure!(refused.code == Code::DeadlineExceeded as i32, "{refused:?}");
        for pod in [&leaves, &late] {
            wait::until(LIMIT, "it is attached", || {
                ensure!(pod.net.sh("ip -o address show")?.contains("10.88."));
                Ok(())
            })?;
            node.detach(pod)?;
        }
        node.nothing_left()
    })
}

#[test]
fn only_root_may_call() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let socket = node.netd.hook_socket();
        let mode = std::fs::metadata(&socket)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{mode:o}");
        // Even where a program opened it to all.
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;
        let opened = File::options().read(true).custom_flags(libc::O_PATH).open(&socket)?;
        let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let stream = std::thread::spawn(move || as_nobody(|| UnixStream::connect(name)))
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut hook = Hook(stream);
        let _ = hook.send(&frame(1, &status()), &[]);
        ensure!(hook.answer(1).is_err(), "nobody was answered");
        wait::until(LIMIT, "it is logged", || {
            ensure!(node.netd.logged().contains("rejected a connection from uid 65534"));
            Ok(())
        })?;
        node.serves_hooks()
    })
}

/// Runs `work` on this thread as nobody; the thread stays so.
pub(crate) fn as_nobody<T>(work: impl FnOnce() -> std::io::Result<T>) -> Result<T> {
    const NOBODY: u32 = 65534;
    // SAFETY: plain system calls; unlike libc's functions they change this thread alone.
    let changed = unsafe {
        libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY)
            + libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY)
    };
    ensure!(changed == 0, "setresuid: {}", std::io::Error::last_os_error());
    Ok(work()?)
}
