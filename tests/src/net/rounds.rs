//! Requests and responses, one after the other: how long each takes.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::namespace::Namespace;

const PORT: u16 = 7100;
/// Bytes of each request and each response.
const SIZE: usize = 64;

/// Round trips over UDP, sorted.
#[derive(Debug)]
pub struct Rounds(Vec<Duration>);

impl Rounds {
    /// Makes `count` round trips from `from` to `address` in `to`.
    pub fn make(from: &Namespace, to: &Namespace, address: IpAddr, count: usize) -> Result<Self> {
        let at = SocketAddr::new(address, PORT);
        let server = to.run(|| Ok(UdpSocket::bind(at)?))?;
        server.set_read_timeout(Some(Duration::from_millis(100)))?;
        let client = from.run(|| {
            let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(at)?;
            Ok(socket)
        })?;
        client.set_read_timeout(Some(Duration::from_millis(200)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let serving = {
            let stop = stop.clone();
            thread::spawn(move || serve(&server, &stop))
        };
        let made = ask(&client, count);
        stop.store(true, Ordering::Relaxed);
        let _ = serving.join();
        Ok(Self(made?))
    }

    /// Microseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}

fn serve(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; SIZE];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), peer);
        }
    }
}

fn ask(socket: &UdpSocket, count: usize) -> Result<Vec<Duration>> {
    let (mut each, mut buffer, mut lost) = (Vec::with_capacity(count), [0; SIZE], 0);
    while each.len() < count {
        let start = Instant::now();
        socket.send(&[7; SIZE]).context("send a request")?;
        match socket.recv(&mut buffer) {
            Ok(_) => each.push(start.elapsed()),
            Err(_) => lost += 1,
        }
        ensure!(lost < 20, "{lost} of {} requests were not answered", each.len() + lost);
    }
    each.sort_unstable();
    Ok(each)
}
