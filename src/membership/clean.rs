//! When nothing older of a key can turn up any more, so that its tombstone may be forgotten.
//!
//! Something older may lie at another replica, at a member that has yet to hand it over, at a node that was lost, or in
//! a message on its way. So each member says whether it is *clean*. A lost node is waited for, for an hour, and comes
//! in without its items after that. And a node that forgets waits for longer than a message takes.
//!
//! Versions follow clocks, which may be years apart. A put must not get a smaller version than a tombstone of its key,
//! which its primary may have forgotten. So all members agree on a *floor*, and no tombstone above it is forgotten.
//! Invariant: each member had at least that floor before the first one forgot a tombstone by it.

use std::time::Duration;

use crate::location::Location;

use super::{Caller, Member, Membership, State};

/// The greatest floor. Above it enough versions are left for puts to go on, whatever floor a member names.
pub const FLOOR_MAX: i64 = 1 << 61;

/// A lost node is waited for so long, in ticks that this node has run: a node that stood still has not waited.
const WAITED: Duration = Duration::from_secs(3600);

/// How many lives are remembered that are waited for no more.
pub(super) const EXPIRED_MAX: usize = 256;

/// How many lives are remembered that were members once.
pub(super) const PAST_MAX: usize = 256;

/// How many members are asked in a tick whether they are clean.
const CLEAN_MAX: usize = 16;

/// A life that was lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    pub incarnation: i64,
    /// The tick at which it was.
    pub since: u64,
    /// This node has stopped waiting for it: it may come back with nothing only.
    pub expired: bool,
}

impl Membership {
    /// What each put's version has to be above, whichever node is its primary. It never falls, and is at most
    /// [`FLOOR_MAX`].
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// Raises the floor. The questions among members raise it everywhere.
    pub fn raise_floor(&mut self, floor: i64) {
        self.floor = self.floor.max(floor.min(FLOOR_MAX));
    }

    /// Whether nothing old can turn up by way of this node: all members are full, it has what it should have and nothing else,
    /// it waits for no node that was lost, and sends nothing that takes long.
    pub(super) fn is_clean(&self) -> bool {
        let mut members = self.view.members().iter();
        self.state() == State::Full
            && members.all(|member| member.state == State::Full)
            && self.brought == Some(self.changes)
            && self.alarm.is_empty()
            && self.missing.is_empty()
            && self.large == 0
            && self.ticks >= self.crowded_until
            && self.lost.values().all(|lost| lost.expired)
            && self.ties.keys().all(|other| self.has_the_same(other))
    }

    /// Whether this node is clean, and all other members have said so, under the same view, when they were asked at that time
    /// or later. If so: the least of their floors.
    pub fn all_clean(&self, since: Duration) -> Option<i64> {
        let mut least = self.floor;
        for peer in self.peers.values() {
            let (_, floor) = peer.clean.filter(|(at, _)| *at >= since)?;
            least = least.min(floor);
        }
        self.is_clean().then_some(least)
    }

    /// From now on, members that have not said since then whether they are clean are asked; `None` ends that.
    pub fn want_clean(&mut self, since: Option<Duration>) {
        self.clean_since = since;
    }

    /// Those of them that are to be asked at this tick.
    pub(super) fn not_known_to_be_clean(&self) -> Vec<Location> {
        let Some(since) = self.clean_since.filter(|_| self.is_clean()) else {
            return Vec::new();
        };
        let unknown = |clean: Option<(Duration, i64)>| clean.is_none_or(|(at, _)| at < since);
        let peers = self.peers.iter().filter(|(_, peer)| unknown(peer.clean));
        let some = peers.take(CLEAN_MAX);
        some.map(|(location, _)| location.clone()).collect()
    }

    /// Stops waiting for nodes that were lost long ago. Not while keys may be missing: these may be what they bring.
    pub(super) fn expire_the_lost(&mut self) {
        if !self.alarm.is_empty() || !self.missing.is_empty() {
            return;
        }
        let due = |lost: &Lost| !lost.expired && self.ticks - lost.since >= self.waited();
        let due = self.lost.iter().filter(|(_, lost)| due(lost));
        let lives = due.map(|(location, lost)| Member {
            location: location.clone(),
            state: State::Left,
            incarnation: lost.incarnation,
        });
        for life in lives.collect::<Vec<_>>() {
            self.note_expired(life);
        }
    }

    /// How many ticks a lost node is waited for.
    pub(super) fn waited(&self) -> u64 {
        (WAITED.as_nanos() / self.rules.tick.as_nanos().max(1)) as u64
    }

    /// That life is waited for no more.
    pub(super) fn note_expired(&mut self, life: Member) {
        if let Some(lost) = self.lost.get_mut(&life.location)
            && lost.incarnation == life.incarnation
        {
            lost.expired = true;
        }
        let gone = (life.location.clone(), life.incarnation);
        self.past.retain(|past| *past != gone);
        if self.expired.len() == EXPIRED_MAX {
            self.expired.pop_front();
        }
        self.expired.push_back(life);
    }

    /// Keys may be missing with that life: it is waited for again. Nothing has been forgotten since it was lost, as
    /// the member that misses it was not clean.
    pub(super) fn wait_again(&mut self, location: &Location, incarnation: i64) {
        if let Some(lost) = self.lost.get_mut(location)
            && lost.incarnation == incarnation
        {
            lost.expired = false;
        }
        let is_it = |life: &Member| life.location == *location && life.incarnation == incarnation;
        self.expired.retain(|life| !is_it(life));
    }

    /// Whether that node is a member, or was one that left in good order, in the life in which it calls.
    pub fn is_known(&self, caller: &Caller) -> bool {
        let me = &caller.me;
        let mut left = self.left.iter();
        let known = self.is_member(&me.location, me.incarnation);
        self.is_itself(caller) && (known || left.any(|left| left.is_life_of(me)))
    }

    /// A message with large values is on its way to another member for long, or is so no more.
    pub fn sends(&mut self, large: bool) {
        match large {
            true => self.large += 1,
            false => self.large -= 1,
        }
    }

    /// Whether this node has stopped waiting for one of these, which may still have what this one has forgotten since.
    pub(super) fn has_expired(&self, members: &[Member]) -> bool {
        members.iter().any(|member| {
            let lost = self.lost.get(&member.location);
            lost.is_some_and(|lost| {
                let same = member.incarnation == lost.incarnation;
                lost.expired && (same || member.has_returned())
            })
        })
    }

    /// How many ticks this node has run.
    pub fn ticks_run(&self) -> u64 {
        self.ticks
    }
}
