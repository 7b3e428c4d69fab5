//! The sockets on which events arrive, and what becomes of them.

use std::{io, os::fd::AsFd, sync::Arc};

use nix::poll::{PollFd, PollFlags, poll};
use tokio::sync::mpsc::UnboundedSender;

use super::{filter, parse};
use crate::{
    DataplaneError, Drift,
    error::failed,
    exec::{context::SharedContext, pulse::Pulse},
    firewall::{OwnChanges, Watcher},
    netlink::{Protocol, Received, Socket, link::LinkId, query},
    network::underlay,
    sysctl,
};

/// Multicast groups (uapi/linux/rtnetlink.h) to hear everywhere: links, neighbours,
/// addresses and routes of both families. For each event of another namespace the
/// kernel looks through all namespace ids: no group more than needed.
const EVERYWHERE: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// Groups to hear on the host only: settings of both families; links that come up and
/// new addresses, which matter of the underlay and of the overlay's devices only.
const ON_THE_HOST: [u32; 5] = [24, 25, 1, 5, 9];
/// How long events gather after the first, milliseconds. An attach causes them in bursts,
/// and a thread that wakes up for each would take the processor from the attach.
const GATHER: u8 = 5;
/// How long the thread waits for events before it shows that it lives, milliseconds.
const BEAT_INTERVAL: u16 = 2000;
/// Room for events that are not read yet, bytes.
const BUFFER: i32 = 16 << 20;

/// What a listener is opened with.
#[derive(Clone)]
pub(super) struct Subject {
    pub shared: Arc<SharedContext>,
    /// Changes by the socket with this port are not noticed: it makes ten thousand at a time.
    pub quiet: u32,
    pub own: OwnChanges,
    pub drift: UnboundedSender<Drift>,
}

/// Why a listener stopped.
pub(super) enum Ended {
    /// Nobody wants the events any longer.
    Unwanted,
    /// It can't listen.
    Failed(io::Error),
}

pub(super) struct Listener {
    /// Everywhere, and on the host.
    sockets: [Socket; 2],
    /// Asks; its answers don't get mixed up with events.
    asking: Socket,
    firewall: Watcher,
    shared: Arc<SharedContext>,
    drift: UnboundedSender<Drift>,
}

impl Listener {
    pub(super) fn open(subject: Subject) -> Result<Self, DataplaneError> {
        let Subject { shared, quiet, own, drift } = subject;
        let what = || failed("listening to the kernel's events");
        let buffer = shared.settings.event_buffer.unwrap_or(BUFFER);
        let hear = |groups: &[u32], mut program: Vec<_>, everywhere| {
            let socket = Socket::open(Protocol::Route)?;
            socket.set_buffers(buffer)?;
            socket.filter(&mut program)?;
            socket.subscribe(groups, everywhere)?;
            Ok(socket)
        };
        let mut listener = Self {
            sockets: [
                hear(&EVERYWHERE, filter::everywhere(quiet), true).map_err(what())?,
                hear(&ON_THE_HOST, filter::on_the_host(quiet), false).map_err(what())?,
            ],
            asking: Socket::open(Protocol::Route).map_err(what())?,
            firewall: Watcher::open(own)?,
            shared,
            drift,
        };
        listener.learn_underlay().map_err(what())?;
        Ok(listener)
    }

    fn learn_underlay(&mut self) -> io::Result<()> {
        let configured = self.shared.settings.underlay.clone();
        let found = underlay::find(&mut self.asking, configured.as_ref(), &self.shared)?;
        let known = found.map(|link| (link.index, link.mtu));
        self.shared.table.lock().know_underlay(known);
        Ok(())
    }

    /// Listens until `end` is closed or a socket fails.
    pub(super) fn run(mut self, end: &io::PipeReader, pulse: &Pulse) -> Ended {
        loop {
            match self.wait(end) {
                Ok(true) => {}
                Ok(false) => return Ended::Unwanted,
                Err(e) => return Ended::Failed(e),
            }
            pulse.beat();
            if self.drift.is_closed() {
                return Ended::Unwanted;
            }
            if let Err(e) = self.hear() {
                return Ended::Failed(e);
            }
            match self.firewall.try_next() {
                Ok(None) => {}
                Ok(Some(_)) => self.tell(Drift::Firewall),
                Err(e) => return Ended::Failed(io::Error::other(e)),
            }
            if gather(end) {
                return Ended::Unwanted;
            }
        }
    }

    /// Waits for events, or for [`BEAT_INTERVAL`]; `false`: it is over.
    fn wait(&self, end: &io::PipeReader) -> io::Result<bool> {
        let [events, settings] = self.sockets.each_ref().map(AsFd::as_fd);
        let fds = [end.as_fd(), events, settings, self.firewall.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, BEAT_INTERVAL) {
            Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
            Ok(_) => Ok(!fds[0].any().unwrap_or(true)),
        }
    }

    fn hear(&mut self) -> io::Result<()> {
        for i in 0..self.sockets.len() {
            loop {
                match self.sockets[i].events_now() {
                    Ok(events) => self.judge(&events),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.raw_os_error() != Some(libc::ENOBUFS) => return Err(e),
                    Err(e) => {
                        tracing::warn!("events of the kernel were lost: {e}");
                        self.react(&Drift::Underlay);
                        self.tell(Drift::Everything);
                    }
                }
            }
        }
        Ok(())
    }

    fn judge(&mut self, events: &[Received]) {
        for event in events {
            if parse::is_host_address(event) {
                self.tell(Drift::HostAddresses);
            }
            let own = event.port != 0 && self.shared.ports.lock().contains(&event.port);
            // Ports are numbered by namespace: a pod's process can have one of ours.
            let own = own && event.nsid.is_none();
            let (found, new) = {
                let mut table = self.shared.table.lock();
                (table.judge(event, own), table.is_new_link(event))
            };
            if let Some(index) = new.filter(|_| !own) {
                self.welcome(index);
            }
            for drift in found {
                self.react(&drift);
                self.tell(drift);
            }
        }
    }

    /// A network card that appears later: a host that forwards IPv6 ignores router advertisements
    /// unless its link is told otherwise.
    fn welcome(&mut self, index: u32) {
        let found = query::link(&mut self.asking, LinkId::Index(index));
        let Ok(Some(link)) = found else { return };
        let configured = self.shared.settings.underlay.as_ref();
        let underlay = configured.is_some_and(|name| name.as_str() == link.name);
        let card = match link.kind.as_str() {
            "" | "vlan" | "bond" | "team" | "macvlan" | "macsec" => true,
            // Of a node in a container that is the card. Of other programs' pods it is not:
            // they could advertise routers to the host.
            "veth" => !self.shared.table.lock().has_underlay(),
            _ => false,
        };
        if link.master.is_some() || !(underlay || card) {
            return;
        }
        match sysctl::keep_advertised_routes_of(&link.name) {
            Ok(true) => tracing::info!(
                link = link.name,
                "{} takes router advertisements although the host forwards",
                link.name
            ),
            Ok(false) => {}
            Err(error) => tracing::warn!(link = link.name, %error,
                "{} takes no router advertisements: {error}", link.name),
        }
    }

    fn react(&mut self, drift: &Drift) {
        match drift {
            Drift::Network(name) => drop(self.shared.bridges.lock().remove(name)),
            Drift::Underlay => {
                if let Err(e) = self.learn_underlay() {
                    tracing::warn!("looking for the underlay's device: {e}");
                }
            }
            _ => {}
        }
    }

    /// Nobody listening is noticed in `run`.
    fn tell(&self, drift: Drift) {
        drop(self.drift.send(drift));
    }
}

/// Lets events gather; `true`: the listener was dropped meanwhile.
fn gather(end: &io::PipeReader) -> bool {
    // An error only means a shorter wait.
    poll(&mut [PollFd::new(end.as_fd(), PollFlags::POLLIN)], GATHER).is_ok_and(|ready| ready > 0)
}
