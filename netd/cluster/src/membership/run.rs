//! The loop: passes events to the [`Reconciler`] and carries out its actions.

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Command, Status, Update,
    diff::Now,
    files::{self, OwnFile},
    in_time::in_time,
    left,
    reconciler::{Action, Completion, Reconciler, StoreUpdate},
    saver::PeersSaver,
    status,
    view::Part,
};
use netd_store::LeaseStore;

/// A request that takes longer is tried again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

type Doing = Pin<Box<dyn Future<Output = Completion> + Send>>;

/// See the module.
pub(super) struct Runner {
    pub reconciler: Reconciler,
    pub store: Arc<dyn LeaseStore>,
    pub state_dir: PathBuf,
    pub news: mpsc::Receiver<(Part, StoreUpdate)>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub updates: mpsc::Sender<Update>,
    pub relist: [Arc<Notify>; 2],
    pub status: watch::Sender<Status>,
}

impl Runner {
    /// Runs until it is asked to stop.
    pub(super) async fn run(mut self) {
        let mut doing: Option<Doing> = None;
        let updates = self.updates.clone();
        let mut saver = PeersSaver::new(self.state_dir.clone(), &self.reconciler);
        loop {
            let now = now();
            if doing.is_none() {
                doing = self.reconciler.next(now).map(|action| self.begin(action));
            }
            status::publish(&self.reconciler, &self.status);
            let wake_at = self.reconciler.wake_at(now).map(Instant::from_std);
            let wake_at = wake_at.into_iter().chain(saver.wake_at(&self.reconciler)).min();
            tokio::select! {
                news = self.news.recv() => {
                    if let Some((part, seen)) = news {
                        self.reconciler.ingest(part, seen, self::now());
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Stop(stopped)) => {
                        saver.finish(&self.reconciler).await;
                        // Who asked may be gone.
                        let _ = stopped.send(());
                        return;
                    }
                    None => return saver.finish(&self.reconciler).await,
                    Some(command) => self.command(command),
                },
                done = finished(&mut doing) => {
                    doing = None;
                    self.reconciler.complete(done, self::now());
                }
                permit = updates.reserve(), if !self.reconciler.pending.is_empty() => {
                    if let (Ok(permit), Some(update)) = (permit, self.reconciler.pending.take_next()) {
                        permit.send(update);
                    }
                    if updates.is_closed() {
                        return saver.finish(&self.reconciler).await;
                    }
                }
                () = at(wake_at) => saver.tick(&self.reconciler),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Announce(attrs) => self.reconciler.announce(attrs),
            Command::Avoid(networks) => self.reconciler.avoid(networks),
            Command::More => self.reconciler.more(),
            Command::GiveBack(subnets) => self.reconciler.give_back(&subnets),
            // Who asked may be gone.
            Command::List(answer) => drop(answer.send(status::listing(&self.reconciler))),
            Command::Vteps(at, family, answer) => {
                drop(answer.send(left::vteps(&self.reconciler.view, &at, family)));
            }
            Command::Stop(_) => {}
        }
    }

    /// Starts an action; it is done when the future is.
    fn begin(&self, action: Action) -> Doing {
        let store = Arc::clone(&self.store);
        match action {
            Action::Grant(ttl) => Box::pin(async move {
                Completion::Granted(in_time(REQUEST_TIMEOUT, store.grant(ttl)).await)
            }),
            Action::KeepAlive(lease) => Box::pin(async move {
                Completion::KeptAlive(
                    lease,
                    in_time(REQUEST_TIMEOUT, store.keep_alive(lease)).await,
                )
            }),
            Action::Commit(why, txn) => Box::pin(async move {
                let outcome = in_time(REQUEST_TIMEOUT, store.commit(txn.clone())).await;
                Completion::Committed(why, txn, outcome)
            }),
            Action::Save(file) => {
                let (dir, id) = (self.state_dir.clone(), self.reconciler.claims.me.id.clone());
                Box::pin(async move {
                    let work = move || {
                        let written = file.write(&dir, &id).map_err(|e| {
                            format!("{}: {e}; the node can't remember its subnets", dir.display())
                        });
                        (file, written)
                    };
                    match tokio::task::spawn_blocking(work).await {
                        Ok((file, result)) => Completion::Saved(file, result),
                        Err(err) => Completion::Saved(OwnFile::default(), Err(err.to_string())),
                    }
                })
            }
            Action::TakeNewId(file) => {
                let dir = self.state_dir.clone();
                Box::pin(async move {
                    let work = move || {
                        let id = files::new_node_id(&dir, &file)
                            .map_err(|e| format!("{}: {e}; no new node id", dir.display()))?;
                        Ok((id, file))
                    };
                    let done = tokio::task::spawn_blocking(work).await;
                    Completion::NewId(done.unwrap_or_else(|e| Err(e.to_string())))
                })
            }
            Action::Relist => {
                self.relist.iter().for_each(|relist| relist.notify_one());
                Box::pin(std::future::ready(Completion::Relisting))
            }
        }
    }
}

async fn finished(doing: &mut Option<Doing>) -> Completion {
    match doing {
        Some(doing) => doing.await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

pub(super) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Now { mono: Instant::now().into_std(), unix }
}
