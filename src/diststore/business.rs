//! Which items a pass looks after, and who should have them: follows from two views, the one that
//! everything was moved by before and the one it is moved by now.

use crate::location::Location;
use crate::locator::{State, View};

use super::table::Record;

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
    /// Nobody misses a tombstone if nobody is left.
    drops_tombstones: bool,
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
        drops_tombstones: bool,
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
            drops_tombstones,
            holders: Vec::new(),
            old: Vec::new(),
        }
    }

    /// Who should say that they have an item, and whether this node keeps it; `None` if it is none of
    /// this node's business.
    pub fn with(&mut self, record: &Record) -> Option<(Vec<usize>, bool)> {
        // Where there was one node only, and is, any hash will do.
        let before = self.before.as_ref();
        let alone = |view: &View| view.members().len() == 1;
        let hash = match alone(self.view) && before.is_none_or(|(before, _)| alone(before)) {
            true => 0,
            false => record.ring_hash(),
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
        let unneeded = || self.drops_tombstones && record.value().is_empty();
        if targets.is_empty() && (keep || self.leaves_originals || unneeded()) {
            return None;
        }
        Some((targets, keep))
    }
}
