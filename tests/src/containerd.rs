//! A real containerd on a host of the bed.

mod config;
pub(crate) mod directories;
mod version;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::version::Version;
use crate::{cri::Cri, hook, host::Host, image, paths, service::Service, wait};

/// A containerd with root, state, sockets and configuration of its own.
#[derive(Debug)]
pub struct Containerd {
    version: Version,
    directory: PathBuf,
    log: PathBuf,
    /// What enters the host: a program and its arguments.
    enter: Vec<String>,
    service: Service,
}

impl Containerd {
    /// Starts it in the host's namespace and imports the images. CNI is whatever
    /// the test puts in [`Containerd::cni_config_of`] and [`Containerd::cni_plugins_of`].
    pub fn start(host: &Host, version: Version) -> Result<Self> {
        let net = format!("--net={}", host.net.path().display());
        let config = |directory: &Path| config::text(version, directory);
        Self::start_with(host, version, vec!["nsenter".to_owned(), net, "--".to_owned()], config)
    }

    /// Starts it in a node with mounts of its own, where pods' namespaces are in /run/netns, as
    /// kubelet's containerd has it.
    pub(crate) fn in_a_node(host: &Host, version: Version, enter: Vec<String>) -> Result<Self> {
        let config = |directory: &Path| {
            let text = config::text(version, directory);
            text.replace(
                "netns_mounts_under_state_dir = true",
                "netns_mounts_under_state_dir = false",
            )
        };
        symlink("/usr/lib/cni/loopback", Self::cni_plugins_of(host).join("loopback"))?;
        Self::start_with(host, version, enter, config)
    }

    fn start_with(
        host: &Host,
        version: Version,
        enter: Vec<String>,
        config: impl Fn(&Path) -> String,
    ) -> Result<Self> {
        let directory = host.directory().join("containerd");
        for part in ["cni", "bin", "nri-plugins", "nri-config"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("config.toml"), config(&directory))?;
        let log = host.directory().join("containerd.log");
        let service = spawn(version, &directory, &enter, &log)?;
        let mut started = Self { version, directory, log, enter, service };
        started.wait_ready()?;
        started.import(&image::tar()?)?;
        Ok(started)
    }

    /// Imports an archive of images, for CRI.
    pub(crate) fn import(&self, images: &Path) -> Result<()> {
        self.ctr(&["-n", "k8s.io", "images", "import", &images.display().to_string()]).map(drop)
    }

    /// Starts it where netd runs, with the hook as its CNI plugin; its network is ready.
    pub fn with_hook(host: &Host, version: Version) -> Result<(Self, Cri)> {
        hook::install(host, &binaries(version)?.join("containerd"))?;
        let containerd = Self::start(host, version)?;
        let cri = containerd.cri()?;
        wait::until(Duration::from_secs(10), "containerd's network", || cri.network_ready())?;
        Ok((containerd, cri))
    }

    /// Where a host's containerd looks for conflists.
    pub fn cni_config_of(host: &Host) -> PathBuf {
        directories::cni_config(host)
    }

    /// Where a host's containerd looks for plugins.
    pub fn cni_plugins_of(host: &Host) -> PathBuf {
        directories::cni_plugins(host)
    }

    /// Where a host's containerd listens for NRI plugins.
    pub(crate) fn nri_socket_of(host: &Host) -> PathBuf {
        host.directory().join("containerd/nri.sock")
    }

    /// Uses the CNI plugins of Debian, for tests of the bed itself.
    pub fn use_stock_plugins(host: &Host, conflist: &str) -> Result<()> {
        let plugins = Self::cni_plugins_of(host);
        fs::create_dir_all(&plugins)?;
        for entry in fs::read_dir("/usr/lib/cni")? {
            let entry = entry?;
            symlink(entry.path(), plugins.join(entry.file_name()))?;
        }
        let config = Self::cni_config_of(host);
        fs::create_dir_all(&config)?;
        Ok(fs::write(config.join("10-stock.conflist"), conflist)?)
    }

    /// Where a host's containerd listens.
    pub fn socket_of(host: &Host) -> PathBuf {
        host.directory().join("containerd/containerd.sock")
    }

    /// A CRI client.
    pub fn cri(&self) -> Result<Cri> {
        Cri::connect(&self.socket())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// Runs `ctr` against it.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let binaries = paths::fetched(self.version.directory())?.join("usr/bin");
        let output = Command::new(binaries.join("ctr"))
            .arg("--address")
            .arg(self.socket())
            .args(arguments)
            .output()
            .context("run ctr")?;
        let messages = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctr {arguments:?}: {messages}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// SIGKILL, as in a crash; pods go on.
    pub fn kill9(&mut self) -> Result<()> {
        self.service.kill9()
    }

    /// Stops it if it runs, starts it again, and waits until it serves CRI.
    pub fn restart(&mut self) -> Result<()> {
        self.service.stop(Duration::from_secs(20))?;
        self.service = spawn(self.version, &self.directory, &self.enter, &self.log)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let socket = self.socket();
        let service = &mut self.service;
        let (running, _) = wait::until(Duration::from_secs(30), "containerd serves CRI", || {
            // An ended process is said at once, not after the limit.
            Ok(match service.check_alive() {
                Err(ended) => Err(ended),
                Ok(()) => Ok(Cri::connect(&socket)?.version()?),
            })
        })?;
        running.map(drop)
    }
}

fn binaries(version: Version) -> Result<PathBuf> {
    Ok(paths::fetched(version.directory())?.join("usr/bin"))
}

fn spawn(version: Version, directory: &Path, enter: &[String], log: &Path) -> Result<Service> {
    let binaries = binaries(version)?;
    let (program, arguments) = enter.split_first().context("nothing enters the host")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(binaries.join("containerd"))
        .arg("--config")
        .arg(directory.join("config.toml"))
        // The shim has to be the one of this version.
        .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binaries.display()))
        .env("TMPDIR", directory);
    Service::start("containerd", command, log)
}
