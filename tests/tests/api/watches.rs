//! Watch streams: nothing lost, resumable, and honest about what is too old.

use anyhow::{Context as _, Result, bail, ensure};
use netd_api::v1::{EventType, WatchEndpointsRequest, WatchEndpointsResponse};
use testbed::{Daemon, block_on, case, wait};
use tonic::{Code, Streaming};

use crate::node::{LIMIT, Node, refused};

struct Watch(Streaming<WatchEndpointsResponse>);

impl Watch {
    fn open(netd: &Daemon, after_revision: i64) -> Result<Self, tonic::Status> {
        let service = netd.endpoint_service();
        let mut service = service.map_err(|error| tonic::Status::unknown(error.to_string()))?;
        let request = WatchEndpointsRequest { after_revision };
        Ok(Self(block_on(service.watch_endpoints(request))?.into_inner()))
    }

    fn next(&mut self) -> Result<WatchEndpointsResponse> {
        let next = block_on(async { tokio::time::timeout(LIMIT, self.0.message()).await });
        next.context("no event in time")??.context("the stream ended")
    }

    /// The first message, or the status instead of it.
    fn outcome(&mut self) -> Result<Result<Option<WatchEndpointsResponse>, tonic::Status>> {
        let next = block_on(async { tokio::time::timeout(LIMIT, self.0.message()).await });
        next.context("neither an event nor an end")
    }

    /// Events up to and with the first that `last` accepts.
    fn until(
        &mut self,
        mut last: impl FnMut(&WatchEndpointsResponse) -> bool,
    ) -> Result<Vec<WatchEndpointsResponse>> {
        let mut events = Vec::new();
        loop {
            events.push(self.next()?);
            if events.last().is_some_and(&mut last) {
                return Ok(events);
            }
        }
    }
}

fn synced(event: &WatchEndpointsResponse) -> bool {
    event.r#type() == EventType::Synced
}

fn removed(id: &str) -> impl Fn(&WatchEndpointsResponse) -> bool {
    move |event| event.r#type() == EventType::Removed && sandbox(event) == id
}

fn sandbox(event: &WatchEndpointsResponse) -> &str {
    event.endpoint.as_ref().map_or("", |endpoint| &endpoint.sandbox_id)
}

#[test]
fn a_watch_begins_with_what_there_is_and_goes_on_with_changes() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (one, two) = (node.bare("one")?, node.bare("two")?);
        node.netd.attach(one.request())?;
        let mut watch = Watch::open(&node.netd, 0)?;
        let begun = watch.until(synced)?;
        ensure!(begun.len() == 2 && begun.first().is_some_and(|event| sandbox(event) == one.id));
        node.netd.attach(two.request())?;
        node.detach(&one)?;
        let rest = watch.until(removed(&one.id))?;
        ensure!(rest.iter().any(|event| sandbox(event) == two.id), "{rest:?}");
        let mut revisions: Vec<i64> =
            begun.iter().chain(&rest).map(|event| event.revision).collect();
        let seen = revisions.clone();
        revisions.sort_unstable();
        ensure!(revisions == seen, "revisions went back: {seen:?}");
        Ok(())
    })
}

#[test]
fn a_resumed_watch_has_every_change_since_and_nothing_from_before() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let before = node.bare("before")?;
        node.netd.attach(before.request())?;
        let begun = Watch::open(&node.netd, 0)?.until(synced)?;
        let revision = begun.last().context("no event")?.revision;
        let mut names = Vec::new();
        for number in 0..10 {
            let pod = node.bare(&format!("pod{number}"))?;
            node.netd.attach(pod.request())?;
            node.detach(&pod)?;
            names.push(pod.id.clone());
        }
        // Links are removed in whatever order the kernel gets done with them.
        let mut gone = 0;
        let all_gone = |event: &WatchEndpointsResponse| {
            gone += usize::from(event.r#type() == EventType::Removed);
            gone == names.len()
        };
        let events = Watch::open(&node.netd, revision)?.until(all_gone)?;
        ensure!(events.iter().all(|event| event.revision > revision), "{events:?}");
        ensure!(events.iter().all(|event| sandbox(event) != before.id), "{events:?}");
        for name in &names {
            let of =
                |kind| events.iter().any(|event| event.r#type() == kind && sandbox(event) == name);
            ensure!(of(EventType::Added) && of(EventType::Removed), "{name}: {events:?}");
        }
        Ok(())
    })
}

#[test]
fn a_list_and_a_watch_from_its_revision_leave_no_gap() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let mut service = node.netd.endpoint_service()?;
        let list = block_on(service.list_endpoints(netd_api::v1::ListEndpointsRequest::default()))?
            .into_inner();
        let pod = node.bare("pod")?;
        node.netd.attach(pod.request())?;
        let mut watch = Watch::open(&node.netd, list.revision)?;
        ensure!(sandbox(&watch.next()?) == pod.id);
        Ok(())
    })
}

#[test]
fn a_revision_that_is_too_old_or_still_to_come_is_out_of_range() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let begun = Watch::open(&node.netd, 0)?.until(synced)?;
        let old = begun.last().context("no event")?.revision.max(1);
        node.netd.attach(pod.request())?;
        node.detach(&pod)?;
        node.nothing_left()?;
        // The history is gone with the process: said, not silently left out.
        node.netd.restart()?;
        for (what, revision) in [("before the restart", old), ("still to come", 1 << 40)] {
            let resumed = Watch::open(&node.netd, revision)
                .map_err(anyhow::Error::from)
                .and_then(|mut watch| watch.outcome())?;
            refused(what, resumed, (Code::OutOfRange, "REVISION_COMPACTED"))?;
        }
        let negative =
            Watch::open(&node.netd, -1).and_then(|mut watch| block_on(watch.0.message()));
        let invalid = (Code::InvalidArgument, "INVALID_FIELD");
        refused("-1", negative, invalid)
    })
}

/// A watcher that reads nothing must not hold up anybody, and is told if it lost something.
#[test]
fn a_watcher_that_does_not_read_holds_up_nobody_and_misses_nothing_silently() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let mut slow: Vec<Watch> =
            (0..20).map(|_| Watch::open(&node.netd, 0)).collect::<Result<_, _>>()?;
        let pod = node.bare("pod")?;
        let start = std::time::Instant::now();
        let annotation = "x".repeat(4000);
        for _ in 0..150 {
            let mut request = pod.request();
            request.annotations = [("padding".to_owned(), annotation.clone())].into();
            node.netd.attach(request)?;
            node.detach(&pod)?;
        }
        ensure!(start.elapsed() < 3 * LIMIT, "{:?}", start.elapsed());
        wait::until(LIMIT, "gone", || {
            ensure!(node.netd.endpoints()?.is_empty());
            Ok(())
        })?;
        for watch in &mut slow {
            let mut seen = 0;
            loop {
                let next = block_on(async { tokio::time::timeout(LIMIT, watch.0.message()).await });
                match next.context("neither events nor an end")? {
                    Ok(Some(event)) if event.r#type() == EventType::Removed => seen += 1,
                    Ok(Some(_)) => {}
                    // Told that it lost something: it lists and watches again.
                    Ok(None) => bail!("ended without a word after {seen}"),
                    Err(status) => {
                        let compacted = (Code::OutOfRange, "REVISION_COMPACTED");
                        refused("too slow", Err::<(), _>(status), compacted)?;
                        break;
                    }
                }
                if seen == 150 {
                    break;
                }
            }
        }
        Ok(())
    })
}
