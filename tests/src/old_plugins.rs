//! Pods as flannel's or another conflist left them: made by the real `bridge` and
//! `host-local` plugins, which netd did not call.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{hook::Sandbox, host::Host, namespace::Namespace, paths};

/// Directories with `bridge` and `host-local`: Debian 12's and the newest that is fetched.
pub fn directories() -> Result<Vec<PathBuf>> {
    Ok(vec![PathBuf::from("/usr/lib/cni"), paths::fetched("cni-1.9")?.join("usr/lib/cni")])
}

/// The directory in which `host-local` keeps what it gave out on a host.
pub fn data_dir(host: &Host) -> PathBuf {
    host.directory().join("cni/networks")
}

/// A conflist's plugin that netd replaces.
#[derive(Debug, Clone)]
pub struct OldNetwork {
    /// Where the plugins are.
    pub plugins: PathBuf,
    /// The network's name: `host-local`'s directory.
    pub name: String,
    /// The bridge.
    pub bridge: String,
    /// A subnet for each family.
    pub subnets: Vec<String>,
}

impl OldNetwork {
    /// As flannel's conflist has it: `cbr0` on `cni0`.
    pub fn cbr0(plugins: &Path, subnets: &[&str]) -> Self {
        let subnets = subnets.iter().map(|subnet| (*subnet).to_owned()).collect();
        let (name, bridge) = ("cbr0".to_owned(), "cni0".to_owned());
        Self { plugins: plugins.to_owned(), name, bridge, subnets }
    }

    fn config(&self, host: &Host) -> Value {
        let ranges: Vec<Value> = self.subnets.iter().map(|net| json!([{"subnet": net}])).collect();
        let v6 = |net: &&String| net.contains(':');
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        routes.extend(self.subnets.iter().find(v6).map(|_| json!({"dst": "::/0"})));
        json!({
            "cniVersion": "0.4.0", "name": self.name, "type": "bridge", "bridge": self.bridge,
            "isGateway": true, "hairpinMode": true, "mtu": 1450,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": routes,
                     "dataDir": data_dir(host)},
        })
    }

    /// The file in which `host-local` keeps that an address is given out.
    pub fn reservation(&self, host: &Host, ip: IpAddr) -> PathBuf {
        data_dir(host).join(&self.name).join(ip.to_string())
    }
}

/// A pod of such a network.
#[derive(Debug)]
pub struct OldPod {
    /// The container id that the plugins were given.
    pub id: String,
    /// Its namespace.
    pub net: Namespace,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    path: PathBuf,
}

impl OldPod {
    /// Makes a namespace and calls ADD.
    pub fn add(host: &Host, network: &OldNetwork, id: &str) -> Result<Self> {
        let path = host.directory().join("old-pods").join(id);
        let net = Namespace::create(&path)?;
        let mut pod = Self { id: id.to_owned(), net, ips: Vec::new(), path };
        fs::create_dir_all(data_dir(host))?;
        let answer = pod.call(host, network, "ADD")?;
        let ips = answer["ips"].as_array().into_iter().flatten();
        let ips = ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
        pod.ips = ips.collect();
        pod.ips.sort();
        ensure!(!pod.ips.is_empty(), "no address: {answer}");
        Ok(pod)
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Result<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv4()).copied().context("no IPv4 address")
    }

    /// DEL with the old plugins.
    pub fn del(&self, host: &Host, network: &OldNetwork) -> Result<()> {
        self.call(host, network, "DEL").map(drop)
    }

    /// DEL with netd's plugin, as a runtime calls it once netd's conflist is the first one.
    pub fn del_by_netd(&self, host: &Host) -> Result<()> {
        let mut call = Sandbox::bare(host, "stand-in")?.call("DEL");
        for (name, value) in &mut call.variables {
            match name.as_str() {
                "CNI_CONTAINERID" => self.id.clone_into(value),
                "CNI_NETNS" => *value = self.path.display().to_string(),
                _ => {}
            }
        }
        call.execute(host)?.ok().map(drop)
    }

    /// Takes the namespace away: no DEL.
    pub fn vanish(&mut self) {
        self.net = Namespace::of(&self.path);
    }

    /// Removes the namespace's path while a process goes on living in it.
    pub fn unmount(&self) -> Result<()> {
        nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH)?;
        Ok(fs::remove_file(&self.path)?)
    }

    fn call(&self, host: &Host, network: &OldNetwork, command: &str) -> Result<Value> {
        let mut child = host
            .net
            .command(network.plugins.join("bridge"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &self.id)
            .env("CNI_NETNS", &self.path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &network.plugins)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let config = network.config(host).to_string();
        child.stdin.take().context("no stdin")?.write_all(config.as_bytes())?;
        let output = child.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "bridge {command} of {}: {printed}", self.id);
        if printed.trim().is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&printed)?)
    }
}
