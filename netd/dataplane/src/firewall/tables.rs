//! netd's tables in one network namespace: made as a whole, changed an endpoint at a time.

use super::{
    conntrack,
    elements::{self, Element},
    foreign, inspect,
    memory::{self, Applied},
    nft,
    own::OwnChanges,
    settings::{FirewallSettings, FirewallState},
    text, transaction,
};
use crate::{
    DataplaneError,
    netlink::{Protocol, Socket},
};
use netd_domain::Wiring;

/// The firewall of one network namespace: the one the calling thread was in when it
/// was made. All calls have to come from threads in that namespace. Blocking.
#[derive(Debug)]
pub struct Firewall {
    settings: FirewallSettings,
    pub(super) socket: Socket,
    own: OwnChanges,
    applied: Option<Applied>,
    /// The kernel knows DESTROYSETELEM (6.3).
    destroys: bool,
}

impl Firewall {
    /// Opens a netlink socket in the calling thread's network namespace; changes nothing.
    ///
    /// # Errors
    /// No nfnetlink in this kernel, or no permission.
    pub fn new(settings: FirewallSettings) -> Result<Self, DataplaneError> {
        let socket =
            Socket::open(Protocol::Netfilter).map_err(|e| DataplaneError::Unsupported {
                what: format!("an nfnetlink socket can't be opened: {e}"),
                hint: "nf_tables has to be built in or loadable, and netd needs CAP_NET_ADMIN"
                    .into(),
            })?;
        let own = OwnChanges::new(socket.port());
        let applied = Applied::load(settings.memory.as_deref());
        Ok(Self { settings, socket, own, applied, destroys: true })
    }

    /// Replaces all tables in one transaction: a packet sees the old rules or the new ones,
    /// and connections stay. Runs `nft`; costs tens of milliseconds with 1,000 endpoints.
    ///
    /// # Errors
    /// `PortTaken` when two endpoints of the state want one host port, `Io` when `nft`
    /// can't be run, `Kernel` with nft's words when the rules are refused. Nothing has
    /// changed then.
    pub fn replace(&mut self, state: &FirewallState) -> Result<(), DataplaneError> {
        const TRIES: usize = 3;
        let ruleset = text::ruleset(&self.settings, state)?;
        let base = text::base(&self.settings, state)?;
        self.applied = None;
        memory::keep(self.settings.memory.as_deref(), None);
        for attempt in 1..=TRIES {
            let before = inspect::generation(&mut self.socket)?;
            nft::load(&self.settings.nft, &ruleset, &self.own)?;
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

    /// Adds an endpoint's elements, all or none, in about 10 us. Call it before the link
    /// carries traffic: without them its host side lets nothing through. Elements that
    /// exist already are fine.
    ///
    /// # Errors
    /// `PortTaken` when another endpoint holds a host port; `Kernel` otherwise, with
    /// ENOENT when the tables are missing ([`Firewall::replace`] makes them).
    pub fn add_endpoint(&mut self, wiring: &Wiring) -> Result<(), DataplaneError> {
        let elements = elements::of_endpoint(wiring);
        transaction::add(&mut self.socket, &elements)
    }

    /// Removes an endpoint's elements, but not host ports that another endpoint holds by
    /// now. Missing elements are fine.
    ///
    /// # Errors
    /// `Kernel`: what it refused.
    pub fn remove_endpoint(&mut self, wiring: &Wiring) -> Result<(), DataplaneError> {
        let mut mine = elements::of_endpoint(wiring);
        for i in (0..mine.len()).rev() {
            if !mine[i].data.is_empty() && !self.holds(&mine[i])? {
                mine.swap_remove(i);
            }
        }
        transaction::remove(&mut self.socket, &mine, &mut self.destroys)
    }

    /// Ends UDP flows that go on past a change of the endpoint's host ports: after
    /// [`Firewall::add_endpoint`] (`attached`) those that began before the ports led
    /// to it, after [`Firewall::remove_endpoint`] those that still lead to it.
    ///
    /// Call it when nobody waits for it: the kernel looks through its whole connection
    /// table, 8 ms for each UDP host port and family when it is of the
    /// usual size. Does nothing for an endpoint without UDP host ports.
    pub fn end_stale_udp_flows(&mut self, wiring: &Wiring, attached: bool) {
        if attached {
            conntrack::forget_flows_past(&mut self.socket, wiring);
        } else {
            conntrack::forget_flows_to(&mut self.socket, wiring);
        }
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
    pub fn intact(&mut self, state: &FirewallState) -> Result<bool, DataplaneError> {
        let Some(applied) = &self.applied else { return Ok(false) };
        let Some(picture) = inspect::fingerprint(&mut self.socket)? else { return Ok(false) };
        if *applied != Applied::new(&text::base(&self.settings, state)?, &picture) {
            return Ok(false);
        }
        let Ok(wanted) = elements::of_state(state) else { return Ok(false) };
        inspect::holds_exactly(&mut self.socket, &wanted)
    }

    /// Chains of other tables that drop what they don't know on the forward hook, e.g.
    /// `inet firewalld filter_FORWARD (policy drop)`: pods' traffic needs rules there.
    ///
    /// # Errors
    /// The kernel's chains can't be read.
    pub fn foreign_forward_drops(&mut self) -> Result<Vec<String>, DataplaneError> {
        foreign::forward_drops(&mut self.socket)
    }

    /// Netlink port of the socket that changes elements.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// For a [`Watcher`], to tell this firewall's changes from others'.
    pub fn own_changes(&self) -> OwnChanges {
        self.own.clone()
    }
}

/// Removes netd's tables from the network namespace, for uninstalling.
///
/// # Errors
/// As for [`Firewall::replace`].
pub fn remove_tables(firewall: &mut Firewall) -> Result<(), DataplaneError> {
    firewall.applied = None;
    nft::load(&firewall.settings.nft, &text::removal(), &firewall.own)
}
