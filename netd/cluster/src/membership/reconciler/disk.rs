//! What the node remembers on disk of its own subnets.

use super::{Action, Reconciler};
use crate::membership::{diff::Now, files::OwnFile};

impl Reconciler {
    fn file(&self) -> OwnFile {
        // Where the subnets were used last is what counts, until they are used here.
        let of = match self.tenure.in_use || self.displaced.is_some() {
            true => (&self.claims.attrs, &self.claims.past),
            false => (&self.saved.attrs, &self.saved.past),
        };
        let (attrs, past) = (of.0.clone(), of.1.clone());
        OwnFile {
            config: self.config.text().map(str::to_owned).or_else(|| self.saved.config.clone()),
            attrs,
            past,
            wanted: self.claims.wanted,
            held: self.claims.held.clone(),
            leaving: self.claims.leaving.clone(),
            overwritten: self.claims.overwritten.clone(),
            // What this machine does not use it has no right to after its next start either.
            incarnation: match self.tenure.in_use {
                true => Some(self.claims.me.incarnation.clone()),
                false => self.saved.incarnation.clone(),
            },
        }
    }

    pub(super) fn save(&mut self, now: Now) -> Option<Action> {
        let file = self.file();
        if self.save_at.is_some_and(|at| at > now.mono) {
            return None;
        }
        if self.displaced.is_some() {
            return Some(Action::TakeNewId(file));
        }
        (file != self.saved).then_some(Action::Save(file))
    }
}
