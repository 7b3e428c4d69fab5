//! What everybody writes first: a packet a read, a datagram a packet.

use std::{
    ffi::c_char,
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result, ensure};

use crate::setup::{Bench, Node, Running};

pub(crate) fn start(bench: &Bench, a: &Node, b: &Node) -> Result<Running> {
    let mut running = Running::default();
    for (node, other) in [(a, b), (b, a)] {
        let mut command = node.net.command(std::env::current_exe()?);
        command.args(["--naive", &node.outer(), &other.outer()]);
        running.processes.push(bench.service("naive", node, command)?);
        node.until("ip link show flannel0")?;
        node.address(1472)?;
    }
    Ok(running)
}

/// The process: `--naive OWN PEER`.
pub(crate) fn run() -> Result<()> {
    let addresses: Vec<SocketAddr> =
        std::env::args().skip(2).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [own, peer] = addresses[..] else { anyhow::bail!("two addresses are needed") };
    let tun = open().context("tun")?;
    let socket = UdpSocket::bind(own)?;
    socket.connect(peer)?;
    let (from, to) = (tun.try_clone()?, socket.try_clone()?);
    std::thread::spawn(move || -> Result<()> {
        let mut buffer = [0; 65536];
        loop {
            let length = (&from).read(&mut buffer)?;
            let _ = to.send(&buffer[..length]);
        }
    });
    let mut buffer = [0; 65536];
    loop {
        if let Ok(length) = socket.recv(&mut buffer) {
            let _ = (&tun).write(&buffer[..length]);
        }
    }
}

fn open() -> Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"flannel0") {
        *to = *from as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: an open descriptor and a whole ifreq.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) };
    ensure!(made == 0, "{}", std::io::Error::last_os_error());
    Ok(file)
}
