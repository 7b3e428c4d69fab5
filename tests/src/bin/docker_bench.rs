//! `netd-docker-bench`: `docker run` to the container's first packet, with netd (CNM) beside
//! Docker's own bridge driver (a network that was made, and the default one), each with a
//! dockerd of its own, in turns, in the same run; with a published port: to the first
//! connection through it.
//!
//! `NETD_BENCH_SAMPLES` (20) scales it. Docker's driver runs as it comes, with its rules
//! if the machine has iptables.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Bed, Daemon, DaemonConfig, Docker, DockerVersion, Host, case,
    docker::{IMAGE, NO_NETWORK, Plugin},
    wait,
};

const LIMIT: Duration = Duration::from_secs(20);

struct Contender {
    name: &'static str,
    docker: Docker,
    network: Vec<String>,
    /// Where the container finds the host.
    gateway: &'static str,
    host: Host,
    _netd: Option<(Plugin, Daemon)>,
}

impl Contender {
    fn netd(bed: &Bed, version: DockerVersion) -> Result<Self> {
        let host = bed.host("netd")?;
        let netd = Daemon::start(&host, &DaemonConfig::quiet())?;
        let plugin = Plugin::start(&host)?;
        let docker = Docker::start(&host, version, &NO_NETWORK)?;
        let driver = plugin.driver.as_str();
        let subnet = "10.73.0.0/16";
        docker.run(&[
            "network",
            "create",
            "-d",
            driver,
            "--ipam-driver",
            driver,
            "--subnet",
            subnet,
            "bench",
        ])?;
        let network = vec!["--network".to_owned(), "bench".to_owned()];
        let (name, gateway) = ("netd", "10.73.0.1");
        Ok(Self { name, docker, network, gateway, host, _netd: Some((plugin, netd)) })
    }

    /// Its default network, or one that was made, as netd's is: in those dockerd puts a
    /// name server and its rules into each container.
    fn bridge(bed: &Bed, version: DockerVersion, made: bool) -> Result<Self> {
        let host = bed.host(if made { "made" } else { "bridge" })?;
        let mut has = Command::new("sh");
        has.args(["-c", "command -v iptables"]).stdout(Stdio::null());
        let rules = if has.status()?.success() { "--iptables=true" } else { "--iptables=false" };
        // Forwarding is what dockerd switches on for itself with its rules.
        host.net.sh("sysctl -qw net.ipv4.ip_forward=1")?;
        let docker = Docker::start(&host, version, &["--bip=10.74.0.1/16", rules])?;
        let (name, gateway, network) = if made {
            docker.run(&["network", "create", "--subnet", "10.75.0.0/16", "bench"])?;
            let network = ["--network", "bench"].map(str::to_owned).to_vec();
            ("Docker's bridge, a network of its own", "10.75.0.1", network)
        } else {
            ("Docker's bridge", "10.74.0.1", Vec::new())
        };
        Ok(Self { name, docker, network, gateway, host, _netd: None })
    }

    /// From `docker run` to the container's first connection.
    fn to_first_packet(&self) -> Result<Duration> {
        let listener = self.host.net.run(|| Ok(TcpListener::bind("0.0.0.0:0")?))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let script = format!("nc -w 9 {} {port} </dev/null; sleep 100", self.gateway);
        let (start, id) = self.start(&[], &script)?;
        let (time, _) = {
            let accept = || Ok(listener.accept().map(|_| start.elapsed())?);
            wait::until(LIMIT, "the container's first connection", accept)?
        };
        self.end(id)?;
        Ok(time)
    }

    /// From `docker run -p` to a connection from the host's address.
    fn to_first_connection(&self) -> Result<Duration> {
        let (start, id) = self.start(&["-p", "8080:80"], "httpd -f -p 80")?;
        let to = SocketAddr::new(self.host.v4.into(), 8080);
        let connected = loop {
            let answer = self.host.net.run(|| {
                use std::io::{Read as _, Write as _};
                let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(200))?;
                stream.set_read_timeout(Some(Duration::from_millis(500)))?;
                // A proxy accepts before the container does.
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                Ok(stream.read(&mut [0; 16])?)
            });
            if answer.is_ok_and(|read| read > 0) {
                break start.elapsed();
            }
            ensure!(start.elapsed() < LIMIT, "no connection");
            wait::pause(Duration::from_millis(1));
        };
        self.end(id)?;
        Ok(connected)
    }

    fn start(&self, more: &[&str], script: &str) -> Result<(Instant, std::process::Child)> {
        let mut all = vec!["run", "-d", "--name", "sample"];
        all.extend(self.network.iter().map(String::as_str));
        all.extend(more);
        all.extend([IMAGE, "/bin/sh", "-c", script]);
        let mut command = self.docker.command(&all)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let start = Instant::now();
        Ok((start, command.spawn()?))
    }

    fn end(&self, mut started: std::process::Child) -> Result<()> {
        started.wait()?;
        self.docker.remove(&["sample"])
    }
}

fn milliseconds(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

fn compare(bed: &Bed, version: DockerVersion, samples: usize) -> Result<()> {
    let all = [
        Contender::netd(bed, version)?,
        Contender::bridge(bed, version, true)?,
        Contender::bridge(bed, version, false)?,
    ];
    let mut times = all.each_ref().map(|_| [vec![], vec![]]);
    for sample in 0..=samples {
        for (contender, times) in all.iter().zip(&mut times) {
            let about = || format!("{} on {version:?}", contender.name);
            let measured = [
                contender.to_first_packet().with_context(about)?,
                contender.to_first_connection().with_context(about)?,
            ];
            // The first one warms up.
            if sample > 0 {
                times.iter_mut().zip(measured).for_each(|(all, one)| all.push(one));
            }
        }
    }
    for (contender, times) in all.iter().zip(&mut times) {
        let [packet, port] = times;
        println!(
            "| {version:?} | {} | {:.0} / {:.0} | {:.0} / {:.0} |",
            contender.name,
            milliseconds(packet, 50),
            milliseconds(packet, 90),
            milliseconds(port, 50),
            milliseconds(port, 90),
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let samples = env::var("NETD_BENCH_SAMPLES").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    println!(
        "| dockerd | driver | run to first packet, ms (p50 / p90) | with -p, to first answer |"
    );
    println!("|---|---|---|---|");
    for version in [DockerVersion::V20_10, DockerVersion::V28_5] {
        case(|bed| compare(bed, version, samples))?;
    }
    Ok(())
}
