//! Hears what somebody else changes, on the host and in the sandboxes.
//!
//! One netlink socket listens to every namespace that has an id in the host's: those
//! at the other end of our veths do. Nothing is polled and nothing is missed: when the
//! kernel had to drop events, that is a [`Drift::Everything`].

mod parse;
mod table;
#[cfg(test)]
mod tests;

use std::{io, os::fd::AsFd, sync::Arc};

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::InfoKind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::UnboundedSender;

use self::table::Table;
use super::{
    DataplaneError, Drift,
    firewall::{OwnChanges, Watcher},
    kernel::{Shared, failed},
    message::{
        link::{self, Which},
        net,
    },
    netlink::{Batch, Family, Received, Socket},
    underlay,
    worker::go_home,
};

/// Multicast groups (uapi/linux/rtnetlink.h): links, neighbours, addresses, routes and
/// settings of both families.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 9, 11, 24, 25];
/// Room for events that are not read yet, bytes.
const BUFFER: i32 = 16 << 20;

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct Listening {
    _end: io::PipeWriter,
}

struct Listener {
    events: Socket,
    /// Asks; its answers don't get mixed up with events.
    asking: Socket,
    firewall: Watcher,
    shared: Arc<Shared>,
    table: Table,
    drift: UnboundedSender<Drift>,
    /// Of the bridges that the table knows.
    version: u64,
}

/// Starts to listen on a thread of its own. Whatever happens after this returns is heard.
pub fn listen(
    shared: Arc<Shared>,
    own: OwnChanges,
    drift: UnboundedSender<Drift>,
) -> Result<Listening, DataplaneError> {
    let what = "listening to the kernel's events";
    let (end, writer) = io::pipe().map_err(failed(what))?;
    let (ready, started) = std::sync::mpsc::channel();
    let body = move || {
        let home = shared.settings.host_netns.clone();
        let opened = go_home(home).and_then(|()| Listener::open(shared, own, drift));
        match opened {
            Err(e) => drop(ready.send(Err(e))),
            Ok(listener) => {
                if ready.send(Ok(())).is_ok() {
                    listener.run(&end);
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("netd-events".into())
        .spawn(body)
        .map_err(failed("starting the thread netd-events"))?;
    let died = |_| failed(what)(io::Error::other("the thread died"));
    started.recv().map_err(died)??;
    Ok(Listening { _end: writer })
}

/// For fuzzing: a table that knows nothing yet.
pub(super) fn fuzz_table() -> Table {
    Table::default()
}

impl Listener {
    fn open(
        shared: Arc<Shared>,
        own: OwnChanges,
        drift: UnboundedSender<Drift>,
    ) -> Result<Self, DataplaneError> {
        let what = || failed("listening to the kernel's events");
        let events = Socket::open(Family::Route).map_err(what())?;
        events.set_buffers(shared.settings.event_buffer.unwrap_or(BUFFER)).map_err(what())?;
        events.subscribe(&GROUPS, true).map_err(what())?;
        let asking = Socket::open(Family::Route).map_err(what())?;
        let firewall = Watcher::open(own)?;
        let table = Table::default();
        let mut listener = Self { events, asking, firewall, shared, table, drift, version: 0 };
        listener.learn().map_err(what())?;
        Ok(listener)
    }

    /// Reads what is there.
    fn learn(&mut self) -> io::Result<()> {
        self.table = Table::default();
        self.version = 0;
        self.learn_bridges()?;
        let dumps = [
            link::get_all(Some(InfoKind::Veth)),
            net::get_routes(AddressFamily::Inet, None),
            net::get_routes(AddressFamily::Inet6, None),
        ];
        for dump in dumps {
            self.learn_from(dump)?;
        }
        self.learn_underlay()
    }

    fn learn_from(&mut self, dump: RouteNetlinkMessage) -> io::Result<()> {
        for message in super::observe::some_family(self.asking.dump(dump))? {
            self.table.judge(&message, true);
        }
        Ok(())
    }

    fn learn_underlay(&mut self) -> io::Result<()> {
        let configured = self.shared.settings.underlay.clone();
        let found = underlay::find(&mut self.asking, configured.as_ref())?;
        self.table.know_underlay(found.map(|link| (link.index, link.mtu)));
        Ok(())
    }

    /// Takes over the bridges that were made or adopted meanwhile.
    fn learn_bridges(&mut self) -> io::Result<()> {
        let (version, bridges) = self.shared.bridges.newer_than(self.version);
        self.version = version;
        for (name, index) in bridges {
            if self.table.know_bridge(name, index) {
                let mut batch = Batch::new();
                batch.route(link::get(Which::Index(index)), 0);
                let (_, answer) = self.asking.exchange(batch)?;
                for message in answer {
                    self.table.judge(&message, true);
                }
            }
        }
        Ok(())
    }

    fn run(mut self, end: &io::PipeReader) {
        loop {
            match self.wait(end) {
                Ok(true) => {}
                Ok(false) => return,
                Err(e) => return tracing::error!("events of the kernel are heard no more: {e}"),
            }
            if self.drift.is_closed() {
                return;
            }
            self.hear();
            match self.firewall.try_next() {
                Ok(None) => {}
                Ok(Some(_)) => self.tell(Drift::Firewall),
                Err(e) => return tracing::error!("changes of nftables are heard no more: {e}"),
            }
        }
    }

    /// Waits for events; `false`: it is over.
    fn wait(&self, end: &io::PipeReader) -> io::Result<bool> {
        let fds = [end.as_fd(), self.events.as_fd(), self.firewall.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
            Ok(_) => Ok(!fds[0].any().unwrap_or(true)),
        }
    }

    fn hear(&mut self) {
        loop {
            match self.events.events_now() {
                Ok(events) => self.judge(&events),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    // Lost some (ENOBUFS). Those that are left are older than what is
                    // read now, which makes them harmless.
                    tracing::warn!("events of the kernel were lost: {e}");
                    if let Err(e) = self.learn() {
                        tracing::error!("reading the kernel's links anew: {e}");
                    }
                    self.tell(Drift::Everything);
                }
            }
        }
    }

    fn judge(&mut self, events: &[Received]) {
        if let Err(e) = self.learn_bridges() {
            tracing::warn!("reading the networks' bridges: {e}");
        }
        for event in events {
            let own = event.port != 0 && self.shared.ports.lock().contains(&event.port);
            // Ports are numbered by namespace: a pod's process can have one of ours.
            let own = own && event.nsid.is_none();
            for drift in self.table.judge(event, own) {
                self.react(&drift);
                self.tell(drift);
            }
        }
    }

    fn react(&mut self, drift: &Drift) {
        match drift {
            Drift::Network(name) => drop(self.shared.bridges.forget(name)),
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
