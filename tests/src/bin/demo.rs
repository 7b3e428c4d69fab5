//! `make demo`: one node with netd and a real containerd, two pods of two
//! containers each; who reaches whom, and with which address. Every line that
//! says PASS was checked just then.

use std::{
    net::IpAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Bed, DaemonConfig, Host, Stack, Version,
    cri::{self, Cri, Pod, v1::Protocol},
    net::probe::{self, Mirror},
    report::Report,
    wait,
};

const WEB_PORT: u16 = 8080;
const HOST_PORT: i32 = 30080;
const MIRROR_PORT: u16 = 7000;

/// A pod with a web server and a container to ask from.
struct Shown {
    pod: Pod,
    client: String,
}

impl Shown {
    fn start(cri: &Cri, name: &str, host_port: Option<i32>) -> Result<Self> {
        let mut config = cri::pod(name);
        let container_port = i32::from(WEB_PORT);
        let port = host_port.map(|port| cri::port(Protocol::Tcp, port, container_port));
        config.port_mappings = port.into_iter().collect();
        let pod = cri.run_pod(config)?;
        let serve = format!(
            "echo hello from {name} > /www/index.html; exec httpd -f -p {WEB_PORT} -h /www"
        );
        cri.run_container(&pod, "server", &serve)?;
        let client = cri.run_container(&pod, "client", "sleep 1000")?;
        Ok(Self { pod, client })
    }

    /// Reads a page from the client container.
    fn wget(&self, cri: &Cri, host: &str) -> Result<String> {
        let script = format!("wget -qO- http://{host}:{WEB_PORT}/");
        // The server may need a moment to listen.
        let page =
            wait::until(Duration::from_secs(3), "the page", || cri.exec(&self.client, &script));
        Ok(page?.0.trim().to_owned())
    }

    /// The address that a mirror sees when the client container connects to it.
    fn seen_by(&self, cri: &Cri, mirror: IpAddr) -> Result<IpAddr> {
        let seen = cri.exec(&self.client, &format!("nc -w 2 {mirror} {MIRROR_PORT} </dev/null"))?;
        seen.trim().parse().with_context(|| format!("answered `{seen}`"))
    }
}

fn expect(seen: IpAddr, expected: IpAddr, whose: &str) -> Result<String> {
    ensure!(seen == expected, "seen as {seen}, not as {expected}");
    Ok(format!("seen as {seen}, {whose}"))
}

fn greeting(page: String, name: &str) -> Result<String> {
    ensure!(page == format!("hello from {name}"), "read `{page}`");
    Ok(format!("\"{page}\""))
}

fn show(report: &mut Report, stack: &Stack, outside: &Host) -> Result<()> {
    let cri = &stack.cri()?;
    let start = Instant::now();
    let web = Shown::start(cri, "web", Some(HOST_PORT))?;
    let app = Shown::start(cri, "app", None)?;
    let took = start.elapsed();
    let (host, outer) = (&stack.host, IpAddr::from(outside.v4));
    println!("\n  node {} {}, outside {outer} {}", host.v4, host.v6, outside.v6);
    for (name, shown) in [("web", &web), ("app", &app)] {
        let ips: Vec<String> = shown.pod.ips.iter().map(IpAddr::to_string).collect();
        println!("  pod {name}: {} (from containerd's PodSandboxStatus)", ips.join(" "));
    }
    println!("  both pods, four containers: up in {took:.1?}\n");

    let (own4, own6) = (app.pod.v4()?, app.pod.v6()?);
    let (web4, web6) = (web.pod.v4()?, web.pod.v6()?);
    report.line(
        "container to container, 127.0.0.1",
        web.wget(cri, "127.0.0.1").and_then(|page| greeting(page, "web")),
    );
    report.line(
        "container to container, [::1]",
        web.wget(cri, "[::1]").and_then(|page| greeting(page, "web")),
    );
    report.line(
        "pod to pod, IPv4",
        app.wget(cri, &web4.to_string()).and_then(|page| greeting(page, "web")),
    );
    report.line(
        "pod to pod, IPv6",
        app.wget(cri, &format!("[{web6}]")).and_then(|page| greeting(page, "web")),
    );

    let _mirrors = [
        Mirror::serve(&host.net, MIRROR_PORT)?,
        Mirror::serve(&outside.net, MIRROR_PORT)?,
        Mirror::serve(&web.pod.net(), MIRROR_PORT)?,
    ];
    let mut seen = |what: &str, to: IpAddr, expected: IpAddr, whose: &str| {
        report.line(what, app.seen_by(cri, to).and_then(|seen| expect(seen, expected, whose)));
    };
    seen("pod to pod keeps the source", web4, own4, "the pod's");
    seen("pod to host, IPv4", host.v4.into(), own4, "the pod's");
    seen("pod to host, IPv6", host.v6.into(), own6, "the pod's");
    seen("pod outwards through NAT, IPv4", outer, host.v4.into(), "the node's");
    seen("pod outwards through NAT, IPv6", outside.v6.into(), host.v6.into(), "the node's");

    let port = u16::try_from(HOST_PORT)?;
    let from_outside = |to: IpAddr| -> Result<String> {
        let host = if to.is_ipv6() { format!("[{to}]") } else { to.to_string() };
        let page = outside.net.sh(&format!("{} wget -qO- http://{host}:{port}/", busybox()?))?;
        greeting(page.trim().to_owned(), "web")
    };
    report.line("host port from outside, IPv4", from_outside(host.v4.into()));
    report.line("host port from outside, IPv6", from_outside(host.v6.into()));
    let reached = |from: &testbed::Namespace, to: IpAddr| {
        let to = std::net::SocketAddr::new(to, port);
        from.run(|| {
            std::net::TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            Ok(format!("connected to {to}"))
        })
    };
    report.line("host port from the host", reached(&host.net, host.v4.into()));
    report.line("host port from the pod itself", reached(&web.pod.net(), host.v4.into()));
    report.line("ping from host to pod", probe::ping(&host.net, web6).map(|()| web6.to_string()));

    println!("\n$ netd endpoint list\n{}", stack.netd.cli(&["endpoint", "list"])?.trim_end());

    for shown in [&web, &app] {
        cri.stop(&shown.pod.id)?;
        cri.remove(&shown.pod.id)?;
    }
    println!();
    let left = stack.check_nothing_left();
    report.line(
        "both pods removed",
        left.map(|()| "no device, address, route, rule or record left".to_owned()),
    );
    Ok(())
}

fn busybox() -> Result<String> {
    Ok(testbed::paths::fetched("busybox")?.join("bin/busybox").display().to_string())
}

fn demonstrate(report: &mut Report, bed: &Bed) -> Result<()> {
    let stack = Stack::start(bed, Version::V2_1, &DaemonConfig::default())?;
    let outside = bed.host("outside")?;
    let runtime = stack.cri()?.version()?;
    println!("netd on its embedded store, containerd {runtime}, CNI and NRI by netd-hook,");
    println!("all on a node of its own (a network namespace of this machine)");
    show(report, &stack, &outside)
}

fn main() -> ExitCode {
    Report::of(38, demonstrate)
}
