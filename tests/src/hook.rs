//! The hook as built, called as a runtime calls it.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};
use netd_api::v1::AttachRequest;
use serde_json::{Value, json};

use crate::{containerd::directories, daemon::Daemon, host::Host, namespace::Namespace, paths};

/// The plugin's name in a conflist.
pub const PLUGIN: &str = "netd-hook";

/// A plugin's configuration for a host's netd, as in its conflist.
pub fn plugin_config(host: &Host) -> Value {
    json!({
        "type": PLUGIN,
        "socket": Daemon::socket_of(host),
        "capabilities": {
            "portMappings": true, "bandwidth": true, "dns": true,
            "io.kubernetes.cri.pod-annotations": true,
        },
    })
}

/// `netd-hook install`, into the directories of the host's containerd, for the CNI version that
/// this program of containerd speaks.
pub fn install(host: &Host, containerd: &Path) -> Result<()> {
    let plugins = directories::cni_plugins(host);
    let config = directories::cni_config(host);
    fs::create_dir_all(&plugins)?;
    fs::create_dir_all(&config)?;
    // containerd itself executes this one to bring lo up (its default, on both versions).
    symlink("/usr/lib/cni/loopback", plugins.join("loopback"))?;
    let mut command = host.net.command(paths::built("netd-hook")?);
    command.arg("install").arg("--bin-dir").arg(plugins).arg("--conf-dir").arg(config);
    command.arg("--socket").arg(Daemon::socket_of(host)).arg("--containerd").arg(containerd);
    let output = command.output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "netd-hook install: {messages}");
    Ok(())
}

/// What a plugin answered: the result of a success, or CNI's error.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code was 0.
    pub success: bool,
    /// What was on stdout, `null` if nothing.
    pub json: Value,
    /// What was on stderr.
    pub messages: String,
}

impl Answer {
    /// CNI's error code, if it is an error.
    pub fn code(&self) -> Option<u64> {
        if self.success { None } else { self.json["code"].as_u64() }
    }

    /// The result, or an error with all that was said.
    pub fn ok(self) -> Result<Value> {
        if !self.success {
            bail!("the hook refused: {} {}", self.json, self.messages);
        }
        Ok(self.json)
    }
}

/// One call of the hook.
#[derive(Debug, Clone)]
pub struct Call {
    /// CNI_COMMAND.
    pub command: String,
    /// The other CNI_ variables, all of them.
    pub variables: Vec<(String, String)>,
    /// The configuration.
    pub stdin: Vec<u8>,
}

impl Call {
    /// Executes the hook on the host, which has all its input then.
    pub fn spawn(&self, host: &Host) -> Result<Child> {
        let mut child = host
            .net
            .command(paths::plugin()?)
            .env("CNI_COMMAND", &self.command)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        // A hook that refuses early doesn't read it.
        let _ = stdin.write_all(&self.stdin);
        Ok(child)
    }

    /// Executes the hook on the host and waits for it.
    pub fn execute(&self, host: &Host) -> Result<Answer> {
        let output = self.spawn(host)?.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let json = match printed.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)
                .with_context(|| format!("the hook printed no JSON: {text}"))?,
        };
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Answer { success: output.status.success(), json, messages })
    }
}

/// The addresses of an ADD's result, v4 first.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let ips = ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
    let mut ips: Vec<IpAddr> = ips.collect();
    ips.sort();
    ips
}

/// A bare network namespace that stands for a pod; its network comes from the hook.
#[derive(Debug)]
pub struct Sandbox {
    /// CNI_CONTAINERID.
    pub id: String,
    /// Its namespace.
    pub net: Namespace,
    /// Addresses that the last ADD gave, v4 first.
    pub ips: Vec<IpAddr>,
    /// Plugin configuration; tests change it at will.
    pub config: Value,
    /// CNI_ARGS.
    pub arguments: String,
    netns: PathBuf,
}

impl Sandbox {
    /// A namespace without a network.
    pub fn bare(host: &Host, name: &str) -> Result<Self> {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let id = format!("{name}-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let netns = host.directory().join("sandboxes").join(&id);
        let mut config = plugin_config(host);
        config["cniVersion"] = json!("1.1.0");
        config["name"] = json!("default");
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME={name};K8S_POD_UID=uid-{id}"
        );
        let net = Namespace::create(&netns)?;
        Ok(Self { id, net, ips: Vec::new(), config, arguments, netns })
    }

    /// A namespace attached to the network `default`.
    pub fn attached(host: &Host, name: &str) -> Result<Self> {
        let mut sandbox = Self::bare(host, name)?;
        sandbox.add(host)?;
        Ok(sandbox)
    }

    /// A namespace attached to `network`.
    pub fn attached_to(host: &Host, name: &str, network: &str) -> Result<Self> {
        let mut sandbox = Self::bare(host, name)?;
        sandbox.config["network"] = json!(network);
        sandbox.add(host)?;
        Ok(sandbox)
    }

    /// A namespace attached with host ports: (host, container, "tcp" or "udp", host IP or "").
    pub fn with_ports(host: &Host, name: &str, ports: &[(u16, u16, &str, &str)]) -> Result<Self> {
        let mut sandbox = Self::bare(host, name)?;
        let mappings = ports.iter().map(|(host_port, container_port, protocol, host_ip)| {
            json!({"hostPort": host_port, "containerPort": container_port,
                   "protocol": protocol, "hostIP": host_ip})
        });
        sandbox.config["runtimeConfig"] = json!({"portMappings": mappings.collect::<Vec<_>>()});
        sandbox.add(host)?;
        Ok(sandbox)
    }

    /// What attaches it to `default` over gRPC.
    pub fn request(&self) -> AttachRequest {
        AttachRequest {
            sandbox_id: self.id.clone(),
            netns_path: self.netns.display().to_string(),
            ..AttachRequest::default()
        }
    }

    /// Takes the namespace away behind everybody's back: no DEL.
    pub fn vanish(&mut self) {
        self.net = Namespace::of(&self.netns);
    }

    /// Another namespace at the same path, as when a runtime recreated it.
    pub fn replace_namespace(&mut self) -> Result<()> {
        self.vanish();
        self.net = Namespace::create(&self.netns)?;
        Ok(())
    }

    /// A call about this sandbox.
    pub fn call(&self, command: &str) -> Call {
        let variables = [
            ("CNI_CONTAINERID", self.id.clone()),
            ("CNI_NETNS", self.netns.display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/nowhere".to_owned()),
            ("CNI_ARGS", self.arguments.clone()),
        ];
        Call {
            command: command.to_owned(),
            variables: variables.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            stdin: self.config.to_string().into_bytes(),
        }
    }

    /// ADD, which has to succeed.
    pub fn add(&mut self, host: &Host) -> Result<Value> {
        let result = self.call("ADD").execute(host)?.ok()?;
        self.ips = addresses(&result);
        Ok(result)
    }

    /// DEL, which has to succeed.
    pub fn del(&self, host: &Host) -> Result<()> {
        self.call("DEL").execute(host)?.ok().map(drop)
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Result<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv4()).copied().context("no IPv4 address")
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Result<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv6()).copied().context("no IPv6 address")
    }
}
