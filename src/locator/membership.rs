//! What a node knows of the others, and how news changes it. Pure data: time is handed in, nothing
//! is called.
//!
//! Invariants: the node itself is in its view until it has said goodbye; of two accounts of a node
//! the one with the greater stamp stands; a node that said goodbye comes back only with a greater
//! stamp.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::location::Location;

use super::calls::Known;
use super::member::{Member, State};
use super::view::View;

/// How many nodes that went without goodbye are remembered, to be asked from time to time.
const LOST_MAX: usize = 1000;

/// The most members: far above what a flat network bears, and what a ring holds; against lists that
/// grow without end.
const MEMBERS_MAX: usize = 100_000;

/// How many goodbyes are remembered, against late news of those who said them.
const GONE_MAX: usize = 1000;

/// What this node alone knows of a member; not part of the list that nodes compare.
#[derive(Debug, Clone, Default)]
pub(super) struct Track {
    /// When it was taken in.
    pub added: Duration,
    /// It was asked what it is, since it was added or last refused.
    pub asked: bool,
    /// When it was first called of late without answering.
    pub silent_since: Option<Duration>,
}

/// How far this node has pulled from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pulled {
    /// The cursors of what has not come yet.
    But(Vec<Vec<u8>>),
    All,
}

/// What a piece of news did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Updated,
    None,
}

#[derive(Debug)]
pub(super) struct Membership {
    /// This node.
    pub me: Member,
    pub view: Arc<View>,
    pub tracks: BTreeMap<Location, Track>,
    /// Nodes that went without goodbye, and when.
    pub lost: BTreeMap<Location, Duration>,
    /// Nodes that said goodbye, and with which stamp.
    pub gone: BTreeMap<Location, i64>,
    /// Originals that have said that they leave, and when; until they have ended.
    pub leaving_originals: BTreeMap<Location, Duration>,
    /// While filling: from whom what has come.
    pub pulled: BTreeMap<Location, Pulled>,
    /// Nodes outside the view that have to be pulled from.
    pub contacts: BTreeSet<Location>,
    /// It is filling as it was stopped or cut off, not as it is new.
    pub lapsed: bool,
    /// It knows the network it is part of: it was told the members, or started it.
    pub joined: bool,
    /// It is to join a certain node, and looks for no other.
    pub told: bool,
    /// Nodes that look for a network as this one may do, and would start one.
    pub rivals: BTreeSet<Location>,
    /// It has been full, or has started the network: what it has is worth keeping up alone.
    pub rooted: bool,
    /// A member went before this node had pulled from it to the end.
    pub missed: bool,
    /// Since when this node has been an orphan, see [`Membership::is_orphan`].
    pub orphan_since: Option<Duration>,
    /// A member has fallen silent since this was looked at.
    pub alarmed: bool,
    /// When the last question that was answered was asked.
    pub answered: Duration,
    /// The nodes that were asked last had the same list.
    pub agreed: bool,
}

impl Membership {
    pub fn new(location: Location, stamp: i64, now: Duration) -> Self {
        let me = Member {
            location,
            state: State::Filling,
            stamp,
        };
        let mut view = View::default();
        view.insert(me.clone());
        Membership {
            me,
            view: Arc::new(view),
            tracks: BTreeMap::new(),
            lost: BTreeMap::new(),
            gone: BTreeMap::new(),
            leaving_originals: BTreeMap::new(),
            pulled: BTreeMap::new(),
            contacts: BTreeSet::new(),
            lapsed: false,
            joined: false,
            told: false,
            rivals: BTreeSet::new(),
            rooted: false,
            missed: false,
            orphan_since: None,
            alarmed: false,
            answered: now,
            agreed: false,
        }
    }

    /// It knows its network, and that is still there: others can join by way of this node.
    pub fn is_ready(&self) -> bool {
        self.joined && !self.is_orphan()
    }

    /// It doesn't know its network, and would start one.
    pub fn is_looking(&self) -> bool {
        !self.joined && !self.told
    }

    /// The other members.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        let members = self.view.members().iter();
        members.filter(|member| member.location != self.me.location)
    }

    pub fn is_member(&self, location: &Location) -> bool {
        self.view.get(location).is_some()
    }

    pub fn known(&self, location: &Location) -> Known {
        if self.is_member(location) {
            Known::Member
        } else if self.lost.contains_key(location) {
            Known::Lost
        } else {
            Known::No
        }
    }

    /// Gives this node a new state, later than all it had.
    pub fn set_state(&mut self, state: State, wall: i64) {
        self.me.state = state;
        self.me.stamp = wall.max(self.me.stamp.saturating_add(1));
        if state == State::Gone {
            let me = self.me.location.clone();
            Arc::make_mut(&mut self.view).remove(&me);
        } else {
            Arc::make_mut(&mut self.view).insert(self.me.clone());
        }
    }

    /// Whether the last question that was answered is older than `limit`. Originals don't count:
    /// they are asked nothing.
    pub fn has_lapsed(&self, now: Duration, limit: Duration) -> bool {
        now.saturating_sub(self.answered) > limit
            && self.joined
            && self.others().any(Member::is_ours)
            && matches!(self.me.state, State::Full | State::Filling)
    }

    /// Whether the network has gone while this node was coming in: nobody who has what there was is
    /// a member any more, and somebody took it along before this node had got it. It must not go
    /// on as a network of its own: others, which it doesn't know, may be that network.
    ///
    /// ```text
    /// A (new)      X              Y              B (new)
    ///   pull ------> takes A in     takes B in <------ pull
    ///              crashes          leaves ----------> has it all
    ///   alone: knows no B                              alone: knows no A
    /// ```
    pub fn is_orphan(&self) -> bool {
        !self.rooted
            && self.missed
            && self.joined
            && !self
                .others()
                .any(|member| member.is_complete() || !member.is_ours())
    }

    /// Starts over with pulling from everybody.
    pub fn refill(&mut self, wall: i64) {
        self.pulled.clear();
        if matches!(self.me.state, State::Full | State::Filling) {
            self.set_state(State::Filling, wall);
        }
    }

    /// A page has come that was asked for by `asked`, with these cursors. It counts for nothing if what
    /// it was part of is to be pulled anew.
    pub fn take_page(&mut self, from: &Location, asked: &[u8], cursors: &[&[u8]]) {
        let mut left = match self.pulled.get(from) {
            _ if asked.is_empty() => Vec::new(),
            Some(Pulled::But(left)) if left.iter().any(|cursor| cursor == asked) => left.clone(),
            _ => return,
        };
        left.retain(|cursor| cursor != asked);
        left.extend(cursors.iter().map(|cursor| cursor.to_vec()));
        let pulled = if left.is_empty() {
            Pulled::All
        } else {
            Pulled::But(left)
        };
        self.pulled.insert(from.clone(), pulled);
    }

    /// Takes in what is said of a node, if it is news. What is said of this node by others can only
    /// be of an earlier run: it makes the stamp grow above it.
    pub fn admit(&mut self, member: Member, now: Duration) -> Change {
        let location = &member.location;
        if *location == self.me.location {
            if member.stamp >= self.me.stamp && member != self.me && self.me.state != State::Gone {
                self.set_state(self.me.state, member.stamp.saturating_add(1));
                return Change::Updated;
            }
            return Change::None;
        }
        if member.state == State::Gone {
            return Change::None;
        }
        if self
            .gone
            .get(location)
            .is_some_and(|stamp| *stamp >= member.stamp)
            && member.is_ours()
        {
            return Change::None;
        }
        let change = match self.view.get(location) {
            None if self.view.members().len() >= MEMBERS_MAX => return Change::None,
            None => Change::Added,
            Some(known) if known.stamp < member.stamp => Change::Updated,
            Some(_) => return Change::None,
        };
        self.gone.remove(location);
        self.lost.remove(location);
        self.leaving_originals.remove(location);
        if change == Change::Added {
            let track = Track {
                added: now,
                asked: member.is_ours(),
                silent_since: None,
            };
            self.tracks.insert(location.clone(), track);
            // What it held is not known any more: it may be another run.
            self.pulled.remove(location);
        }
        Arc::make_mut(&mut self.view).insert(member);
        change
    }

    /// Takes a node out. With a stamp, it has said goodbye; without, it is remembered as lost.
    /// True: it was a member.
    pub fn remove(&mut self, location: &Location, goodbye: Option<i64>, now: Duration) -> bool {
        let pulled = self.pulled.remove(location);
        if self.view.get(location).is_some_and(Member::is_ours) {
            self.missed |= pulled != Some(Pulled::All);
        }
        self.tracks.remove(location);
        let removed = Arc::make_mut(&mut self.view).remove(location);
        if let Some(stamp) = goodbye {
            self.lost.remove(location);
            self.gone.insert(location.clone(), stamp);
            if self.gone.len() > GONE_MAX {
                // Any will do: the stamp only shortens what asking the node itself settles too.
                self.gone.pop_first();
            }
        } else if removed.as_ref().is_some_and(Member::is_ours) {
            self.lost.insert(location.clone(), now);
            if self.lost.len() > LOST_MAX {
                let oldest = self.lost.iter().min_by_key(|(_, since)| **since);
                if let Some(oldest) = oldest.map(|(location, _)| location.clone()) {
                    self.lost.remove(&oldest);
                }
            }
        }
        removed.is_some()
    }
}
