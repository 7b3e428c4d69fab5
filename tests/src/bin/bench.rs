//! `make bench`: whole ADD and DEL as a runtime does them (exec of the plugin, its
//! environment, its standard input), netd-hook beside Debian's bridge + host-local
//! in the same run, with many pods attached already.
//!
//! `NETD_BENCH_PODS` ("0,100,500,1000") and `NETD_BENCH_SAMPLES` (50) scale it.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::{Daemon, DaemonConfig, Host, Namespace, case, hook, paths};

const AT_ONCE: usize = 8;

/// One of the two that are compared, on a host of its own.
struct Contender {
    name: &'static str,
    host: Host,
    plugin: PathBuf,
    config: String,
    pods: Vec<Pod>,
    made: usize,
}

struct Pod {
    id: String,
    net: Namespace,
}

/// Every call's duration, sorted, and how long all took together.
struct Times {
    each: Vec<Duration>,
    all: Duration,
}

impl Times {
    fn percentile(&self, percent: usize) -> f64 {
        let index = (self.each.len() * percent / 100).min(self.each.len().saturating_sub(1));
        self.each.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    #[allow(clippy::cast_precision_loss)] // a few hundred
    fn rate(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }
}

impl Contender {
    fn new(name: &'static str, host: Host, plugin: PathBuf, config: &Value) -> Self {
        Self { name, host, plugin, config: config.to_string(), pods: Vec::new(), made: 0 }
    }

    /// Namespaces without a network; making them is not measured.
    fn bare(&mut self, count: usize) -> Result<Vec<Pod>> {
        let directory = self.host.directory().join("pods");
        let first = self.made;
        self.made += count;
        (first..first + count)
            .map(|number| {
                let id = format!("pod-{number}");
                let net = Namespace::create(directory.join(&id))?;
                Ok(Pod { id, net })
            })
            .collect()
    }

    /// The calling thread has to be in the host's namespace: the plugin inherits it.
    fn call(&self, command: &str, pod: &Pod) -> Result<Duration> {
        let start = Instant::now();
        let mut child = Command::new(&self.plugin)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.net.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/usr/lib/cni")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.plugin.display().to_string())?;
        child.stdin.take().context("no stdin")?.write_all(self.config.as_bytes())?;
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{} {command}: {printed}", self.name);
        Ok(took)
    }

    /// Calls for all pods, `at_once` at a time.
    fn measure(&self, command: &str, pods: &[Pod], at_once: usize) -> Result<Times> {
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        let work = || {
            self.host.net.run(|| {
                let mut times = Vec::new();
                while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                    times.push(self.call(command, pod)?);
                }
                Ok(times)
            })
        };
        let parts: Result<Vec<Vec<Duration>>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
            });
            joined.collect()
        });
        let all = start.elapsed();
        let mut each: Vec<Duration> = parts?.into_iter().flatten().collect();
        each.sort();
        Ok(Times { each, all })
    }

    /// Attaches until `count` pods stay.
    fn fill(&mut self, count: usize) -> Result<()> {
        let more = self.bare(count.saturating_sub(self.pods.len()))?;
        self.measure("ADD", &more, AT_ONCE)?;
        self.pods.extend(more);
        Ok(())
    }

    /// ADD and DEL of some more pods, which are gone afterwards.
    fn sample(&mut self, samples: usize, at_once: usize) -> Result<[Times; 2]> {
        let pods = self.bare(samples)?;
        let add = self.measure("ADD", &pods, at_once)?;
        let del = self.measure("DEL", &pods, at_once)?;
        Ok([add, del])
    }
}

fn peer(host: Host) -> Contender {
    let data = host.directory().join("ipam");
    let config = json!({
        "cniVersion": "1.0.0", "name": "peer", "type": "bridge", "bridge": "peer0",
        "isGateway": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]], "dataDir": data},
    });
    Contender::new("bridge+host-local", host, "/usr/lib/cni/bridge".into(), &config)
}

fn netd(host: Host) -> Result<Contender> {
    let mut config = hook::plugin_config(&host);
    config["cniVersion"] = json!("1.0.0");
    config["name"] = json!("default");
    Ok(Contender::new("netd", host, paths::built("netd-hook")?, &config))
}

/// Median of what netd itself says its last attaches took, in milliseconds.
fn inside(daemon: &Daemon, last: usize) -> Option<f64> {
    let logged = daemon.logged();
    let attached = logged.lines().rev().filter(|line| line.contains("\"attached\""));
    let micros = attached.filter_map(|line| {
        serde_json::from_str::<Value>(line).ok()?.get("micros").and_then(Value::as_u64)
    });
    let mut micros: Vec<u64> = micros.take(last).collect();
    micros.sort_unstable();
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    micros.get(micros.len() / 2).map(|micros| *micros as f64 / 1000.0)
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(number.parse()?)
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("?");
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} x {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

fn row(pods: usize, at_once: usize, who: &str, times: &[Times; 2], inside: &str) {
    let [add, del] = times;
    println!(
        "| {pods} | {at_once} | {who} | {:.2} / {:.2} | {:.0} | {:.2} / {:.2} | {:.0} | {inside} |",
        add.percentile(50),
        add.percentile(99),
        add.rate(),
        del.percentile(50),
        del.percentile(99),
        del.rate(),
    );
}

fn round(
    contenders: &mut [Contender; 2],
    daemon: &Daemon,
    pods: usize,
    samples: usize,
) -> Result<()> {
    for contender in contenders.iter_mut() {
        contender.fill(pods)?;
    }
    for at_once in [1, AT_ONCE] {
        let mut medians = Vec::new();
        for contender in contenders.iter_mut() {
            let times = contender.sample(samples, at_once)?;
            let own = contender.name == "netd";
            let inside = own.then(|| inside(daemon, samples)).flatten();
            let inside = inside.map_or_else(|| "-".to_owned(), |time| format!("{time:.2}"));
            row(pods, at_once, contender.name, &times, &inside);
            medians.push(times.each_ref().map(|times| times.percentile(50)));
        }
        if let [peer, own] = medians.as_slice() {
            let ratio = |which: usize| peer[which] / own[which];
            println!("| | | *faster by* | **{:.1}x** | | **{:.1}x** | | |", ratio(0), ratio(1));
        }
    }
    Ok(())
}

fn scale() -> Result<(Vec<usize>, usize)> {
    let pods = env::var("NETD_BENCH_PODS").unwrap_or_else(|_| "0,100,500,1000".to_owned());
    let pods: Result<Vec<usize>, _> = pods.split(',').map(str::parse).collect();
    let samples = env::var("NETD_BENCH_SAMPLES").unwrap_or_else(|_| "50".to_owned());
    Ok((pods.context("NETD_BENCH_PODS")?, samples.parse().context("NETD_BENCH_SAMPLES")?))
}

fn size_kib(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.len() / 1024)
}

fn main() -> Result<()> {
    let (pods, samples) = scale()?;
    case(|bed| {
        let node = bed.host("netd")?;
        // As the peer: one family, one network.
        let networks = "[[network]]\nname = \"default\"\n\
                        [[network.pool]]\nsubnet = \"10.88.0.0/16\"\n";
        let config = DaemonConfig { networks: networks.to_owned(), ..DaemonConfig::default() };
        let daemon = Daemon::start(&node, &config)?;
        let mut contenders = [peer(bed.host("peer")?), netd(node)?];
        println!("{}; IPv4, bridge; {samples} samples a row\n", machine());
        println!(
            "| pods attached | at once | | ADD p50 / p99 ms | ADD/s | DEL p50 / p99 ms | DEL/s | inside netd, ADD p50 ms |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for &count in &pods {
            round(&mut contenders, &daemon, count, samples)?;
        }
        let (endpoints, resident) = (daemon.endpoints()?.len(), resident_kib(daemon.pid())?);
        println!("\nnetd holds {resident} KiB with {endpoints} endpoints;");
        println!("netd-hook is {} KiB", size_kib(&paths::built("netd-hook")?)?);
        Ok(())
    })
}
