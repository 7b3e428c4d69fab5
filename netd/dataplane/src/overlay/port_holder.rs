//! Who has a UDP port that a device of the overlay needs: the kernel says only that it is taken.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use netlink_packet_route::link::InfoKind;

use super::worker::Overlay;
use crate::netlink::{
    Protocol, Refusal, Socket,
    link::get_all,
    listening::{self, BoundSocket},
    overlay_device::{self, HeldDevice},
    wireguard,
};
use netd_domain::{
    IfName,
    overlay::{DeviceKind, OverlayDevice},
};

impl Overlay {
    /// What the kernel said when it refused a device its port, with the port and its holder.
    pub(super) fn explain(&mut self, wanted: &OverlayDevice, refusal: &Refusal) -> Option<String> {
        let port = match &wanted.kind {
            DeviceKind::Vxlan(vxlan) => vxlan.port,
            DeviceKind::Wireguard { port, .. } => *port,
            DeviceKind::Ipip { .. } | DeviceKind::Tun => return None,
        };
        match (refusal.errno, &wanted.kind) {
            (libc::EADDRINUSE, _) => Some(self.taken(port, &wanted.name, &refusal.to_string())),
            // Two devices can't have one VNI on one port.
            (libc::EEXIST, DeviceKind::Vxlan(vxlan)) => {
                let is_it = |held: &HeldDevice| {
                    held.vxlan.as_ref().is_some_and(|h| (h.vni, h.port) == (vxlan.vni, port))
                };
                let other = self.other_vxlans(&wanted.name).ok()?.into_iter().find(is_it)?;
                Some(format!(
                    "{refusal}: the device {} has VNI {} on UDP port {port}; delete it (ip link \
                     delete {}), or set another Backend.VNI or Backend.Port in the cluster's \
                     configuration",
                    other.name, vxlan.vni, other.name
                ))
            }
            _ => None,
        }
    }

    /// That a port is taken, and by whom. `device`: needs it, and does not count.
    pub(super) fn taken(&mut self, port: u16, device: &IfName, refusal: &str) -> String {
        let holder = match self.holder(port, device) {
            Ok(holder) => holder,
            Err(error) => format!("a holder that can't be looked for ({error})"),
        };
        format!(
            "{refusal}: UDP port {port} is taken by {holder}; stop it, or set another port of the \
             Backend in the cluster's configuration"
        )
    }

    fn holder(&mut self, port: u16, device: &IfName) -> io::Result<String> {
        let mut sockets = Socket::open(Protocol::Sockets)?;
        let bound = listening::udp_at(&mut sockets, port)?;
        let process = bound.iter().find_map(|socket| process_with(socket.inode));
        if let Some(process) = process {
            return Ok(process);
        }
        let has_port =
            |held: &HeldDevice| held.up && held.vxlan.as_ref().is_some_and(|h| h.port == port);
        if let Some(other) = self.other_vxlans(device)?.into_iter().find(has_port) {
            let vni = other.vxlan.map_or(0, |vxlan| vxlan.vni);
            return Ok(format!("the vxlan device {} (VNI {vni})", other.name));
        }
        if let Some(name) = self.wireguard_with(port, device)? {
            return Ok(format!("the wireguard device {name}"));
        }
        Ok(match bound.first() {
            Some(BoundSocket { uid, .. }) => format!(
                "a socket of user {uid} that is the kernel's own or a process's in another PID \
                 namespace"
            ),
            None => "a socket that the kernel does not show".to_owned(),
        })
    }

    fn other_vxlans(&mut self, device: &IfName) -> io::Result<Vec<HeldDevice>> {
        let all = self.kernel.socket.dump(get_all(Some(InfoKind::Vxlan)))?;
        let all = all.iter().filter_map(overlay_device::read);
        Ok(all.filter(|held| held.vxlan.is_some() && held.name != device.as_str()).collect())
    }

    fn wireguard_with(&mut self, port: u16, device: &IfName) -> io::Result<Option<IfName>> {
        let Ok(Some(_)) = self.wireguard() else { return Ok(None) };
        let all = self.kernel.socket.dump(get_all(Some(InfoKind::Wireguard)))?;
        let all = all.iter().filter_map(overlay_device::read);
        let others = all.filter(|held| held.kind == "wireguard" && held.name != device.as_str());
        for name in others.filter_map(|held| held.name.parse::<IfName>().ok()) {
            let Ok(Some(generic)) = self.wireguard() else { continue };
            let answer = generic.socket.dump_raw(generic.family, &wireguard::get_device(&name))?;
            if wireguard::read_device(&answer).port == port {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// The process that has the socket, if /proc shows it. Only asked after a refusal: it looks at
/// every descriptor of every process.
fn process_with(inode: u32) -> Option<String> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let pids = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let has_it = |process: &Path| {
        let descriptors = fs::read_dir(process.join("fd")).ok()?;
        let mut targets = descriptors.flatten().map(|entry| fs::read_link(entry.path()));
        targets.any(|target| target.is_ok_and(|target| target == wanted)).then_some(())
    };
    let is_pid = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
        name.iter().all(u8::is_ascii_digit)
    };
    let process = pids.filter(is_pid).find(|process| has_it(process).is_some())?;
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let pid = process.file_name()?.to_string_lossy();
    Some(format!("the process {} (pid {pid})", name.trim()))
}
