//! Kernel settings: checked, set, reported.
//!
//! `/proc/sys/net` shows the settings of the reading thread's namespace.
//!
//! `rp_filter` is left as it is: pods' addresses are routed where their packets come
//! from, which even its strict mode accepts. `accept_ra` needs nothing on the host's
//! ends: a link that forwards ignores router advertisements unless set to 2.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::{
    DataplaneError, Repair, RepairKind,
    exec::namespace::{self, Netns},
};
use netd_domain::{IfName, NetworkWiring};

/// `/proc/sys/net`, which a container that is not privileged sees read-only.
const PROC_NET: &str = "/proc/sys/net";
/// Where such a container has the same of the machine (a hostPath of deploy/kubernetes).
const HOST_PROC_NET: &str = "/host/proc/sys/net";

/// The directory of the settings: one that can be written, if there is any.
pub fn net_settings() -> &'static Path {
    static FOUND: LazyLock<&Path> =
        LazyLock::new(|| writable_of([PROC_NET, HOST_PROC_NET]).unwrap_or(Path::new(PROC_NET)));
    *FOUND
}

fn writable_of(paths: [&'static str; 2]) -> Option<&'static Path> {
    let is_writable = |path: &&Path| {
        statvfs(*path).is_ok_and(|found| !found.flags().contains(FsFlags::ST_RDONLY))
    };
    paths.map(Path::new).into_iter().find(is_writable)
}

/// A kernel setting and the value that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    path: PathBuf,
    value: &'static str,
}

/// Path below `/proc/sys/net`. A name may hold dots: no dotted form here.
fn setting(parts: &[&str], value: &'static str) -> Setting {
    let mut path = net_settings().to_owned();
    path.extend(parts);
    Setting { path, value }
}

/// The settings that a network needs; of an overlay's also what leads to other nodes.
pub(crate) fn of_network(network: &NetworkWiring) -> Vec<Setting> {
    let v6 = network.ranges().any(|net| net.addr().is_ipv6());
    let v4 = network.ranges().any(|net| net.addr().is_ipv4());
    let mut all = Vec::new();
    if v4 {
        all.push(setting(&["ipv4", "ip_forward"], "1"));
    }
    if v6 {
        all.push(setting(&["ipv6", "conf", "all", "forwarding"], "1"));
    }
    if let Some(bridge) = &network.bridge {
        let name = bridge.name.as_str();
        if v4 {
            all.extend(of_forwarding_link(&bridge.name));
            // Host ports from 127.0.0.1; the firewall keeps 127/8 of the pods out.
            all.push(setting(&["ipv4", "conf", name, "route_localnet"], "1"));
        }
        if v6 {
            all.push(setting(&["ipv6", "conf", name, "disable_ipv6"], "0"));
            all.push(setting(&["ipv6", "conf", name, "accept_ra"], "0"));
            // Without a link-local address of its own the node can't ask for pods'
            // neighbours, and duplicate detection would hold it back for a second.
            all.push(setting(&["ipv6", "conf", name, "accept_dad"], "0"));
        }
    }
    all
}

/// What a link needs whose IPv4 packets the host forwards: `ip_forward` sets it on every link, but
/// a later `default.forwarding` of 0 or an administrator may have taken it from this one. IPv6
/// asks for all links' setting only.
pub(crate) fn of_forwarding_link(name: &IfName) -> Vec<Setting> {
    vec![setting(&["ipv4", "conf", name.as_str(), "forwarding"], "1")]
}

/// The settings that an overlay device needs.
pub(crate) fn of_overlay_device(name: &IfName, v4: bool, v6: bool) -> Vec<Setting> {
    let mut all = if v4 { of_forwarding_link(name) } else { Vec::new() };
    if v6 {
        let of = |key, value| setting(&["ipv6", "conf", name.as_str(), key], value);
        all.extend([of("disable_ipv6", "0"), of("accept_ra", "0")]);
    }
    all
}

/// Whether a setting has its value.
pub(crate) fn holds(setting: &Setting) -> Result<bool, DataplaneError> {
    match fs::read_to_string(&setting.path) {
        Ok(text) => Ok(text.trim() == setting.value),
        Err(e) => Err(broken(setting, &e)),
    }
}

/// Sets those that have another value.
pub(crate) fn ensure(settings: &[Setting]) -> Result<Vec<Repair>, DataplaneError> {
    let mut repairs = Vec::new();
    for setting in settings {
        if holds(setting)? {
            continue;
        }
        if setting.path.ends_with("ipv6/conf/all/forwarding") {
            repairs.extend(keep_advertised_routes());
        }
        repairs.push(set(setting)?);
    }
    Ok(repairs)
}

fn set(setting: &Setting) -> Result<Repair, DataplaneError> {
    fs::write(&setting.path, setting.value).map_err(|e| broken(setting, &e))?;
    let detail = format!("set {} to {}", setting.path.display(), setting.value);
    Ok(Repair { kind: RepairKind::Sysctl, detail })
}

/// A host that forwards IPv6 ignores router advertisements, and so would lose the
/// default route it got from one, unless its links are told otherwise (value 2).
fn keep_advertised_routes() -> Vec<Repair> {
    let Ok(links) = fs::read_dir(net_settings().join("ipv6/conf")) else { return Vec::new() };
    let names = links.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let settings = names.map(|name| setting(&["ipv6", "conf", &name, "accept_ra"], "2"));
    let default = |s: &Setting| fs::read_to_string(&s.path).is_ok_and(|text| text.trim() == "1");
    // Not on what comes later: pods could advertise routers to the host.
    let kept = settings.filter(|s| !s.path.ends_with("default/accept_ra")).filter(default);
    kept.filter_map(|s| set(&s).ok()).collect()
}

/// As [`keep_advertised_routes`], for a link that came up later; whether something was set.
///
/// # Errors
/// The system's.
pub(crate) fn keep_advertised_routes_of(name: &str) -> Result<bool, DataplaneError> {
    let accept = |value| setting(&["ipv6", "conf", name, "accept_ra"], value);
    let forwards = setting(&["ipv6", "conf", "all", "forwarding"], "1");
    if !holds(&forwards)? || !holds(&accept("1"))? {
        return Ok(false);
    }
    set(&accept("2")).map(|_| true)
}

/// Lets packets between 127.0.0.1 and a routed pod pass its host side.
pub(crate) fn allow_local_routes(host: &IfName) -> Result<(), DataplaneError> {
    set(&local_routes(host)).map(drop)
}

/// Whether they may.
pub(crate) fn local_routes_allowed(host: &IfName) -> bool {
    holds(&local_routes(host)).unwrap_or(false)
}

fn local_routes(host: &IfName) -> Setting {
    setting(&["ipv4", "conf", host.as_str(), "route_localnet"], "1")
}

/// Switches IPv6 on for the host's side of an endpoint, where new links have it off.
pub(crate) fn enable_host_ipv6(host: &IfName) -> Result<(), DataplaneError> {
    set(&setting(&["ipv6", "conf", host.as_str(), "disable_ipv6"], "0")).map(drop)
}

/// Switches IPv6 on for an interface of a sandbox that was made with it off.
pub(crate) fn enable_ipv6(netns: &Netns, ifname: &IfName) -> Result<(), DataplaneError> {
    let setting = setting(&["ipv6", "conf", ifname.as_str(), "disable_ipv6"], "0");
    match namespace::run_in(netns.as_fd(), || set(&setting)) {
        Ok(result) => result.map(drop),
        Err(e) => Err(broken(&setting, &e)),
    }
}

/// The running kernel's release, as `uname -r` shows it.
///
/// # Errors
/// The system's.
pub fn kernel_release() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned())
}

fn broken(setting: &Setting, e: &io::Error) -> DataplaneError {
    let path = setting.path.display();
    if e.kind() == io::ErrorKind::NotFound && setting.path.starts_with(net_settings().join("ipv6"))
    {
        return DataplaneError::Unsupported {
            what: format!("IPv6 is off: {path} is missing"),
            hint: "boot without ipv6.disable=1, or give the network only IPv4 pools".into(),
        };
    }
    DataplaneError::Io {
        what: format!("{path} has to be {}", setting.value),
        reason: e.to_string(),
    }
}
