//! Small TCP and UDP servers and clients, each with its socket in a namespace.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::namespace::Namespace;

const PATIENCE: Duration = Duration::from_millis(1500);

/// Answers every client with the client's own address as seen here, over TCP and
/// UDP, IPv4 and IPv6, until dropped.
#[derive(Debug)]
pub struct Mirror {
    port: u16,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Mirror {
    /// Serves `port` on every address of the namespace.
    pub fn serve(net: &Namespace, port: u16) -> Result<Self> {
        let (tcp, udp) = net.run(|| {
            let any = (Ipv6Addr::UNSPECIFIED, port);
            let tcp = TcpListener::bind(any).context("bind TCP")?;
            tcp.set_nonblocking(true)?;
            let udp = UdpSocket::bind(any).context("bind UDP")?;
            udp.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok((tcp, udp))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp_stop, udp_stop) = (stop.clone(), stop.clone());
        let threads = vec![
            thread::spawn(move || serve_tcp(&tcp, &tcp_stop)),
            thread::spawn(move || serve_udp(&udp, &udp_stop)),
        ];
        Ok(Self { port, stop, threads })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that has gone is no concern of the server's.
            Ok((mut stream, peer)) => drop(stream.write_all(shown(peer).as_bytes())),
            Err(_) => crate::wait::pause(Duration::from_millis(3)),
        }
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(shown(peer).as_bytes(), peer);
        }
    }
}

fn shown(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

/// Connects over TCP from inside `net` to a [`Mirror`]; the source address it saw.
pub fn tcp(net: &Namespace, to: IpAddr, port: u16) -> Result<IpAddr> {
    net.run(|| {
        let address = SocketAddr::new(to, port);
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("TCP to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut seen = String::new();
        stream.read_to_string(&mut seen).with_context(|| format!("TCP to {address}: read"))?;
        seen.parse().with_context(|| format!("TCP to {address}: answered `{seen}`"))
    })
}

/// Asks a [`Mirror`] over UDP from inside `net`; the source address it saw. A
/// connected socket, so an answer from another address than `to` does not count.
pub fn udp(net: &Namespace, to: IpAddr, port: u16) -> Result<IpAddr> {
    net.run(|| {
        let address = SocketAddr::new(to, port);
        let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address).with_context(|| format!("UDP to {address}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"?").with_context(|| format!("UDP to {address}: send"))?;
        let mut buffer = [0; 64];
        let length =
            socket.recv(&mut buffer).with_context(|| format!("UDP to {address}: no answer"))?;
        let seen = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        seen.parse().with_context(|| format!("UDP to {address}: answered `{seen}`"))
    })
}

/// One ICMP echo from inside `net`.
pub fn ping(net: &Namespace, to: IpAddr) -> Result<()> {
    net.sh(&format!("ping -n -c 1 -W 0.5 {to}")).map(drop)
}
