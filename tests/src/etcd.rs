//! A real etcd cluster, whose members can be killed, paused, restored one by one.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{paths, service::Service, wait};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// How long a cluster may take to have a leader. An election alone takes up to 2 s.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);

/// Where a member listens.
#[derive(Debug, Clone)]
pub struct Place {
    /// The address, which has to be there.
    pub address: IpAddr,
    /// The network namespace that has it; `None` is the test's own.
    pub net: Option<PathBuf>,
}

/// PEM files of a cluster that speaks TLS and wants its clients' certificates.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Who signs both sides' certificates.
    pub ca: PathBuf,
    /// The members' certificate (for their addresses), and that of the bed's etcdctl.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct EtcdSetup {
    /// One for each member.
    pub places: Vec<Place>,
    /// Whether members write with fsync. What was acknowledged is kept over a SIGKILL
    /// without it, too: only the machine's crash loses it.
    pub durable: bool,
    /// TLS for clients.
    pub tls: Option<TlsFiles>,
    /// More arguments of etcd.
    pub arguments: Vec<String>,
}

impl EtcdSetup {
    /// Members on loopback addresses that nobody else uses.
    pub fn on_loopback(members: usize) -> Self {
        static CLUSTERS: AtomicUsize = AtomicUsize::new(0);
        let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed) % 31;
        let [_, _, high, low] = process::id().to_be_bytes();
        let place = |member: usize| {
            let last = u8::try_from(cluster * 8 + member + 1).unwrap_or(u8::MAX);
            // 127.0 is left to others.
            Place { address: Ipv4Addr::new(127, high | 1, low, last).into(), net: None }
        };
        Self::on((0..members).map(place).collect())
    }

    /// Members at these places.
    pub fn on(places: Vec<Place>) -> Self {
        Self { places, durable: false, tls: None, arguments: Vec::new() }
    }
}

/// A running cluster. Members are numbered from 0. Its processes end when it is
/// dropped, and its data goes; the members' logs stay in its directory.
#[derive(Debug)]
pub struct EtcdCluster {
    directory: PathBuf,
    setup: EtcdSetup,
    programs: PathBuf,
    members: Vec<Option<Service>>,
}

impl EtcdCluster {
    /// Members on loopback, with everything below `directory`, a directory of the bed's.
    pub fn start(directory: &Path, members: usize) -> Result<Self> {
        Self::start_with(directory, EtcdSetup::on_loopback(members))
    }

    /// Starts all members and waits until they have a leader.
    pub fn start_with(directory: &Path, setup: EtcdSetup) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let programs = paths::fetched("etcd")?.join("usr/bin");
        let members = setup.places.iter().map(|_| None).collect();
        let mut cluster = Self { directory: directory.to_owned(), setup, programs, members };
        for member in 0..cluster.members.len() {
            cluster.start_member(member)?;
        }
        cluster.wait_healthy()?;
        Ok(cluster)
    }

    /// The clients' URL of a member.
    pub fn endpoint(&self, member: usize) -> String {
        let scheme = if self.setup.tls.is_some() { "https" } else { "http" };
        self.url(scheme, member, CLIENT_PORT)
    }

    /// The clients' URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.endpoint(member)).collect()
    }

    /// Starts a member that does not run. It may have to wait for others to be of use:
    /// see [`Self::wait_healthy`].
    pub fn start_member(&mut self, member: usize) -> Result<()> {
        let log = self.directory.join(format!("etcd{member}.log"));
        let service = Service::start(&format!("etcd{member}"), self.command(member), &log)?;
        *self.slot(member)? = Some(service);
        Ok(())
    }

    /// SIGKILL. Its data stays.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        match self.slot(member)?.take() {
            Some(mut service) => service.kill9(),
            None => bail!("member {member} does not run"),
        }
    }

    /// SIGSTOP: it is there, its connections are open, and it says nothing.
    pub fn pause(&mut self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGSTOP)
    }

    /// Goes on after [`Self::pause`].
    pub fn resume(&mut self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGCONT)
    }

    /// Waits until all members that run (and are not paused) answer with a leader.
    pub fn wait_healthy(&mut self) -> Result<()> {
        for member in self.running() {
            let ask = || self.ctl_of(member, &["endpoint", "health"]).map(drop);
            wait::until(HEALTHY_WITHIN, &format!("member {member} of etcd is healthy"), ask)?;
        }
        Ok(())
    }

    /// The member that leads; waits for one to be elected.
    pub fn leader(&self) -> Result<usize> {
        let running = self.running();
        let ask = || -> Result<usize> {
            for member in &running {
                // One that is paused answers nothing.
                let Ok(status) = self.status(*member) else { continue };
                if status["leader"] == status["header"]["member_id"] {
                    return Ok(*member);
                }
            }
            bail!("nobody leads")
        };
        Ok(wait::until(HEALTHY_WITHIN, "a leader of etcd", ask)?.0)
    }

    /// The revision that a member is at.
    pub fn revision(&self, member: usize) -> Result<i64> {
        self.status(member)?["header"]["revision"].as_i64().context("a status without a revision")
    }

    /// Makes all members that run forget their history before the current revision, which
    /// has to be above 1; answers that one. None may be paused.
    pub fn compact(&self) -> Result<i64> {
        let revision = self.revision(self.leader()?)?;
        self.ctl(&["compaction", "--physical", &revision.to_string()])?;
        // The others follow a little later.
        let before = format!("--rev={}", (revision - 1).max(1));
        for member in self.running() {
            wait::until(HEALTHY_WITHIN, &format!("member {member} has compacted"), || match self
                .ctl_of(member, &["get", "--consistency=s", &before, "k"])
            {
                Err(error) if error.to_string().contains("compacted") => Ok(()),
                other => bail!("the history is there: {other:?}"),
            })?;
        }
        Ok(revision)
    }

    /// Saves the data of a member to a file.
    pub fn snapshot(&self, file: &Path) -> Result<()> {
        let leader = self.leader()?;
        self.ctl_of(leader, &["snapshot", "save", &file.display().to_string()]).map(drop)
    }

    /// Stops all members, gives them a snapshot's data instead of their own, and
    /// starts them. Revisions go back to the snapshot's.
    pub fn restore(&mut self, file: &Path) -> Result<()> {
        for member in 0..self.members.len() {
            if self.runs(member) {
                self.kill(member)?;
            }
            self.restore_member(file, member)?;
        }
        for member in 0..self.members.len() {
            self.start_member(member)?;
        }
        self.wait_healthy()
    }

    /// Runs etcdctl with all running members' endpoints; answers what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let endpoints: Vec<String> =
            self.running().into_iter().map(|member| self.endpoint(member)).collect();
        self.etcdctl(&endpoints.join(","), self.members.len().saturating_sub(1), arguments)
    }

    /// Puts a value that is too long for an argument.
    pub fn put_long(&self, key: &str, value: &str) -> Result<()> {
        let file = self.directory.join("value");
        fs::write(&file, value)?;
        let leader = self.leader()?;
        let mut command = self.inside(leader, &self.programs.join("etcdctl"));
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint(leader)]);
        run(command.args(["put", key]).stdin(fs::File::open(file)?)).map(drop)
    }

    /// As [`Self::ctl`], with one member's endpoint.
    pub(crate) fn ctl_of(&self, member: usize, arguments: &[&str]) -> Result<String> {
        self.etcdctl(&self.endpoint(member), member, arguments)
    }

    fn status(&self, member: usize) -> Result<Value> {
        let text = self.ctl_of(member, &["endpoint", "status", "-w", "json"])?;
        // 64-bit ids are numbers in this JSON; serde_json keeps them exact.
        let all: Value = serde_json::from_str(&text)?;
        let first = all.get(0).with_context(|| format!("no status: {text}"))?;
        Ok(first["Status"].clone())
    }

    fn etcdctl(&self, endpoints: &str, member: usize, arguments: &[&str]) -> Result<String> {
        let mut command = self.inside(member, &self.programs.join("etcdctl"));
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]);
        command.args(["--command-timeout=3s", "--dial-timeout=2s"]);
        if let Some(tls) = &self.setup.tls {
            command.arg("--cacert").arg(&tls.ca).arg("--cert").arg(&tls.cert);
            command.arg("--key").arg(&tls.key);
        }
        run(command.args(arguments))
    }

    fn restore_member(&self, file: &Path, member: usize) -> Result<()> {
        let data = self.data(member);
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut command = Command::new(self.programs.join("etcdutl"));
        command.args(["snapshot", "restore"]).arg(file).arg("--data-dir").arg(&data);
        run(command.args(self.identity(member))).map(drop)
    }

    fn command(&self, member: usize) -> Command {
        let mut command = self.inside(member, &self.programs.join("etcd"));
        let client = self.endpoint(member);
        let peer = self.url("http", member, PEER_PORT);
        command.arg(format!("--data-dir={}", self.data(member).display()));
        command.args(self.identity(member));
        command.arg(format!("--listen-client-urls={client}"));
        command.arg(format!("--advertise-client-urls={client}"));
        command.arg(format!("--listen-peer-urls={peer}"));
        command.arg("--log-level=warn");
        if !self.setup.durable {
            command.arg("--unsafe-no-fsync");
        }
        if let Some(tls) = &self.setup.tls {
            command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
        }
        command.args(&self.setup.arguments);
        command
    }

    /// What a member and its restored data have to agree on.
    fn identity(&self, member: usize) -> Vec<String> {
        let all = (0..self.members.len())
            .map(|member| format!("m{member}={}", self.url("http", member, PEER_PORT)));
        vec![
            format!("--name=m{member}"),
            format!("--initial-advertise-peer-urls={}", self.url("http", member, PEER_PORT)),
            format!("--initial-cluster={}", all.collect::<Vec<_>>().join(",")),
            format!("--initial-cluster-token={}", self.directory.display()),
        ]
    }

    /// A command in a member's namespace.
    fn inside(&self, member: usize, program: &Path) -> Command {
        match self.setup.places.get(member).and_then(|place| place.net.as_ref()) {
            None => Command::new(program),
            Some(net) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", net.display())).arg("--").arg(program);
                command
            }
        }
    }

    fn url(&self, scheme: &str, member: usize, port: u16) -> String {
        let unknown = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let address = self.setup.places.get(member).map_or(unknown, |place| place.address);
        format!("{scheme}://{}", SocketAddr::new(address, port))
    }

    fn data(&self, member: usize) -> PathBuf {
        self.directory.join(format!("data{member}"))
    }

    fn runs(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(Option::is_some)
    }

    fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|member| self.runs(*member)).collect()
    }

    fn slot(&mut self, member: usize) -> Result<&mut Option<Service>> {
        self.members.get_mut(member).with_context(|| format!("etcd has no member {member}"))
    }

    fn signal(&mut self, member: usize, signal: Signal) -> Result<()> {
        let service = self.slot(member)?.as_ref();
        let pid = service.with_context(|| format!("member {member} does not run"))?.pid();
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.members.clear();
        for member in 0..self.setup.places.len() {
            // What can't be removed here goes with the bed.
            let _ = fs::remove_dir_all(self.data(member));
        }
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{messages}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
