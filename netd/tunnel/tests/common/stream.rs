//! TCP streams whose every byte is checked, and numbered datagrams that are counted.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use testbed::{Namespace, wait};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Byte `at` of the stream `seed`; no short period.
fn byte(seed: u64, at: u64) -> u8 {
    let mixed = (at / 8 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (mixed ^ (mixed >> 31)).to_le_bytes()[(at % 8) as usize]
}

/// Sends `bytes` from `from` to `address` in `to` and as many back at the same time, in
/// writes of odd sizes, and compares every byte.
pub(crate) fn both_ways(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    bytes: u64,
) -> Result<()> {
    let listener = to.run(|| Ok(TcpListener::bind(SocketAddr::new(address, 0))?))?;
    let target = listener.local_addr()?;
    thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<()> {
            let (stream, _) = listener.accept()?;
            exchange(&stream, bytes, 2, 1)
        });
        let stream = from.run(|| Ok(TcpStream::connect_timeout(&target, TIMEOUT)?))?;
        exchange(&stream, bytes, 1, 2)?;
        server.join().map_err(|_| anyhow!("the server panicked"))?
    })
}

fn exchange(stream: &TcpStream, bytes: u64, own: u64, other: u64) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    thread::scope(|scope| {
        let writer = scope.spawn(move || send(stream, bytes, own));
        receive(stream, bytes, other)?;
        writer.join().map_err(|_| anyhow!("the writer panicked"))?
    })
}

fn send(mut stream: &TcpStream, bytes: u64, seed: u64) -> Result<()> {
    // Sizes around segment sizes, small ones and huge ones.
    let sizes = [1, 1447, 1448, 1449, 7, 65_536, 2896, 31, 131_072, 4093].into_iter().cycle();
    let (mut at, mut buffer) = (0, vec![]);
    for size in sizes {
        let size = size.min(bytes - at);
        if size == 0 {
            break;
        }
        buffer.clear();
        buffer.extend((at..at + size).map(|at| byte(seed, at)));
        stream.write_all(&buffer).context("write")?;
        at += size;
    }
    Ok(())
}

fn receive(mut stream: &TcpStream, bytes: u64, seed: u64) -> Result<()> {
    let (mut at, mut buffer) = (0, vec![0; 1 << 17]);
    while at < bytes {
        let got = stream.read(&mut buffer).with_context(|| format!("read at {at}"))?;
        ensure!(got > 0, "ended after {at} bytes");
        for (byte_at, found) in (at..).zip(&buffer[..got]) {
            ensure!(byte(seed, byte_at) == *found, "byte {byte_at} is wrong");
        }
        at += got as u64;
    }
    Ok(())
}

/// Datagrams of `size` bytes from `from` to `address` in `to`, one every `pause`, until
/// `work` is done. Returns how many were sent and how many came.
pub(crate) fn count_datagrams(
    (from, to): (&Namespace, &Namespace),
    address: IpAddr,
    size: usize,
    pause: Duration,
    work: impl FnOnce() -> Result<()>,
) -> Result<(u64, u64)> {
    let receiver = to.run(|| Ok(UdpSocket::bind(SocketAddr::new(address, 0))?))?;
    let sender = from.run(|| {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        Ok(UdpSocket::bind(any)?)
    })?;
    let target = receiver.local_addr()?;
    receiver.set_read_timeout(Some(Duration::from_millis(500)))?;
    // A busy machine lets the receiver wait; its buffer is not what is tested.
    nix::sys::socket::setsockopt(&receiver, nix::sys::socket::sockopt::RcvBufForce, &(16 << 20))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let (mut sent, mut next) = (0u64, Instant::now());
            while !done.load(Ordering::Relaxed) {
                let mut packet = vec![0x5a; size];
                packet[..8].copy_from_slice(&sent.to_be_bytes());
                // A refusal is a loss: it is counted as sent.
                let _ = sender.send_to(&packet, target);
                sent += 1;
                next += pause;
                wait::pause(next.saturating_duration_since(Instant::now()));
            }
            sent
        });
        let receiving = scope.spawn(|| {
            let (mut seen, mut buffer) = (std::collections::HashSet::new(), vec![0; 70_000]);
            loop {
                match receiver.recv(&mut buffer) {
                    Ok(length) if length == size => {
                        seen.insert(buffer[..8].to_vec());
                    }
                    Ok(_) => {}
                    Err(_) if done.load(Ordering::Relaxed) => return seen.len() as u64,
                    Err(_) => {}
                }
            }
        });
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        let sent = sending.join().map_err(|_| anyhow!("the sender panicked"))?;
        let received = receiving.join().map_err(|_| anyhow!("the receiver panicked"))?;
        outcome?;
        Ok((sent, received))
    })
}
