//! What callers that are not honest, or only broken, may take: connections, time, memory.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{OpenOptionsExt as _, PermissionsExt as _},
            net::UnixStream,
        },
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::{
    AttachRequest, CreateNetworkRequest, Network, Pool, PortMapping, Sandbox as Listed,
    SynchronizeRequest,
};
use testbed::{block_on, case, wait};
use tonic::Code;

use crate::{
    frames::{PREFACE, SETTINGS, frame},
    hooks::as_nobody,
    node::Node,
};

/// A call of root's while others do their worst.
const PROMPT: Duration = Duration::from_secs(20);

/// As nobody, as a member of the socket's group would.
fn connections_of_nobody(node: &Node, count: usize) -> Result<Vec<UnixStream>> {
    let socket = node.netd.socket();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
    // The bed's directory is root's alone.
    let opened = fs::File::options().read(true).custom_flags(libc::O_PATH).open(&socket)?;
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let dial = move || as_nobody(|| (0..count).map(|_| UnixStream::connect(&path)).collect());
    std::thread::spawn(dial).join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

fn resident_kib(node: &Node) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.netd.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Root's calls by both sockets and the metrics are answered.
fn root_gets_through(node: &Node) -> Result<()> {
    let start = Instant::now();
    ensure!(node.netd.status()?.ready);
    let pod = testbed::Sandbox::attached(&node.host, "through")?;
    pod.del(&node.host)?;
    ensure!(start.elapsed() < PROMPT, "took {:?}", start.elapsed());
    Ok(())
}

#[test]
fn silent_connections_of_a_user_keep_nobody_out() -> Result<()> {
    case(|bed| {
        let node = Node::start_limited(bed, 256)?;
        // Silent, begun and silent, and half a request.
        let mut held = connections_of_nobody(&node, 300)?;
        for (number, stream) in held.iter_mut().enumerate() {
            // It fails where netd has closed it already.
            let _ = match number % 3 {
                0 => Ok(()),
                1 => stream.write_all(&[PREFACE, SETTINGS].concat()),
                _ => stream.write_all(&[PREFACE, SETTINGS, &[0, 1, 0, 1, 4]].concat()),
            };
        }
        for _ in 0..5 {
            root_gets_through(&node)?;
        }
        let open = fs::read_dir(format!("/proc/{}/fd", node.netd.pid()))?.count();
        ensure!(open < 200, "{open} descriptors are open");
        drop(held);
        root_gets_through(&node)
    })
}

/// So that a leak in a client is not one in netd.
#[test]
fn a_connection_that_says_nothing_is_closed() -> Result<()> {
    /// Pings and the time for their answers, and room for a slow machine.
    const CLOSED: Duration = Duration::from_secs(45);
    case(|bed| {
        let node = Node::start(bed)?;
        let beginnings: [&[u8]; 4] = [
            b"",
            &PREFACE[..7],
            &[PREFACE, SETTINGS].concat(),
            &[PREFACE, SETTINGS, &[0, 0, 64, 1, 4, 0, 0, 0, 1, 0x82]].concat(),
        ];
        let mut held = Vec::new();
        for beginning in beginnings {
            let mut stream = UnixStream::connect(node.netd.socket())?;
            stream.write_all(beginning)?;
            stream.set_read_timeout(Some(CLOSED))?;
            held.push(stream);
        }
        let start = Instant::now();
        for (number, stream) in held.iter_mut().enumerate() {
            let mut rest = Vec::new();
            // netd's own frames, then the end.
            let ended = stream.read_to_end(&mut rest);
            let reset =
                ended.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
            ensure!(ended.is_ok() || reset, "beginning {number}: {ended:?}");
            ensure!(start.elapsed() < CLOSED, "beginning {number}: {:?}", start.elapsed());
        }
        Ok(())
    })
}

#[test]
fn silent_connections_to_the_metrics_keep_nobody_out() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let address = "127.0.0.1:9479";
        let dial = || Ok(std::net::TcpStream::connect(address)?);
        let mut held = Vec::new();
        for _ in 0..200 {
            held.push(node.host.net.run(dial)?);
        }
        let mut stream = node.host.net.run(dial)?;
        stream.set_read_timeout(Some(PROMPT))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("200 OK"), "{answer}");
        Ok(())
    })
}

/// Requests of some MiB that are hundreds of them in memory.
fn refused_in_bounds(node: &Node, what: &str, call: impl Fn(&Node) -> Result<Code>) -> Result<()> {
    let start = Instant::now();
    let code = call(node)?;
    let took = start.elapsed();
    ensure!(
        [Code::ResourceExhausted, Code::InvalidArgument, Code::OutOfRange].contains(&code),
        "{what}: {code:?}"
    );
    ensure!(took < Duration::from_secs(30), "{what} took {took:?}");
    let resident = resident_kib(node)?;
    ensure!(resident < 250 << 10, "{what}: netd took {resident} KiB");
    Ok(())
}

fn code_of<T>(answer: Result<T, tonic::Status>) -> Result<Code> {
    Ok(answer.err().context("accepted")?.code())
}

#[test]
fn a_request_that_grows_in_memory_is_refused() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let empty = vec![Listed::default(); 1_000_000];
        let wrong: Vec<_> =
            (0..16_000).map(|_| Listed { id: "!".into(), ..Default::default() }).collect();
        for (what, sandboxes) in [("empty sandboxes", empty), ("wrong sandboxes", wrong)] {
            refused_in_bounds(&node, what, |node| {
                let request = SynchronizeRequest {
                    source: "nri".into(),
                    sandboxes: sandboxes.clone(),
                    ..Default::default()
                };
                code_of(block_on(node.netd.sandbox_service()?.synchronize(request)))
            })?;
        }
        let pod = node.bare("pod")?;
        refused_in_bounds(&node, "port mappings", |node| {
            let port_mappings = vec![PortMapping::default(); 1_000_000];
            let request = AttachRequest { port_mappings, ..pod.request() };
            code_of(block_on(node.netd.endpoint_service()?.attach(request)))
        })?;
        refused_in_bounds(&node, "pools", |node| {
            let pools = vec![Pool::default(); 1_000_000];
            let network = Network { name: "big".into(), pools, ..Default::default() };
            let request = CreateNetworkRequest { network: Some(network), force: false };
            code_of(block_on(node.netd.network_service()?.create_network(request)))
        })?;
        root_gets_through(&node)
    })
}

#[test]
fn as_many_sandboxes_as_a_node_can_have_are_taken() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let ids = (0..10_000).map(|n| Listed { id: format!("{n:064x}"), ..Default::default() });
        let request = SynchronizeRequest {
            source: "nri".into(),
            sandboxes: ids.collect(),
            ..Default::default()
        };
        node.netd.synchronize(request)?;
        Ok(())
    })
}

/// A call's header block, each field as it is.
fn headers(path: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| [&[text.len() as u8], text].concat();
    // :method POST, :scheme http; then :path, :authority, content-type and te.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(4, path), (1, b"localhost".as_slice())] {
        block.extend([vec![name], text(value)].concat());
    }
    block.extend([vec![0x0f, 0x10], text(b"application/grpc")].concat());
    block.extend([vec![0], text(b"te"), text(b"trailers")].concat());
    block
}

/// Calls of a user that never arrive whole, in all the places there are for users.
#[test]
fn calls_that_do_not_arrive_keep_root_from_nothing() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let mut held = connections_of_nobody(&node, 32)?;
        for stream in &mut held {
            stream.write_all(&[PREFACE, SETTINGS].concat())?;
            for call in 0..20 {
                let head = headers(b"/netd.v1.NodeService/GetStatus");
                let id = 2 * call + 1;
                // A body of a hundred bytes is announced, and one comes.
                stream.write_all(&frame(1, 4, id, &head))?;
                stream.write_all(&frame(0, 0, id, &[0, 0, 0, 0, 100, 1]))?;
            }
        }
        wait::pause(Duration::from_millis(500));
        for _ in 0..5 {
            root_gets_through(&node)?;
        }
        Ok(())
    })
}
