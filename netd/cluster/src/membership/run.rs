//! The loop: passes events to the [`Reconciler`] and carries out its actions.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{
    Command, Status, Update,
    files::{self, OwnFile, PeersFile},
    in_time::in_time,
    left,
    reconciler::{Action, Completion, Reconciler, StoreUpdate},
    saver::PeersSaver,
    status,
    view::Part,
    waiting::{self, Doing, at, finished, now},
};
use netd_store::LeaseStore;

/// A request that takes longer is tried again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

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
        let mut doing: Option<Doing<Completion>> = None;
        let updates = self.updates.clone();
        let mut saver = PeersSaver::new(self.reconciler.peers.changes);
        loop {
            let now = now();
            if doing.is_none() {
                doing = self.reconciler.next(now).map(|action| self.begin(action));
            }
            status::publish(&self.reconciler, &self.status);
            let wake_at = self.reconciler.wake_at(now).map(Instant::from_std);
            let wake_at =
                wake_at.into_iter().chain(saver.wake_at(self.reconciler.peers.changes)).min();
            tokio::select! {
                news = self.news.recv() => {
                    if let Some((part, seen)) = news {
                        self.reconciler.ingest(part, seen, waiting::now());
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Stop(stopped)) => {
                        self.finish(saver).await;
                        // Who asked may be gone.
                        let _ = stopped.send(());
                        return;
                    }
                    None => return self.finish(saver).await,
                    Some(command) => self.command(command),
                },
                done = finished(&mut doing) => {
                    doing = None;
                    self.reconciler.complete(done, waiting::now());
                }
                permit = updates.reserve(), if !self.reconciler.pending.is_empty() => {
                    if let (Ok(permit), Some(update)) = (permit, self.reconciler.pending.take_next()) {
                        permit.send(update);
                    }
                    if updates.is_closed() {
                        return self.finish(saver).await;
                    }
                }
                () = at(wake_at) => saver.tick(self.reconciler.peers.changes, || self.save_peers()),
            }
        }
    }

    async fn finish(self, saver: PeersSaver) {
        saver.finish(self.reconciler.peers.changes, || self.save_peers()).await;
    }

    /// Writes what is known of the others now.
    fn save_peers(&self) -> impl FnOnce() + Send + 'static + use<> {
        let (peers, owners) =
            (self.reconciler.peers.known().clone(), status::owners(&self.reconciler));
        let dir = self.state_dir.clone();
        move || {
            if let Err(err) = (PeersFile { peers, owners }).write(&dir) {
                let dir = dir.display();
                tracing::warn!("{dir}: {err}; a start without the store will know older peers");
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
    fn begin(&self, action: Action) -> Doing<Completion> {
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
