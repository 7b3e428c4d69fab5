//! A real dockerd on a host of the bed, with a containerd and a plugin of its own.
//!
//! dockerd looks for plugins in one directory of the machine: the plugin's socket, and so
//! the driver's name, has the bed's number in it.

mod plugin;

use std::{
    env, fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{host::Host, image, namespace::Namespace, paths, service::Service, wait};

pub use plugin::Plugin;

/// The image that [`Docker::start`] imports.
pub const IMAGE: &str = "test:1";

/// Which dockerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DockerVersion {
    /// 20.10.24 of Debian 12: the sandbox's namespace is made after Join.
    V20_10,
    /// 28.5.2 of Debian forky: before.
    V28_5,
}

impl DockerVersion {
    fn daemon(self) -> Result<PathBuf> {
        let name = if self == Self::V20_10 { "docker-20.10" } else { "docker-28.5" };
        Ok(paths::fetched(name)?.join("usr/sbin"))
    }

    fn client(self) -> Result<PathBuf> {
        let name = if self == Self::V20_10 { "docker-20.10" } else { "docker-28.5-cli" };
        Ok(paths::fetched(name)?.join("usr/bin/docker"))
    }

    fn containerd(self) -> Result<PathBuf> {
        let name = if self == Self::V20_10 { "containerd-1.7" } else { "containerd-2.1" };
        Ok(paths::fetched(name)?.join("usr/bin"))
    }
}

/// Dropped in this order: dockerd, containerd. Containers end with the bed.
#[derive(Debug)]
pub struct Docker {
    version: DockerVersion,
    directory: PathBuf,
    log: PathBuf,
    host_net: PathBuf,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    /// The process, for tests that end it.
    pub dockerd: Service,
    _containerd: Service,
}

/// A container that runs.
#[derive(Debug)]
pub struct Container {
    /// Its full id.
    pub id: String,
    /// Its sandbox.
    pub net: Namespace,
}

/// What `docker` takes at most; a call that hangs is a failure.
const LIMIT: &str = "60";

impl Docker {
    /// Starts containerd and dockerd with `flags`, and imports the image.
    pub fn start(host: &Host, version: DockerVersion, flags: &[&str]) -> Result<Self> {
        Self::start_with(host, version, flags, &[])
    }

    /// The same with variables in dockerd's environment.
    pub fn start_with(
        host: &Host,
        version: DockerVersion,
        flags: &[&str],
        environment: &[(String, String)],
    ) -> Result<Self> {
        let directory = host.directory().join("docker");
        fs::create_dir_all(&directory)?;
        let host_net = host.net.path().to_owned();
        let containerd = start_containerd(host, version, &directory)?;
        let log = host.directory().join("dockerd.log");
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let environment = environment.to_vec();
        let mut command = dockerd(version, &directory, &host_net)?;
        command.args(&flags).envs(environment.iter().cloned());
        let dockerd = Service::start("dockerd", command, &log)?;
        let mut docker = Self {
            version,
            directory,
            log,
            host_net,
            flags,
            environment,
            dockerd,
            _containerd: containerd,
        };
        docker.wait_ready()?;
        docker.import()?;
        Ok(docker)
    }

    /// A command of the client's.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("timeout");
        command.arg(LIMIT).arg(self.version.client()?).args(arguments);
        command.env("DOCKER_HOST", format!("unix://{}/d.sock", self.directory.display()));
        command.env("DOCKER_CONFIG", &self.directory);
        Ok(command)
    }

    /// `docker ARGUMENTS`, and what it prints.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?.stdin(Stdio::null()).output()?;
        let messages = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("docker {arguments:?}: {}\n{messages}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What it says when it fails.
    pub fn refusal(&self, arguments: &[&str]) -> Result<String> {
        match self.run(arguments) {
            Ok(printed) => bail!("docker {arguments:?} should fail, and printed {printed}"),
            Err(error) => Ok(error.to_string()),
        }
    }

    /// `docker run -d ARGUMENTS IMAGE sleep`, without an init that waits to be killed.
    pub fn container(&self, arguments: &[&str]) -> Result<Container> {
        let mut all = vec!["run", "-d", "--stop-timeout", "0"];
        all.extend(arguments);
        all.extend([IMAGE, "/bin/sleep", "100000"]);
        let id = self.run(&all)?;
        let net = self.namespace(&id)?;
        Ok(Container { id, net })
    }

    /// The namespace of a container that runs.
    pub fn namespace(&self, id: &str) -> Result<Namespace> {
        let path = self.inspect(id)?["NetworkSettings"]["SandboxKey"].clone();
        let path = path.as_str().filter(|p| !p.is_empty()).context("no SandboxKey")?;
        Ok(Namespace::of(path))
    }

    /// `docker inspect`
    pub fn inspect(&self, what: &str) -> Result<Value> {
        let all: Value = serde_json::from_str(&self.run(&["inspect", what])?)?;
        all.get(0).cloned().with_context(|| format!("nothing about {what}"))
    }

    /// A container's addresses in a network as Docker says, IPv4 first.
    pub fn addresses(&self, id: &str, network: &str) -> Result<Vec<IpAddr>> {
        let all = self.inspect(id)?["NetworkSettings"]["Networks"][network].clone();
        let texts = ["IPAddress", "GlobalIPv6Address"].map(|key| all[key].clone());
        let texts = texts.iter().filter_map(Value::as_str).filter(|text| !text.is_empty());
        let found: Vec<IpAddr> = texts.map(str::parse).collect::<Result<_, _>>()?;
        ensure!(!found.is_empty(), "{id} has no address in {network}: {all}");
        Ok(found)
    }

    /// Removes containers, running or not.
    pub fn remove(&self, ids: &[&str]) -> Result<()> {
        let mut all = vec!["rm", "-f"];
        all.extend(ids);
        self.run(&all).map(drop)
    }

    /// SIGKILL; containers go on.
    pub fn kill9(&mut self) -> Result<()> {
        self.dockerd.kill9()
    }

    /// Stops dockerd if it runs, starts it again and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.dockerd.stop(Duration::from_secs(30))?;
        let mut command = dockerd(self.version, &self.directory, &self.host_net)?;
        command.args(&self.flags).envs(self.environment.iter().cloned());
        self.dockerd = Service::start("dockerd", command, &self.log)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let info = self.command(&["version"])?;
        let mut info = info;
        let service = &mut self.dockerd;
        let (running, _) = wait::until(Duration::from_secs(40), "dockerd answers", || {
            Ok(match service.check_alive() {
                Err(ended) => Err(ended),
                Ok(()) => {
                    let output = info.output()?;
                    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
                    ensure!(output.status.success(), "{messages}");
                    Ok(())
                }
            })
        })?;
        running
    }

    fn import(&self) -> Result<()> {
        let change = "ENV PATH=/bin";
        let mut command = self.command(&["import", "-c", change, "-", IMAGE])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().context("no stdin")?.write_all(&image::root()?)?;
        ensure!(child.wait()?.success(), "the image can't be imported");
        Ok(())
    }
}

fn start_containerd(host: &Host, version: DockerVersion, directory: &Path) -> Result<Service> {
    let here = directory.display();
    let text = format!(
        "version = 2
root = '{here}/c/root'
state = '{here}/c/state'
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images',
  'io.containerd.cri.v1.runtime', 'io.containerd.nri.v1.nri',
  'io.containerd.snapshotter.v1.aufs', 'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper', 'io.containerd.internal.v1.opt',
  'io.containerd.internal.v1.tracing', 'io.containerd.tracing.processor.v1.otlp']
[grpc]
address = '{here}/c.sock'
[ttrpc]
address = '{here}/c.sock.ttrpc'
"
    );
    fs::write(directory.join("containerd.toml"), text)?;
    let binaries = version.containerd()?;
    let mut command = host.net.command(binaries.join("containerd"));
    command.arg("--config").arg(directory.join("containerd.toml"));
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binaries.display()));
    let service = Service::start("containerd", command, &host.directory().join("containerd.log"))?;
    wait::until(Duration::from_secs(20), "containerd's socket", || {
        let there = directory.join("c.sock").exists();
        ensure!(there, "not there");
        Ok(())
    })?;
    Ok(service)
}

/// Its command line but for the test's own flags.
fn dockerd(version: DockerVersion, directory: &Path, net: &Path) -> Result<Command> {
    let here = directory.display();
    let binaries = version.daemon()?;
    // A killed one leaves it behind, and the next refuses to start if the pid is in use.
    let _ = fs::remove_file(directory.join("d.pid"));
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", net.display()))
        .arg("--")
        .arg(binaries.join("dockerd"))
        .args(["--data-root".into(), format!("{here}/data")])
        .args(["--exec-root".into(), format!("{here}/exec")])
        .args(["--pidfile".into(), format!("{here}/d.pid")])
        .args(["--host".into(), format!("unix://{here}/d.sock")])
        .args(["--containerd".into(), format!("{here}/c.sock")])
        .args(["--config-file".into(), format!("{here}/none.json")])
        .args(["--storage-driver", "overlay2"]);
    fs::write(directory.join("none.json"), "{}")?;
    let containerd = version.containerd()?;
    let path =
        format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", containerd.display(), binaries.display());
    command.env("PATH", path).env("TMPDIR", env::temp_dir());
    Ok(command)
}

/// Flags of a dockerd that leaves the network to netd.
pub const NO_NETWORK: [&str; 3] = ["--bridge=none", "--iptables=false", "--ip6tables=false"];
