//! Requests and responses, one after the other: how long each takes, and how many connections a second
//! there are.
//!
//! Both ends are in one thread, which stays on one processor: the kernel then carries a packet from
//! one socket to the other while it is sent, and what is measured is the path. With a thread for each
//! end the scheduler decides (20 us when both are on one processor, 100 us when not). A tunnel in
//! userspace has threads of its own, which belong to its path.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::namespace::Namespace;

const PORT: u16 = 7100;
/// Bytes of each request and each response.
const SIZE: usize = 64;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(200);

/// Round trips over UDP, sorted.
#[derive(Debug)]
pub struct Rounds(Vec<Duration>);

impl Rounds {
    /// Makes `count` round trips from `from` to `address` in `to`.
    pub fn make(from: &Namespace, to: &Namespace, address: IpAddr, count: usize) -> Result<Self> {
        let at = SocketAddr::new(address, PORT);
        let server = to.run(|| Ok(UdpSocket::bind(at)?))?;
        let client = from.run(|| {
            let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(at)?;
            Ok(socket)
        })?;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        on_one_processor(|| rounds(&client, &server, count)).map(Self)
    }

    /// Microseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}

fn rounds(client: &UdpSocket, server: &UdpSocket, count: usize) -> Result<Vec<Duration>> {
    let (mut each, mut buffer, mut lost) = (Vec::with_capacity(count), [0; SIZE], 0);
    while each.len() < count {
        let start = Instant::now();
        client.send(&[7; SIZE]).context("send a request")?;
        let answered = server.recv_from(&mut buffer).and_then(|(_, peer)| {
            server.send_to(&buffer, peer)?;
            client.recv(&mut buffer)
        });
        match answered {
            Ok(_) => each.push(start.elapsed()),
            Err(_) => lost += 1,
        }
        ensure!(lost < 20, "{lost} of {} requests were not answered", each.len() + lost);
    }
    each.sort_unstable();
    Ok(each)
}

/// TCP connections, each made, accepted and reset, from `from` to `address` in `to` for so long: how
/// many a second.
pub fn connections(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    time: Duration,
) -> Result<f64> {
    let at = SocketAddr::new(address, PORT);
    let listener = to.run(|| Ok(TcpListener::bind(at)?))?;
    from.run(|| on_one_processor(|| connect_for(at, &listener, time)))
}

fn connect_for(at: SocketAddr, listener: &TcpListener, time: Duration) -> Result<f64> {
    let (start, mut made) = (Instant::now(), 0u32);
    while start.elapsed() < time {
        let client = TcpStream::connect_timeout(&at, PATIENCE).context("connect")?;
        let (server, _) = listener.accept()?;
        // A reset leaves no port in TIME_WAIT.
        nix::sys::socket::setsockopt(
            &client,
            nix::sys::socket::sockopt::Linger,
            &libc::linger { l_onoff: 1, l_linger: 0 },
        )?;
        drop(client);
        drop(server);
        made += 1;
    }
    Ok(f64::from(made) / start.elapsed().as_secs_f64())
}

/// Does something on a thread that stays on the first processor that it may use.
fn on_one_processor<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || {
        let this = Pid::from_raw(0);
        let may = sched_getaffinity(this)?;
        let mut one = CpuSet::new();
        let first = (0..CpuSet::count()).find(|cpu| may.is_set(*cpu).unwrap_or(false));
        one.set(first.context("no processor")?)?;
        // This thread measures, and no other part of the tests is bound to a processor.
        #[allow(clippy::disallowed_methods)]
        sched_setaffinity(this, &one)?;
        work()
    };
    thread::scope(|scope| scope.spawn(pinned).join().map_err(|_| anyhow!("panicked"))?)
}
