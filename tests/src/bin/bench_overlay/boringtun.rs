//! boringtun's own command between two nodes with a pod on a bridge each, for
//! comparison with netd's wireguard backend.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use testbed::{Bed, cluster::flannel::FlannelNode, service::Service, wait};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::handmade::{self, Way};

const PORT: u16 = 51820;
/// As netd's: 1500 without IPv6's 40, UDP's 8 and WireGuard's 32.
const MTU: u32 = 1420;

pub(crate) struct Boringtun {
    // It ends before its nodes do.
    _processes: Vec<Process>,
    pub way: Way,
}

struct Process {
    _service: Service,
    socket: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

impl Boringtun {
    pub(crate) fn start(bed: &Bed, program: &Path) -> Result<Self> {
        let nodes = handmade::nodes(bed, "bt")?;
        let [one, two] = &nodes;
        let processes = vec![start(bed, program, one, two)?, start(bed, program, two, one)?];
        Ok(Self { _processes: processes, way: handmade::way(nodes) })
    }
}

fn start(bed: &Bed, program: &Path, here: &FlannelNode, there: &FlannelNode) -> Result<Process> {
    // Its sockets are in one directory for all.
    let device = format!("{}-{}", here.host.name, std::process::id());
    let mut command = here.host.net.command(program);
    command.args(["--foreground", "--disable-drop-privileges", "--verbosity", "error", &device]);
    let log = bed.directory().join(format!("{}.log", here.host.name));
    let service = Service::start("boringtun", command, &log)?;
    let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
    let process = Process { _service: service, socket };
    let connect = || Ok(UnixStream::connect(&process.socket)?);
    let (stream, _) = wait::until(Duration::from_secs(10), "boringtun listens", connect)?;
    configure(stream, here, there)?;
    here.host.net.sh(&format!(
        "ip link delete flannel.1; ip link set {device} mtu {MTU} up
         ip route replace {} dev {device}",
        there.subnet
    ))?;
    handmade::set_mtu(here, MTU)?;
    Ok(process)
}

/// WireGuard's cross-platform interface.
fn configure(mut stream: UnixStream, here: &FlannelNode, there: &FlannelNode) -> Result<()> {
    let key = |node: &FlannelNode| StaticSecret::from([node.host.v4.octets()[3]; 32]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    write!(
        stream,
        "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\nendpoint={}:{PORT}\n\
         allowed_ip={}\n\n",
        hex(&key(here).to_bytes()),
        hex(PublicKey::from(&key(there)).as_bytes()),
        there.host.v4,
        there.subnet,
    )?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = [0; 100];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
    ensure!(answer.contains("errno=0"), "boringtun refused: {answer}");
    Ok(())
}
