//! A steady stream of numbered packets, and who of them arrived.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use crate::{namespace::Namespace, wait};

/// UDP packets from one namespace to another, at a fixed rate.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Sent>,
    receiver: JoinHandle<HashSet<u64>>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    packets: u64,
    /// The kernel refused to send: as lost as one dropped on the way.
    refused: u64,
    elapsed: Duration,
}

/// What became of a [`Flow`].
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// Packets sent, those that the kernel refused among them.
    pub sent: u64,
    /// Different packets that arrived.
    pub received: u64,
    /// Packets a second, as measured.
    pub rate: f64,
}

impl Flow {
    /// Sends `rate` packets a second from `from` to `address` in `to`.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
        port: u16,
        rate: u32,
    ) -> Result<Self> {
        let address = SocketAddr::new(address, port);
        let bind = move || -> Result<UdpSocket> {
            let any: IpAddr = match address {
                SocketAddr::V4(_) => [0, 0, 0, 0].into(),
                SocketAddr::V6(_) => [0u16; 8].into(),
            };
            Ok(UdpSocket::bind((any, 0))?)
        };
        let inbound = to.run(|| Ok(UdpSocket::bind(address)?))?;
        inbound.set_read_timeout(Some(Duration::from_millis(300)))?;
        let outbound = from.run(|| {
            let socket = bind()?;
            socket.connect(address)?;
            Ok(socket)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sender_stop, receiver_stop) = (stop.clone(), stop.clone());
        let sender = thread::spawn(move || send(&outbound, rate, &sender_stop));
        let receiver = thread::spawn(move || receive(&inbound, &receiver_stop));
        Ok(Self { stop, sender, receiver })
    }

    /// Stops sending, takes what is still under way, and counts.
    pub fn finish(self) -> Result<Count> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        let received = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
        Ok(Count {
            sent: sent.packets + sent.refused,
            received: received.len() as u64,
            #[allow(clippy::cast_precision_loss)]
            rate: sent.packets as f64 / sent.elapsed.as_secs_f64(),
        })
    }
}

fn send(socket: &UdpSocket, rate: u32, stop: &AtomicBool) -> Sent {
    let start = Instant::now();
    let gap = Duration::from_secs(1) / rate.max(1);
    let mut sent = Sent { packets: 0, refused: 0, elapsed: Duration::ZERO };
    let mut due = Duration::ZERO;
    let mut number: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        match socket.send(&number.to_be_bytes()) {
            Ok(_) => sent.packets += 1,
            Err(_) => sent.refused += 1,
        }
        number += 1;
        due += gap;
        // A sender that was held up catches up, so that the rate stays.
        if let Some(early) = due.checked_sub(start.elapsed()) {
            wait::pause(early);
        }
    }
    sent.elapsed = start.elapsed();
    sent
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> HashSet<u64> {
    let mut seen = HashSet::new();
    let mut buffer = [0; 8];
    loop {
        match socket.recv(&mut buffer) {
            Ok(8) => drop(seen.insert(u64::from_be_bytes(buffer))),
            Ok(_) => {}
            // Nothing for a while and nobody sends any more.
            Err(_) if stop.load(Ordering::Relaxed) => return seen,
            Err(_) => {}
        }
    }
}
