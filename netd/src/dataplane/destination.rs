//! What an attach needs in its sandbox whatever else it is: made ready on another
//! processor while addresses are chosen, recorded, and the links made.

use std::sync::Arc;

use super::{
    DataplaneError,
    kernel::{failed, pod_socket, refused},
    message::link::{self, Which},
    netlink::{Batch, Socket},
    netns::Netns,
    worker::{Pending, Worker},
};

/// Where an attach goes.
pub struct Destination {
    netns: Arc<Netns>,
    ready: Option<Ready>,
}

struct Ready {
    /// Once this is dropped the helper need not begin any more.
    _wanted: Arc<Wanted>,
    /// `None` in the end: it was not wanted any more.
    outcome: Pending<Option<Socket>>,
}

struct Wanted(Arc<Netns>);

impl Destination {
    /// Nothing is ready, nor will be.
    pub fn bare(netns: Arc<Netns>) -> Self {
        Self { netns, ready: None }
    }

    /// Begins to make it ready. This comes before the intent is recorded: there is nothing
    /// to give back, it goes with the namespace, and runtimes bring `lo` up themselves.
    pub fn prepare(netns: Arc<Netns>, helper: &Worker<()>) -> Self {
        let wanted = Arc::new(Wanted(netns.clone()));
        let there = Arc::downgrade(&wanted);
        let outcome =
            helper.begin(move |()| there.upgrade().map(|wanted| open(&wanted.0)).transpose());
        Self { netns, ready: Some(Ready { _wanted: wanted, outcome }) }
    }

    /// Its namespace.
    pub fn netns(&self) -> &Arc<Netns> {
        &self.netns
    }

    /// A socket in it, whose `lo` is up; `None`: not yet, or it failed, which whoever does
    /// it himself will see.
    pub fn take_ready(&mut self) -> Option<Socket> {
        match self.ready.take()?.outcome.now()? {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%error, "a sandbox was not made ready ahead");
                None
            }
        }
    }
}

fn open(netns: &Netns) -> Result<Socket, DataplaneError> {
    let what = || format!("{}: bring lo up", netns.path().display());
    let mut socket = pod_socket(netns)?;
    let mut batch = Batch::new();
    batch.route(link::set_up(Which::Name("lo")), 0);
    let results = socket.batch(batch).map_err(failed(what()))?;
    results.into_iter().collect::<Result<(), _>>().map_err(|e| refused(what(), &e))?;
    Ok(socket)
}
