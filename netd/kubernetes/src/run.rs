//! The loop: passes events to the [`Reconciler`] and carries out its actions.

use std::{
    fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::PathBuf, sync::Arc, time::Duration,
};

use netd_cluster::membership::{
    Membership, Status, Update,
    source::{self, Command, Doing, PeersSaver, at, finished, now},
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    api::ApiServer,
    follow::Follower,
    followed::{News, Nodes},
    node::NodeFacts,
    options::KubernetesOptions,
    own_file::OwnFile,
    peers_file,
    reconciler::{Reconciler, Settings},
    report_events,
};

/// Updates that wait for the reader; more are put together.
const UPDATES: usize = 16;
/// News of the API that waits for the loop.
const NEWS: usize = 256;
/// How often net-conf.json is read: a ConfigMap's file is replaced within a minute or two.
const NET_CONF_INTERVAL: Duration = Duration::from_secs(5);

type Saving = Doing<(OwnFile, Result<(), String>)>;
type Patching = Doing<Result<NodeFacts, String>>;
type Readiness = watch::Receiver<Result<(), String>>;

struct Runner {
    reconciler: Reconciler,
    api: Arc<ApiServer>,
    node: String,
    state_dir: PathBuf,
    net_conf: PathBuf,
    readiness: Option<Readiness>,
    news: mpsc::Receiver<News>,
    commands: mpsc::UnboundedReceiver<Command>,
    updates: mpsc::Sender<Update>,
    status: watch::Sender<Status>,
}

/// Begins with what the node remembers, and follows the API from now on. The API may be out of
/// reach. The updates are to be read: as long as they are not, they are put together.
///
/// # Errors
/// The state directory can't be made.
pub async fn start(
    options: KubernetesOptions,
) -> io::Result<(Arc<Membership>, mpsc::Receiver<Update>)> {
    let KubernetesOptions { access, node_name, prefix, net_conf, state_dir, hold, .. } = options;
    let dir = state_dir.clone();
    let read = move || {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok::<_, io::Error>((OwnFile::read(&dir), peers_file::read(&dir)))
    };
    let (own, known) = tokio::task::spawn_blocking(read).await??;
    let settings = Settings {
        node: node_name.clone(),
        prefix: prefix.clone(),
        net_conf: net_conf.display().to_string(),
        hold,
    };
    let reconciler = Reconciler::new(settings, own, known);
    let (commands, commands_rx) = mpsc::unbounded_channel();
    let (updates, updates_rx) = mpsc::channel(UPDATES);
    let (news, news_rx) = mpsc::channel(NEWS);
    let (status, status_rx) = watch::channel(reconciler.status());
    let api = Arc::new(ApiServer::new(access, prefix.clone()));
    tokio::spawn(Follower { api: Arc::clone(&api), what: Nodes(prefix), news }.run());
    tokio::spawn(report_events::run(Arc::clone(&api), node_name.clone(), options.problems));
    let runner = Runner {
        reconciler,
        api,
        node: node_name,
        state_dir,
        net_conf,
        readiness: options.readiness,
        news: news_rx,
        commands: commands_rx,
        updates,
        status,
    };
    tokio::spawn(runner.run());
    Ok((Membership::of_source(commands, status_rx, true), updates_rx))
}

impl Runner {
    async fn run(mut self) {
        let (mut saving, mut patching): (Option<Saving>, Option<Patching>) = (None, None);
        let updates = self.updates.clone();
        let mut saver = PeersSaver::new(self.reconciler.peers.changes);
        let mut read_net_conf = tokio::time::interval(NET_CONF_INTERVAL);
        if let Some(readiness) = &mut self.readiness {
            // What it is now counts as news.
            readiness.mark_changed();
        }
        loop {
            let now = now();
            self.reconciler.tick(now);
            if saving.is_none() {
                saving = self.reconciler.next_save(now).map(|file| self.save(file));
            }
            if patching.is_none() {
                patching = self.reconciler.next_patch(now).map(|patch| self.patch(patch));
            }
            self.publish();
            let wake_at = self.reconciler.wake_at(now).map(Instant::from_std);
            let wake_at =
                wake_at.into_iter().chain(saver.wake_at(self.reconciler.peers.changes)).min();
            tokio::select! {
                _ = read_net_conf.tick() => self.read_net_conf().await,
                Some(news) = self.news.recv() => self.reconciler.ingest(news, source::now()),
                ready = changed(&mut self.readiness) => {
                    self.reconciler.readiness(ready, source::now());
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
                (file, result) = finished(&mut saving) => {
                    saving = None;
                    self.reconciler.saved(file, result);
                }
                result = finished(&mut patching) => {
                    patching = None;
                    self.reconciler.patched(result, source::now());
                }
                permit = updates.reserve(), if !self.reconciler.pending.is_empty() => {
                    if let (Ok(permit), Some(update)) = (permit, self.reconciler.pending.take_next()) {
                        permit.send(update);
                    }
                    if updates.is_closed() {
                        return self.finish(saver).await;
                    }
                }
                () = at(wake_at) => {
                    saver.tick(self.reconciler.peers.changes, || self.save_peers());
                },
            }
        }
    }

    fn publish(&self) {
        let status = self.reconciler.status();
        self.status.send_if_modified(|old| {
            let news = *old != status;
            *old = status;
            news
        });
    }

    async fn read_net_conf(&mut self) {
        let read = tokio::fs::read(&self.net_conf).await;
        let failed = |e: io::Error| {
            let path = self.net_conf.display();
            format!("{path}: {e}: write flannel's network configuration to it")
        };
        let bytes = read.map_err(failed);
        let bytes = bytes.as_ref().map(Vec::as_slice).map_err(String::clone);
        self.reconciler.net_conf(bytes, now());
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Announce(attrs) => self.reconciler.announce(attrs),
            // The controller-manager chooses the node's subnets, and the node has them for good.
            Command::Avoid(_) | Command::More | Command::GiveBack(_) | Command::Stop(_) => {}
            // Who asked may be gone.
            Command::List(answer) => drop(answer.send(self.reconciler.listing())),
            Command::Vteps(_, family, answer) => {
                drop(answer.send(self.reconciler.vteps(family)));
            }
        }
    }

    fn save(&self, file: OwnFile) -> Saving {
        let dir = self.state_dir.clone();
        Box::pin(async move {
            let work = move || {
                let written = file.write(&dir).map_err(|e| {
                    format!("{}: {e}; the node can't remember its subnets", dir.display())
                });
                (file, written)
            };
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|err| (OwnFile::default(), Err(err.to_string())))
        })
    }

    fn patch(&self, patch: Value) -> Patching {
        let (api, node) = (Arc::clone(&self.api), self.node.clone());
        Box::pin(async move {
            let done = api.patch_status(&node, patch).await;
            done.map_err(|e| format!("the status of Node {node} can't be written: {e}"))
        })
    }

    async fn finish(self, saver: PeersSaver) {
        saver.finish(self.reconciler.peers.changes, || self.save_peers()).await;
    }

    /// Writes what is known of the other Nodes now.
    fn save_peers(&self) -> impl FnOnce() + Send + 'static + use<> {
        let (known, dir) = (self.reconciler.peers.known().clone(), self.state_dir.clone());
        move || {
            if let Err(err) = peers_file::save(&dir, &known) {
                let dir = dir.display();
                tracing::warn!("{dir}: {err}; a start without the API will know older Nodes");
            }
        }
    }
}

async fn changed(readiness: &mut Option<Readiness>) -> Result<(), String> {
    if let Some(receiver) = readiness
        && receiver.changed().await.is_ok()
    {
        return receiver.borrow_and_update().clone();
    }
    std::future::pending().await
}
