//! The plainest userspace tunnel, as flannel's udp backend is one: a packet a read, a
//! datagram a packet.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::{Result, ensure};
use testbed::{Bed, Host, Namespace};

const PORT: u16 = 8285;
/// 1500 without IPv4's 20 and UDP's 8.
const MTU: usize = 1472;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// Two nodes with a tun device each; the threads end with the process.
pub(crate) struct Naive {
    pub from: Host,
    pub to: Host,
    pub ip: IpAddr,
}

impl Naive {
    pub(crate) fn start(bed: &Bed) -> Result<Self> {
        let (from, to) = (bed.host("naive1")?, bed.host("naive2")?);
        node(&from, "10.7.0.1", &to)?;
        node(&to, "10.7.0.2", &from)?;
        Ok(Self { from, to, ip: [10, 7, 0, 2].into() })
    }
}

fn node(host: &Host, address: &str, peer: &Host) -> Result<()> {
    let socket = host.net.run(|| Ok(UdpSocket::bind((host.v4, PORT))?))?;
    let tun = open_tun(&host.net)?;
    host.net
        .sh(&format!("ip link set naive mtu {MTU} up; ip address add {address}/24 dev naive"))?;
    let to = SocketAddr::new(peer.v4.into(), PORT);
    let (mut reader, mut writer) = (tun.try_clone()?, tun);
    let receiver = socket.try_clone()?;
    thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok(length) = reader.read(&mut packet) {
            let _ = socket.send_to(packet.get(..length).unwrap_or_default(), to);
        }
    });
    thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((length, _)) = receiver.recv_from(&mut packet) {
            let _ = writer.write(packet.get(..length).unwrap_or_default());
        }
    });
    Ok(())
}

fn open_tun(net: &Namespace) -> Result<File> {
    net.run(|| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        let mut request = [0u8; 40];
        for (to, from) in request.iter_mut().zip(b"naive") {
            *to = *from;
        }
        // IFF_TUN | IFF_NO_PI
        let flags = 0x1001u16.to_ne_bytes();
        request[16..18].copy_from_slice(&flags);
        // SAFETY: an ifreq of the kernel's size, which outlives the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, request.as_ptr()) };
        ensure!(done == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
        Ok(file)
    })
}
