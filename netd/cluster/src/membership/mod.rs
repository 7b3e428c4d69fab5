//! This node's leases, and what is known of the others'.
//!
//! - The store decides: a node owns a subnet if the owner key of that subnet has the
//!   node's id. Lease and owner are written in one transaction that compares both, and
//!   are bound to one lease of the store that is kept alive; no peer notices that.
//! - Two machines may have one node id: one is a copy of the other's disk. The id is whose
//!   netd answers to it ([`tenure`]); the other uses no subnet and takes a new id.
//! - Of two claims that overlap under different names the older one counts ([`ownership`]).
//! - Everything that was known stays in force while the store is away, over restarts and
//!   reboots too; what is to be changed is changed when it is back.
//! - A writer of flannel's keys that ignores netd's (a flannel node, a person) is believed
//!   if the lease names another node: this node takes another subnet. If the lease names
//!   this node or none, this node writes it again.
//!
//! [`view`] reads, [`ownership`], [`claims`], [`writes`] and [`allocator`] decide about the node's
//! own, [`diff`] about the others', [`reconciler`] puts that in order; all of it is pure.
//! [`follow`] and [`run`] do the I/O.

mod allocator;
mod backoff;
mod claims;
mod command;
mod config_in_force;
mod diff;
mod files;
mod follow;
mod in_time;
mod incarnation;
mod left;
mod options;
mod ownership;
mod pending_updates;
mod reconciler;
mod records;
pub mod removal;
mod run;
mod saver;
pub mod source;
mod status;
mod tenure;
#[cfg(test)]
mod tests;
mod update;
mod view;
mod waiting;
mod writes;

use std::{io, sync::Arc};

use ipnet::IpNet;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use self::{
    command::Command,
    diff::Peers,
    files::{OwnFile, PeersFile},
    follow::Follower,
    reconciler::{Reconciler, Settings},
    run::Runner,
    view::{Part, View},
    writes::NodeIdentity,
};
use super::{Family, LeaseAttrs, Subnets};
use netd_store::LeaseStore;

pub use self::{
    command::NoMore,
    left::VtepClaims,
    options::{DEFAULT_HOLD, MembershipOptions},
    records::{NodeRecord, OwnerRecord},
    status::{Listing, Status},
    update::{IdentityUpdate, OwnSubnets, PeerUpdate, Update},
};

/// Updates that wait for the reader; more are put together.
const UPDATES: usize = 16;
/// Batches of the store that wait for the loop.
const NEWS: usize = 64;

/// A node's part in the cluster. Dropping it ends the work and leaves the leases alone.
#[derive(Debug)]
pub struct Membership {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<Status>,
    fixed: bool,
}

impl Membership {
    /// Begins with what the node remembers, and follows the store from now on. The
    /// updates are to be read: as long as they are not, they are put together.
    ///
    /// # Errors
    /// The node's id or this boot's mark can be neither read nor made, or its name can't be
    /// one.
    pub async fn start(
        store: Arc<dyn LeaseStore>,
        options: MembershipOptions,
    ) -> io::Result<(Arc<Self>, mpsc::Receiver<Update>)> {
        records::check("node_name", &options.node_name)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let (dir, run_dir) = (options.state_dir.clone(), options.run_dir.clone());
        let read = move || {
            let id = files::node_id(&dir).map_err(|e| {
                io::Error::new(e.kind(), format!("the node's id in {}: {e}", dir.display()))
            })?;
            let incarnation = incarnation::load(&run_dir).map_err(|e| {
                let text = format!("this boot's mark in {}: {e}", run_dir.display());
                io::Error::new(e.kind(), text)
            })?;
            Ok::<_, io::Error>((id, incarnation, OwnFile::read(&dir), PeersFile::read(&dir)))
        };
        let (id, incarnation, own, peers) = tokio::task::spawn_blocking(read).await??;
        let fixed = options.pod_cidr.is_some();
        let state_dir = options.state_dir.clone();
        let (name, version) = (options.node_name.clone(), options.version.clone());
        let me = NodeIdentity { id, name, version, incarnation };
        let reconciler = reconciler_of(options, me, own, peers);

        let (commands, commands_rx) = mpsc::unbounded_channel();
        let (updates, updates_rx) = mpsc::channel(UPDATES);
        let (news, news_rx) = mpsc::channel(NEWS);
        let (status, status_rx) = watch::channel(Status::default());
        status::publish(&reconciler, &status);
        let keys = reconciler.view.keys.clone();
        let follow = |part, prefix| {
            let relist = Arc::new(Notify::new());
            let (store, news) = (Arc::clone(&store), news.clone());
            let follower = Follower { store, part, prefix, news, relist: Arc::clone(&relist) };
            tokio::spawn(follower.run());
            relist
        };
        let relist = [follow(Part::Flannel, keys.flannel()), follow(Part::Cluster, keys.cluster())];
        let runner = Runner {
            reconciler,
            store,
            state_dir,
            news: news_rx,
            commands: commands_rx,
            updates,
            relist,
            status,
        };
        tokio::spawn(runner.run());
        Ok((Arc::new(Self { commands, status: status_rx, fixed }), updates_rx))
    }

    /// One whose work another source's loop does: it takes the commands and tells its status.
    /// `fixed`: the node can't have several subnets.
    pub fn of_source(
        commands: mpsc::UnboundedSender<Command>,
        status: watch::Receiver<Status>,
        fixed: bool,
    ) -> Arc<Self> {
        Arc::new(Self { commands, status, fixed })
    }

    /// From now on the node's leases say this. Equal to what they say: nothing is
    /// written. Before the first announcement ever the node takes no subnet.
    pub fn announce(&self, attrs: LeaseAttrs) {
        self.send(Command::Announce(attrs));
    }

    /// From now on no subnet is claimed that overlaps with one of these: the host itself is in
    /// them or leads to them. What the node has it keeps.
    pub fn avoid(&self, networks: Vec<IpNet>) {
        self.send(Command::Avoid(networks));
    }

    /// One more subnet than the node has; nothing if one is being taken already.
    ///
    /// # Errors
    /// [`NoMore::Fixed`].
    pub fn more(&self) -> Result<(), NoMore> {
        if self.fixed {
            return Err(NoMore::Fixed);
        }
        self.send(Command::More);
        Ok(())
    }

    /// These are not used any more and can be others'. What is fixed, or not this
    /// node's, is left alone. Without any left, another one is taken.
    pub fn give_back(&self, subnets: Vec<Subnets>) {
        self.send(Command::GiveBack(subnets));
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Who is in the cluster; empty after [`Self::stop`].
    pub async fn list(&self) -> Listing {
        let (answer, listing) = oneshot::channel();
        self.send(Command::List(answer));
        listing.await.unwrap_or_default()
    }

    /// Whether other nodes know, or knew before netd was started, a MAC for this node's pods of a
    /// family.
    pub fn announces_vtep(&self, family: Family) -> bool {
        self.status
            .borrow()
            .announced
            .as_ref()
            .is_some_and(|attrs| left::vtep(attrs, family).is_some())
    }

    /// Which MACs leases name for VTEPs of a family of pods. `at`: this node's addresses. `None`:
    /// the store has not been listed yet.
    pub async fn vteps(&self, at: LeaseAttrs, family: Family) -> Option<VtepClaims> {
        let (answer, claims) = oneshot::channel();
        self.send(Command::Vteps(at, family, answer));
        claims.await.ok().flatten()
    }

    /// Ends the work; what is known is on disk when this returns. The node's leases stay:
    /// a restart must not cost it its subnets.
    pub async fn stop(&self) {
        let (answer, stopped) = oneshot::channel();
        self.send(Command::Stop(answer));
        // Stopped before.
        drop(stopped.await);
    }

    fn send(&self, command: Command) {
        // The receiver is gone after `stop`.
        drop(self.commands.send(command));
    }
}

/// A node as it was when it was last written to disk.
fn reconciler_of(
    options: MembershipOptions,
    me: NodeIdentity,
    own: OwnFile,
    peers: PeersFile,
) -> Reconciler {
    let settings = Settings {
        ttl: options.ttl,
        fixed: options.pod_cidr,
        preferred: options.previous.into_iter().collect(),
    };
    let known = Peers::new(peers.peers, options.hold);
    let mut reconciler = Reconciler::new(settings, me, View::new(options.keys), own, known);
    reconciler.remembered_owners = peers.owners;
    reconciler
}
