//! The hook's Docker front, as a service beside dockerd.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{daemon::Daemon, host::Host, paths, service::Service, wait};

/// Where every dockerd looks.
const DIRECTORY: &str = "/run/docker/plugins";
const PREFIX: &str = "netd-bed-";

/// A plugin with a socket, and so a driver's name, of its own.
#[derive(Debug)]
pub struct Plugin {
    /// For `-d` and `--ipam-driver`.
    pub driver: String,
    /// The process, for tests that end it.
    pub service: Service,
    host_net: PathBuf,
    netd: PathBuf,
    log: PathBuf,
}

impl Plugin {
    /// Starts it; netd need not run.
    pub fn start(host: &Host) -> Result<Self> {
        sweep();
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let driver = format!("{PREFIX}{}-{counter}", process::id());
        let (host_net, netd) = (host.net.path().to_owned(), Daemon::socket_of(host));
        let log = host.directory().join("docker-hook.log");
        let service = spawn(&driver, &host_net, &netd, &log)?;
        let plugin = Self { driver, service, host_net, netd, log };
        plugin.wait_ready()?;
        Ok(plugin)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.driver)
    }

    /// After its end.
    pub fn respawn(&mut self) -> Result<()> {
        self.service = spawn(&self.driver, &self.host_net, &self.netd, &self.log)?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<()> {
        let ready = || Ok(UnixStream::connect(self.socket())?);
        wait::until(Duration::from_secs(10), "the plugin's socket", ready).map(drop)
    }

    /// One call as dockerd makes it: the status code and the answer.
    pub fn call(&self, method: &str, body: &[u8]) -> Result<(u16, Value)> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: plugin.moby.localhost\r\nConnection: close\r\n\
             Accept: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        // A document that is too long is refused before its end.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        // The answer may be cut short by a reset when what was sent was not read.
        let read = stream.read_to_end(&mut answer);
        ensure!(!answer.is_empty(), "{method}: no answer: {read:?}");
        let text = String::from_utf8_lossy(&answer);
        let (head, document) = text.split_once("\r\n\r\n").context("no end of the head")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        let document = serde_json::from_str(document)
            .with_context(|| format!("{method}: no JSON: {document}"))?;
        Ok((status, document))
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.service.kill9();
        let _ = fs::remove_file(self.socket());
    }
}

fn socket(driver: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{driver}.sock"))
}

fn spawn(driver: &str, net: &Path, netd: &Path, log: &Path) -> Result<Service> {
    let mut command = process::Command::new("nsenter");
    command.arg(format!("--net={}", net.display())).arg("--").arg(paths::built("netd-hook")?);
    command.arg("docker").arg("--plugin-socket").arg(socket(driver)).arg("--netd-socket").arg(netd);
    Service::start("netd-hook docker", command, log)
}

/// Removes sockets of test processes that are gone.
fn sweep() {
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
