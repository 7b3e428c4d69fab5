//! netd-tunnel is killed and comes back; devices that a program removes.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixDatagram, process::CommandExt as _},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use common::{Backend, DEVICE, Pair, SOON, case, ip, stream};
use testbed::{block_on, wait};

#[test]
fn killed_it_comes_back_alone_and_traffic_goes_on() -> Result<()> {
    for backend in [Backend::Udp, Backend::Wireguard] {
        case(Pair::new(backend, false)?, |pair| {
            pair.ping()?;
            let routes = pair.b.net.sh("ip route; ip -6 route; ip address show dev flannel0")?;
            let state = std::fs::metadata(pair.b.state())?.permissions().mode();
            ensure!(state & 0o777 == 0o600, "{state:o}");
            // The one that answers, then the one that asks.
            pair.b.kill_and_start()?;
            let (_, took) = wait::until(SOON, "node 2 is back", || pair.ping())?;
            ensure!(took < Duration::from_secs(3), "{took:?}");
            pair.a.kill_and_start()?;
            let (_, took) = wait::until(SOON, "node 1 is back", || pair.ping())?;
            ensure!(took < Duration::from_secs(3), "{took:?}");
            let after = pair.b.net.sh("ip route; ip -6 route; ip address show dev flannel0")?;
            let plain = |text: &str| {
                // Lifetimes and the carrier's flags come and go.
                text.lines().filter(|l| l.contains("10.") || l.contains("fd00")).count()
            };
            ensure!(plain(&routes) == plain(&after), "before:\n{routes}\nafter:\n{after}");
            ensure!(pair.b.status()?.peers == 1);
            stream::both_ways(&pair.a.net, &pair.b.net, ip("10.2.0.1"), 4 << 20)
        })?;
    }
    Ok(())
}

/// A connection that is open when a process dies goes on.
#[test]
fn a_tcp_connection_survives_a_kill() -> Result<()> {
    for backend in [Backend::Udp, Backend::Wireguard] {
        case(Pair::new(backend, false)?, |pair| {
            pair.ping()?;
            let (a, b) = (&pair.a.net, &mut pair.b);
            let to = testbed::Namespace::of(b.net.path());
            std::thread::scope(|scope| {
                let bulk = scope.spawn(|| stream::both_ways(a, &to, ip("10.2.0.1"), 64 << 20));
                for _ in 0..3 {
                    wait::pause(Duration::from_millis(150));
                    b.kill_and_start()?;
                }
                bulk.join().unwrap()
            })
        })?;
    }
    Ok(())
}

#[test]
fn a_device_that_was_removed_is_made_again_with_its_peers() -> Result<()> {
    case(Pair::new(Backend::Udp, false)?, |pair| {
        pair.b.net.sh(&format!("ip link del {DEVICE}"))?;
        pair.b.configure(&pair.tunnel(2))?;
        pair.address(&pair.b)?;
        ensure!(pair.b.status()?.peers == 1);
        pair.ping()?;
        // With the process gone too.
        pair.b.process.kill9()?;
        pair.b.net.sh(&format!("ip link del {DEVICE}"))?;
        pair.b.start_again()?;
        pair.address(&pair.b)?;
        pair.ping()
    })
}

#[test]
fn removed_is_removed() -> Result<()> {
    case(Pair::new(Backend::Udp, false)?, |pair| {
        for _ in 0..2 {
            block_on(pair.b.client.remove(&common::device()))?;
            ensure!(pair.b.net.sh(&format!("ip link show {DEVICE}")).is_err());
        }
        pair.b.kill_and_start()?;
        ensure!(block_on(pair.b.client.status())?.tunnels.is_empty());
        // What a process left that has forgotten it.
        pair.b.configure(&pair.tunnel(2))?;
        pair.b.process.kill9()?;
        std::fs::remove_file(pair.b.state())?;
        pair.b.start_again()?;
        pair.b.net.sh(&format!("ip link show {DEVICE}"))?;
        block_on(pair.b.client.remove(&common::device()))?;
        ensure!(pair.b.net.sh(&format!("ip link show {DEVICE}")).is_err());
        Ok(())
    })
}

#[test]
fn the_kind_changes_on_the_same_device() -> Result<()> {
    case(Pair::new(Backend::Udp, false)?, |pair| {
        pair.ping()?;
        pair.backend = Backend::Wireguard;
        for node in [&pair.a, &pair.b] {
            node.configure(&pair.tunnel(node.number))?;
            ensure!(node.status()?.peers == 0, "peers of another kind stayed");
            let set = vec![pair.peer(3 - node.number)];
            node.update(&netd::tunnel::PeerChange { set, ..Default::default() })?;
        }
        pair.ping()
    })
}

/// A second process on the same socket would take the first one's tunnels.
#[test]
fn a_second_process_refuses_to_start() -> Result<()> {
    case(Pair::new(Backend::Udp, false)?, |pair| {
        let mut command = pair.a.net.command(env!("CARGO_BIN_EXE_netd-tunnel"));
        command.arg("--socket").arg(&pair.a.socket).arg("--state").arg(pair.a.state());
        let output = command.output()?;
        ensure!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("another process is listening"), "{said}");
        pair.ping()
    })
}

/// systemd's side of its descriptor store.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn kept(&self) -> Result<Vec<(String, OwnedFd)>> {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
        use std::{io::IoSliceMut, os::fd::FromRawFd as _};
        let mut kept: Vec<(String, OwnedFd)> = vec![];
        self.socket.set_nonblocking(true)?;
        let mut buffer = [0; 4096];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 4]);
        loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let fd = self.socket.as_raw_fd();
            let got = recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC);
            let Ok(message) = got else { return Ok(kept) };
            let (length, mut fds) = (message.bytes, vec![]);
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = control {
                    // SAFETY: the kernel has just given these to this process.
                    fds.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
            let name = name.unwrap_or_default().to_owned();
            if text.contains("FDSTOREREMOVE=1") {
                kept.retain(|(other, _)| *other != name);
            }
            kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
        }
    }

    fn start(&self, pair: &Pair, kept: &[(String, OwnedFd)]) -> Result<testbed::service::Service> {
        let mut command = pair.b.net.command("sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]);
        command.arg(env!("CARGO_BIN_EXE_netd-tunnel"));
        command.arg("--socket").arg(&pair.b.socket).arg("--state").arg(pair.b.state());
        command.args(["--queues", "2"]).env("NOTIFY_SOCKET", &self.path);
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        if !kept.is_empty() {
            command.env("LISTEN_FDS", kept.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        // High numbers first: a descriptor must not be overwritten before it is moved.
        let high: Vec<OwnedFd> = kept
            .iter()
            .map(|(_, fd)| Ok(nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100))?))
            .map(|fd: Result<i32>| {
                use std::os::fd::FromRawFd as _;
                // SAFETY: the duplicate is new and nobody else's.
                fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
            })
            .collect::<Result<_>>()?;
        // SAFETY: dup2 is async-signal-safe, and all numbers are valid in the child.
        unsafe {
            command.pre_exec(move || {
                for (index, fd) in (3..).zip(&high) {
                    if libc::dup2(fd.as_raw_fd(), index) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        testbed::service::Service::start("netd-tunnel", command, pair.b.process.log())
    }
}

/// Three restarts of node 2 under datagrams from node 1, on descriptors that are kept. Returns
/// how many were sent and received, and how long no process was there.
fn restarts(pair: &mut Pair, pause: Duration) -> Result<(u64, u64, Duration)> {
    pair.b.process.kill9()?;
    let path = pair.b.socket.with_extension("notify");
    let manager = Manager { socket: UnixDatagram::bind(&path)?, path };
    pair.b.process = manager.start(pair, &[])?;
    let mut kept = vec![];
    wait::until(SOON, "descriptors are stored", || {
        kept.extend(manager.kept()?);
        ensure!(kept.len() == 4, "{kept:?}");
        Ok(())
    })?;
    wait::until(SOON, "node 2 is back", || pair.ping())?;
    let to = testbed::Namespace::of(pair.b.net.path());
    let from = testbed::Namespace::of(pair.a.net.path());
    let mut away = Duration::ZERO;
    let (sent, received) =
        stream::count_datagrams((&from, &to), ip("10.2.0.1"), 500, pause, || {
            for _ in 0..3 {
                let start = std::time::Instant::now();
                pair.b.process.kill9()?;
                wait::pause(Duration::from_millis(100));
                pair.b.process = manager.start(pair, &kept)?;
                wait::until(SOON, "it answers", || Ok(block_on(pair.b.client.status())?))?;
                away += start.elapsed();
                wait::pause(Duration::from_millis(200));
            }
            Ok(())
        })?;
    block_on(pair.b.client.remove(&common::device()))?;
    // What is stored goes with the tunnel: else the device would stay.
    drop(kept);
    wait::until(SOON, "the device goes", || {
        ensure!(pair.b.net.sh(&format!("ip link show {DEVICE}")).is_err());
        Ok(())
    })?;
    let left = manager.kept()?;
    ensure!(left.is_empty(), "{left:?}");
    std::fs::remove_file(&manager.path).context("the notify socket")?;
    Ok((sent, received, away))
}

/// With systemd's store the sockets and the device's queues are never closed: what comes
/// while no process is there waits, so nothing is lost.
#[test]
fn with_a_descriptor_store_a_restart_loses_nothing() -> Result<()> {
    case(Pair::new(Backend::Udp, false)?, |pair| {
        let (sent, received, _) = restarts(pair, Duration::from_micros(500))?;
        ensure!(sent > 500 && received == sent, "{received} of {sent} came");
        Ok(())
    })
}

/// A session's keys end with the process that has them: what came for it while no process was
/// there can be read by nobody. Nothing else is lost.
#[test]
fn over_a_restart_wireguard_loses_what_came_for_the_old_session_only() -> Result<()> {
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        let pause = Duration::from_micros(500);
        let (sent, received, away) = restarts(pair, pause)?;
        let lost = sent - received;
        let sent_meanwhile = (away.as_micros() / pause.as_micros()) as u64;
        eprintln!(
            "{lost} of {sent} lost; {sent_meanwhile} were sent in {away:?} without a process"
        );
        // The handshake takes a round trip, and the test sees the process a moment too late.
        ensure!(lost <= sent_meanwhile + sent / 50, "{lost} of {sent}, {away:?}");
        Ok(())
    })
}
