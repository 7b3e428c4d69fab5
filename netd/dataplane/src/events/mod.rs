//! Notices what other programs change, on the host and in the sandboxes.
//!
//! One netlink socket receives the events of every namespace that has an id in the host's,
//! as namespaces at the other end of our veths have. Nothing is polled. When the kernel
//! had to drop events, that is reported as a [`Drift::Everything`].

mod filter;
mod ids;
mod overlay;
mod parse;
mod table;
#[cfg(test)]
mod tests;

use std::{io, os::fd::AsFd, sync::Arc};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::UnboundedSender;

pub(crate) use self::{
    overlay::{Expectation, ExpectedDevice, ExpectedUnderlay},
    table::{Expected, ExpectedBridge, Table},
};
use crate::{
    DataplaneError, Drift,
    error::failed,
    exec::{context::SharedContext, namespace::go_home},
    firewall::{OwnChanges, Watcher},
    netlink::{Protocol, Received, Socket},
    network::underlay,
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
/// Room for events that are not read yet, bytes.
const BUFFER: i32 = 16 << 20;

/// Ends the thread when dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    _end: io::PipeWriter,
}

struct Listener {
    /// Everywhere, and on the host.
    sockets: [Socket; 2],
    /// Asks; its answers don't get mixed up with events.
    asking: Socket,
    firewall: Watcher,
    shared: Arc<SharedContext>,
    drift: UnboundedSender<Drift>,
}

/// Starts to listen on a thread of its own. Everything that happens after this returns is
/// noticed, except what the socket with port `quiet` causes: it makes ten thousand changes
/// at a time.
pub(crate) fn listen(
    shared: Arc<SharedContext>,
    quiet: u32,
    own: OwnChanges,
    drift: UnboundedSender<Drift>,
) -> Result<Listening, DataplaneError> {
    let what = "listening to the kernel's events";
    let (end, writer) = io::pipe().map_err(failed(what))?;
    let (ready, started) = std::sync::mpsc::channel();
    let body = move || {
        let home = shared.settings.host_netns.clone();
        let opened = go_home(home).and_then(|()| Listener::open(shared, quiet, own, drift));
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

#[cfg(feature = "fuzzing")]
/// For fuzzing: a table that knows nothing yet.
pub(super) fn fuzz_table() -> Table {
    Table::default()
}

impl Listener {
    fn open(
        shared: Arc<SharedContext>,
        quiet: u32,
        own: OwnChanges,
        drift: UnboundedSender<Drift>,
    ) -> Result<Self, DataplaneError> {
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
        let found = underlay::find(&mut self.asking, configured.as_ref())?;
        let known = found.map(|link| (link.index, link.mtu));
        self.shared.table.lock().know_underlay(known);
        Ok(())
    }

    fn run(mut self, end: &io::PipeReader) {
        loop {
            match self.wait(end) {
                Ok(true) => {}
                Ok(false) => return,
                Err(e) => {
                    return tracing::error!(
                        "the netlink event listener has stopped, changes by other programs go unnoticed: {e}"
                    );
                }
            }
            if self.drift.is_closed() {
                return;
            }
            self.hear();
            match self.firewall.try_next() {
                Ok(None) => {}
                Ok(Some(_)) => self.tell(Drift::Firewall),
                Err(e) => {
                    return tracing::error!(
                        "the nftables event listener has stopped, changes by other programs go unnoticed: {e}"
                    );
                }
            }
            if gather(end) {
                return;
            }
        }
    }

    /// Waits for events; `false`: it is over.
    fn wait(&self, end: &io::PipeReader) -> io::Result<bool> {
        let [events, settings] = self.sockets.each_ref().map(AsFd::as_fd);
        let fds = [end.as_fd(), events, settings, self.firewall.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
            Ok(_) => Ok(!fds[0].any().unwrap_or(true)),
        }
    }

    fn hear(&mut self) {
        for i in 0..self.sockets.len() {
            loop {
                match self.sockets[i].events_now() {
                    Ok(events) => self.judge(&events),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => {
                        tracing::warn!("events of the kernel were lost: {e}");
                        self.react(&Drift::Underlay);
                        self.tell(Drift::Everything);
                    }
                }
            }
        }
    }

    fn judge(&mut self, events: &[Received]) {
        for event in events {
            if parse::is_host_address(event) {
                self.tell(Drift::HostAddresses);
            }
            let own = event.port != 0 && self.shared.ports.lock().contains(&event.port);
            // Ports are numbered by namespace: a pod's process can have one of ours.
            let own = own && event.nsid.is_none();
            let found = self.shared.table.lock().judge(event, own);
            for drift in found {
                self.react(&drift);
                self.tell(drift);
            }
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
