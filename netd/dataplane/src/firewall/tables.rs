//! netd's tables in one network namespace: made as a whole, changed an endpoint at a time.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    elements::{self, Element},
    foreign, host_addresses, inspect,
    memory::{self, Applied},
    nft,
    own::OwnChanges,
    settings::{FirewallSettings, FirewallState},
    standing::{self, Standing},
    text, transaction,
};
use crate::{
    DataplaneError,
    error::failed,
    netlink::{Protocol, Socket},
};
use netd_domain::Wiring;

/// The firewall of one network namespace: the one the calling thread was in when it
/// was made. All calls have to come from threads in that namespace. Blocking.
#[derive(Debug)]
pub(crate) struct Firewall {
    settings: FirewallSettings,
    pub(super) socket: Socket,
    /// Asks for the node's addresses.
    route: Socket,
    /// The node's addresses as they were read last.
    node: BTreeSet<IpAddr>,
    own: OwnChanges,
    applied: Option<Applied>,
    /// The kernel knows DESTROYSETELEM (6.3).
    destroys: bool,
}

impl Firewall {
    /// Opens netlink sockets in the calling thread's network namespace; changes nothing.
    ///
    /// # Errors
    /// No nfnetlink in this kernel, or no permission.
    pub(crate) fn new(settings: FirewallSettings) -> Result<Self, DataplaneError> {
        let socket =
            Socket::open(Protocol::Netfilter).map_err(|e| DataplaneError::Unsupported {
                what: format!("an nfnetlink socket can't be opened: {e}"),
                hint: "nf_tables has to be built in or loadable, and netd needs CAP_NET_ADMIN"
                    .into(),
            })?;
        let route = Socket::open(Protocol::Route).map_err(failed("opening a netlink socket"))?;
        let own = OwnChanges::new(socket.port());
        let applied = Applied::load(settings.memory.as_deref());
        let node = BTreeSet::new();
        Ok(Self { settings, socket, route, node, own, applied, destroys: true })
    }

    /// Replaces what the tables hold in one transaction: a packet sees the old rules or the
    /// new ones, and connections stay. Where the sets of networks are missing they are made
    /// before. Runs `nft`; costs tens of milliseconds with 1,000 endpoints.
    ///
    /// # Errors
    /// `PortTaken` when two endpoints of the state want one host port, `Io` when `nft`
    /// can't be run, `Kernel` with nft's words when the rules are refused. Nothing has
    /// changed then.
    pub(crate) fn replace(&mut self, state: &FirewallState) -> Result<(), DataplaneError> {
        const TRIES: usize = 3;
        self.read_addresses()?;
        let base = text::base(&self.settings, state)?;
        self.applied = None;
        memory::keep(self.settings.memory.as_deref(), None);
        for attempt in 1..=TRIES {
            let standing = self.prepare(state)?;
            let before = inspect::generation(&mut self.socket)?;
            self.load(state, standing.as_ref())?;
            let fingerprint = inspect::fingerprint(&mut self.socket)?;
            // Our transaction is one generation. If there were more, another program
            // may have changed the tables before we read them back.
            let ours = inspect::generation(&mut self.socket)? == before.wrapping_add(1);
            if ours || attempt == TRIES {
                self.applied = fingerprint.map(|picture| Applied::new(&base, &picture));
                memory::keep(self.settings.memory.as_deref(), self.applied.as_ref());
                break;
            }
        }
        Ok(())
    }

    /// What stands there, with the sets that can't be made together with the rules that ask
    /// them. `None`: it has to go first.
    fn prepare(&mut self, state: &FirewallState) -> Result<Option<Standing>, DataplaneError> {
        let Some(standing) = standing::read(&mut self.socket)? else { return Ok(None) };
        let Some(text) = text::missing_intervals(state, &standing) else {
            return Ok(Some(standing));
        };
        nft::load(&self.settings.nft, &text, &self.own)?;
        standing::read(&mut self.socket)
    }

    /// One transaction; around what stands there if that is fit for it.
    fn load(
        &mut self,
        state: &FirewallState,
        standing: Option<&Standing>,
    ) -> Result<(), DataplaneError> {
        let text = text::ruleset(&self.settings, state, &self.node, standing)?;
        match nft::load(&self.settings.nft, &text, &self.own) {
            Err(error) if standing.is_some() => {
                tracing::warn!(%error, "the tables are removed first: {error}");
                self.load(state, None)
            }
            result => result,
        }
    }

    /// Adds an endpoint's elements, all or none, in about 10 us. Call it before the link
    /// carries traffic: without them its host side lets nothing through. Elements that
    /// exist already are fine.
    ///
    /// # Errors
    /// `PortTaken` when another endpoint holds a host port; `Kernel` otherwise, with
    /// ENOENT when the tables are missing ([`Firewall::replace`] makes them).
    pub(crate) fn add_endpoint(&mut self, wiring: &Wiring) -> Result<(), DataplaneError> {
        let elements = elements::of_endpoint(wiring);
        transaction::add(&mut self.socket, &elements)
    }

    /// Removes an endpoint's elements, but not host ports that another endpoint holds by
    /// now. Missing elements are fine.
    ///
    /// # Errors
    /// `Kernel`: what it refused.
    pub(crate) fn remove_endpoint(&mut self, wiring: &Wiring) -> Result<(), DataplaneError> {
        let mut mine = elements::of_endpoint(wiring);
        for i in (0..mine.len()).rev() {
            if !mine[i].data.is_empty() && !self.holds(&mine[i])? {
                mine.swap_remove(i);
            }
        }
        transaction::remove(&mut self.socket, &mine, &mut self.destroys)
    }

    /// Reads the node's addresses and makes the sets of them hold the same. `true`: that took
    /// a change of the sets. Tables that are missing are left to [`Firewall::replace`].
    ///
    /// # Errors
    /// `Io` when the addresses or the sets can't be read, `Kernel` with the refusal.
    pub(crate) fn follow_addresses(&mut self) -> Result<bool, DataplaneError> {
        self.read_addresses()?;
        let mut found = BTreeSet::new();
        for set in ["node4", "node6"] {
            match inspect::addresses(&mut self.socket, set)? {
                Some(addresses) => found.extend(addresses),
                None => return Ok(false),
            }
        }
        let elements = |ips: Vec<&IpAddr>| -> Vec<Element> {
            ips.into_iter().map(|ip| elements::of_node(*ip)).collect()
        };
        let missing = elements(self.node.difference(&found).collect());
        let gone = elements(found.difference(&self.node).collect());
        transaction::add(&mut self.socket, &missing)?;
        transaction::remove(&mut self.socket, &gone, &mut self.destroys)?;
        Ok(!missing.is_empty() || !gone.is_empty())
    }

    fn read_addresses(&mut self) -> Result<(), DataplaneError> {
        self.node = host_addresses::read(&mut self.route)
            .map_err(failed("reading the node's addresses"))?;
        Ok(())
    }

    /// The node's addresses as they were read last.
    pub(super) fn node_addresses(&self) -> &BTreeSet<IpAddr> {
        &self.node
    }

    /// Whether the kernel's map leads from the element's key to the element's data.
    fn holds(&mut self, element: &Element) -> Result<bool, DataplaneError> {
        let found = inspect::lookup(&mut self.socket, element)?;
        Ok(found.is_some_and(|data| data == elements::bytes(&element.data)))
    }

    /// Whether the kernel holds exactly what `state` asks for. `false` unless this
    /// `Firewall` has made the tables itself, or an earlier one that is remembered.
    ///
    /// # Errors
    /// The kernel's tables can't be read.
    pub(crate) fn intact(&mut self, state: &FirewallState) -> Result<bool, DataplaneError> {
        let Some(applied) = &self.applied else { return Ok(false) };
        let Some(picture) = inspect::fingerprint(&mut self.socket)? else { return Ok(false) };
        if *applied != Applied::new(&text::base(&self.settings, state)?, &picture) {
            return Ok(false);
        }
        let Ok(wanted) = elements::of_state(state, &self.node) else { return Ok(false) };
        inspect::holds_exactly(&mut self.socket, &wanted)
    }

    /// Chains of other tables that drop what they don't know on the forward hook, e.g.
    /// `inet firewalld filter_FORWARD (policy drop)`: pods' traffic needs rules there.
    ///
    /// # Errors
    /// The kernel's chains can't be read.
    pub(crate) fn foreign_forward_drops(&mut self) -> Result<Vec<String>, DataplaneError> {
        foreign::forward_drops(&mut self.socket)
    }

    /// For a [`Watcher`], to tell this firewall's changes from others'.
    pub(crate) fn own_changes(&self) -> OwnChanges {
        self.own.clone()
    }
}

/// Removes netd's tables from the network namespace.
#[cfg(test)]
pub(super) fn remove_tables(firewall: &mut Firewall) -> Result<(), DataplaneError> {
    firewall.applied = None;
    nft::load(&firewall.settings.nft, &text::removal(), &firewall.own)
}
