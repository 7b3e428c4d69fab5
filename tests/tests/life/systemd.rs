//! What a service manager does with netd: hands it its socket, is told how it is,
//! stops it.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::FileTypeExt as _,
            net::{UnixDatagram, UnixListener},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::{GetStatusRequest, WatchEndpointsRequest};
use nix::fcntl::{FcntlArg, fcntl};
use testbed::{
    Daemon, DaemonConfig, Host, Sandbox, block_on, case, net::probe, paths, service::Service, wait,
};

const SOON: Duration = Duration::from_secs(10);

/// netd as systemd starts it; the bed's own way of starting it knows no such things.
struct Managed {
    socket: PathBuf,
    /// gRPC's and the hooks'.
    listeners: [OwnedFd; 2],
    notify: UnixDatagram,
    notify_path: PathBuf,
    config: PathBuf,
}

impl Managed {
    fn new(host: &Host) -> Result<Self> {
        let directory = host.directory().join("netd");
        fs::create_dir_all(directory.join("state"))?;
        fs::create_dir_all(directory.join("run"))?;
        let (here, config) = (directory.display(), directory.join("netd.toml"));
        fs::write(
            &config,
            format!(
                "state_dir = \"{here}/state\"\nrun_dir = \"{here}/run\"\nmetrics_listen = \"off\"\n\
                 [log]\nformat = \"json\"\n{}",
                DaemonConfig::default().networks
            ),
        )?;
        let socket = Daemon::socket_of(host);
        let hooks = netd_api::hook::socket_beside(&socket.to_string_lossy());
        let listeners = [UnixListener::bind(&socket)?.into(), UnixListener::bind(hooks)?.into()];
        let notify_path = host.directory().join("notify");
        let notify = UnixDatagram::bind(&notify_path)?;
        notify.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(Self { socket, listeners, notify, notify_path, config })
    }

    fn start(&self, host: &Host) -> Result<Service> {
        // LISTEN_PID is the pid of what is executed in the end.
        let mut command = host.net.command("sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" serve --config \"$1\""]);
        command.arg(paths::built("netd")?).arg(&self.config);
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "grpc:hook");
        command.env("NOTIFY_SOCKET", &self.notify_path);
        command.env("WATCHDOG_USEC", "400000");
        // Copies above the numbers that they get: a number that is right already would stay
        // close-on-exec, and one of the two could be overwritten by the other.
        let copy = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(100));
        let [grpc, hooks] = &self.listeners;
        let numbers = [copy(grpc)?, copy(hooks)?];
        // SAFETY: dup2 is async-signal-safe, and all numbers are valid in the child.
        unsafe {
            command.pre_exec(move || {
                for (from, to) in numbers.into_iter().zip([3, 4]) {
                    if libc::dup2(from, to) == -1 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let started = Service::start("netd", command, &host.directory().join("netd.log"));
        numbers.into_iter().try_for_each(nix::unistd::close)?;
        started
    }

    /// Messages until `last`, or an error with what came.
    fn told(&self, last: &str) -> Result<Vec<String>> {
        let (start, mut lines, mut buffer) = (Instant::now(), Vec::new(), [0; 4096]);
        while start.elapsed() < SOON {
            let Ok(length) = self.notify.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            lines.extend(text.lines().map(str::to_owned));
            if lines.iter().any(|line| line == last) {
                return Ok(lines);
            }
        }
        anyhow::bail!("{last} was not told, but {lines:?}")
    }

    fn ready(&self) -> Result<bool> {
        let channel = testbed::cri::channel(&self.socket)?;
        let mut nodes = netd_api::v1::node_service_client::NodeServiceClient::new(channel);
        Ok(block_on(nodes.get_status(GetStatusRequest::default()))?.into_inner().ready)
    }
}

#[test]
fn a_socket_handed_over_is_served_and_the_manager_is_told() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let managed = Managed::new(&host)?;
        let mut netd = managed.start(&host)?;
        let told = managed.told("READY=1")?;
        ensure!(told.iter().all(|line| !line.starts_with("STOPPING")), "{told:?}");
        wait::until(SOON, "ready", || {
            ensure!(managed.ready()?);
            Ok(())
        })?;
        // It answers on the very socket that was handed over: none of its own is there.
        ensure!(fs::metadata(&managed.socket)?.file_type().is_socket());
        // Hooks' calls come through the other one.
        Sandbox::attached(&host, "pod")?.del(&host)?;
        let mut beats = 0;
        for _ in 0..4 {
            let lines = managed.told("WATCHDOG=1")?;
            beats += lines.iter().filter(|line| *line == "WATCHDOG=1").count();
        }
        ensure!(beats >= 4);
        netd.check_alive()?;
        let ended = netd.stop(SOON)?;
        ensure!(ended.success(), "{ended}");
        managed.told("STOPPING=1")?;
        ensure!(managed.socket.exists(), "the manager's socket was taken away");
        Ok(())
    })
}

/// A restart is what helps a netd whose thread hangs for good.
#[test]
fn the_watchdog_is_not_fed_by_a_netd_whose_thread_hangs() -> Result<()> {
    /// A thread hangs after ten seconds of silence, and twenty more are waited.
    const STARVED: Duration = Duration::from_secs(45);
    case(|bed| {
        let host = bed.host("node")?;
        let managed = Managed::new(&host)?;
        let netd = managed.start(&host)?;
        managed.told("READY=1")?;
        let frozen = testbed::frozen::Frozen::freeze(netd.pid(), "netd-links")?;
        wait::until(STARVED, "the watchdog is not fed", || {
            // Twenty-five beats' time.
            ensure!(managed.told("WATCHDOG=1").is_err(), "it is fed");
            Ok(())
        })?;
        drop(frozen);
        managed.told("WATCHDOG=1").map(drop)
    })
}

#[test]
fn the_manager_is_told_a_status_for_people() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let managed = Managed::new(&host)?;
        let _netd = managed.start(&host)?;
        managed.told("STATUS=ready").map(drop)
    })
}

#[test]
fn a_call_made_while_netd_is_down_waits_in_the_managers_socket() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let managed = Managed::new(&host)?;
        let mut netd = managed.start(&host)?;
        managed.told("READY=1")?;
        netd.kill9()?;
        let waiting = Sandbox::bare(&host, "waiting")?;
        std::thread::scope(|scope| {
            let add = scope.spawn(|| waiting.call("ADD").execute(&host));
            wait::pause(Duration::from_millis(500));
            let next = managed.start(&host)?;
            let answer = add.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            answer.ok()?;
            drop(next);
            anyhow::Ok(())
        })?;
        waiting.net.sh("ip -o link show eth0").map(drop)
    })
}

/// A watch never ends by itself: netd has to end it.
#[test]
fn sigterm_ends_netd_soon_also_with_a_watch_and_pods_go_on() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut netd = Daemon::start(&host, &DaemonConfig::default())?;
        let (one, two) = (Sandbox::attached(&host, "one")?, Sandbox::attached(&host, "two")?);
        let mut service = netd.endpoint_service()?;
        let request = WatchEndpointsRequest { after_revision: 0 };
        let mut watch = block_on(service.watch_endpoints(request))?.into_inner();
        let start = Instant::now();
        let status = netd.service().stop(SOON)?;
        let took = start.elapsed();
        ensure!(status.success(), "{status}");
        ensure!(took < Duration::from_secs(4), "{took:?} for a netd that does nothing");
        let end = loop {
            match block_on(watch.message()) {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        let told = end.err().context("the watch ended as if all was well")?;
        ensure!(told.code() == tonic::Code::Unavailable, "{told:?}");
        probe::ping(&one.net, two.v4()?)?;
        probe::ping(&one.net, two.v6()?)?;
        netd.restart()?;
        ensure!(netd.endpoints()?.len() == 2);
        Ok(())
    })
}

fn refuses_to_start(host: &Host, named: &Path) -> Result<()> {
    let mut netd = Daemon::launch(host, &DaemonConfig::default())?;
    let ended = netd.service().ended(SOON)?;
    let said = netd.logged();
    ensure!(!ended.success(), "it started");
    ensure!(said.contains(&named.display().to_string()), "does not name it: {said}");
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

#[test]
fn a_file_or_a_directory_in_the_sockets_place_is_left_alone() -> Result<()> {
    case(|bed| {
        let (file, directory) = (bed.host("file")?, bed.host("directory")?);
        let socket = Daemon::socket_of(&file);
        fs::create_dir_all(socket.parent().context("no parent")?)?;
        fs::write(&socket, "precious")?;
        refuses_to_start(&file, &socket)?;
        ensure!(fs::read_to_string(&socket)? == "precious");
        let socket = Daemon::socket_of(&directory);
        fs::create_dir_all(&socket)?;
        refuses_to_start(&directory, &socket)?;
        ensure!(socket.is_dir());
        Ok(())
    })
}
