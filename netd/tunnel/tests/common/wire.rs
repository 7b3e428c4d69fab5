//! What goes over the cable, and packets made by hand.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use testbed::{Namespace, service::Service, wait};

use super::SOON;

/// Everything that passes a node's eth0.
pub(crate) struct Capture {
    process: Service,
    file: PathBuf,
    /// In the node's namespace.
    socket: UdpSocket,
}

impl Capture {
    pub(crate) fn start(net: &Namespace, directory: PathBuf) -> Result<Self> {
        let file = directory.join("wire.pcap");
        let mut command = net.command("tcpdump");
        // Immediate: else the packets of the last second can be lost with the process.
        command.args(["-Z", "root", "-U", "--immediate-mode", "-s", "0", "-B", "16384"]);
        command.args(["-i", "eth0", "-w"]).arg(&file);
        let log = directory.join("tcpdump.log");
        let process = Service::start("tcpdump", command, &log)?;
        wait::until(SOON, "tcpdump listens", || {
            ensure!(std::fs::read_to_string(&log)?.contains("listening on"));
            Ok(())
        })?;
        let socket = net.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        socket.set_broadcast(true)?;
        Ok(Self { process, file, socket })
    }

    /// The bytes of all packets.
    pub(crate) fn end(mut self) -> Result<Vec<u8>> {
        // tcpdump forgets what it has not read when it ends: it has read all that came before this.
        const LAST: &[u8] = b"the last packet of this capture";
        const TAIL: usize = 1 << 18;
        self.socket.send_to(LAST, "192.0.2.255:9")?;
        wait::until(SOON, "tcpdump has read everything", || {
            let bytes = std::fs::read(&self.file)?;
            ensure!(contains(&bytes[bytes.len().saturating_sub(TAIL)..], LAST));
            Ok(())
        })?;
        self.process.stop(SOON)?;
        Ok(std::fs::read(&self.file)?)
    }
}

pub(crate) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// A UDP packet in IPv4 without a UDP checksum.
pub(crate) fn packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let length = (8 + payload.len()) as u16;
    packet.extend([4, 0]);
    packet.extend(port.to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let total = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&total);
    let sum = checksum(&packet[..20]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet
}

/// A socket in `net` on `local`, which shares the port with netd-tunnel's if it has to.
pub(crate) fn socket(net: &Namespace, local: SocketAddr) -> Result<UdpSocket> {
    net.run(|| Ok(UdpSocket::bind(local)?))
}
