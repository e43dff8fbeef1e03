//! Which items a pass looks after, and who should have them: follows from two views, the one that
//! everything was moved by before and the one it is moved by now.

use crate::location::Location;
use crate::locator::{State, View};

/// Which items a pass looks after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those whose holders have changed and that are this node's business.
    Changed,
    /// All of them.
    All,
}

/// What to do about each item. Nodes are named by their places among the view's members.
pub(super) struct Business<'a> {
    view: &'a View,
    scope: Scope,
    replicas: usize,
    /// This node, unless it has gone.
    me: Option<usize>,
    /// The view from before, and where each of its members is in this one.
    before: Option<(&'a View, Vec<Option<usize>>)>,
    /// Originals are members, and this node is leaving but still one too.
    leaves_originals: bool,
    /// Of the key looked at last, now and before.
    holders: Vec<usize>,
    old: Vec<usize>,
}

impl<'a> Business<'a> {
    pub fn new(
        view: &'a View,
        before: Option<&'a View>,
        scope: Scope,
        replicas: usize,
        me: &Location,
    ) -> Self {
        let places = |before: &'a View| {
            let members = before.members().iter();
            let places = members.map(|member| view.place(&member.location));
            (before, places.collect())
        };
        let leaving = view.get(me).is_some_and(|me| me.state == State::Leaving);
        Business {
            view,
            scope,
            replicas,
            me: view.place(me),
            before: before.map(places),
            leaves_originals: leaving && view.members().iter().any(|member| !member.is_ours()),
            holders: Vec::new(),
            old: Vec::new(),
        }
    }

    /// Who should say that they have an item, and whether this node keeps it; `None` if it is none of
    /// this node's business. `unneeded`: nobody misses it if nobody is left.
    pub fn with(&mut self, key: &[u8], unneeded: bool) -> Option<(Vec<usize>, bool)> {
        // Where there was one node only, or is, any hash will do.
        let hash = match &self.before {
            Some((before, _)) if self.view.members().len() == 1 => before.hash(key),
            _ => self.view.hash(key),
        };
        self.holders.clear();
        let holders = self.view.holders_at(hash, self.replicas);
        self.holders.extend(holders);
        let is_me = |place: usize| Some(place) == self.me;
        let keep = self.scope == Scope::Changed && self.holders.iter().any(|place| is_me(*place));
        if keep && let Some((before, now)) = &self.before {
            self.old.clear();
            self.old.extend(before.holders_at(hash, self.replicas));
            let mut old = self.old.iter().map(|place| now[*place]);
            let same = self.old.len() == self.holders.len()
                && old
                    .clone()
                    .eq(self.holders.iter().map(|place| Some(*place)));
            let there = |place: &usize| self.view.members()[*place].is_complete();
            let first = old.find_map(|place| place.filter(there));
            if same || first.is_some_and(|first| !is_me(first)) {
                return None;
            }
        }
        // A node that is leaving takes nothing; one that is filling comes for it by itself, and has
        // to say that it has it only before it is forgotten here.
        let takes = |place: &usize| {
            !is_me(*place)
                && match self.view.members()[*place].state {
                    State::Leaving => false,
                    State::Filling => !keep,
                    State::Full | State::Gone | State::Original => true,
                }
        };
        let targets: Vec<_> = self.holders.iter().copied().filter(takes).collect();
        // What an original is to own it takes after the goodbye: before, it would hand it back.
        if targets.is_empty() && (keep || unneeded || self.leaves_originals) {
            return None;
        }
        Some((targets, keep))
    }
}
