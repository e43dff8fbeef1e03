//! Which nodes a node puts questions to, and when: at each tick, when a call got no answer, and before `status` is
//! answered.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::location::Location;

use super::{Action, LEASE_TICKS, LOST_MAX, Membership, RENEW_HALF_TICKS, Ties};

impl Membership {
    /// The nodes to put questions to at this tick.
    pub(super) fn choose(&mut self, now: Duration) -> BTreeSet<Location> {
        let mut chosen = std::mem::take(&mut self.doubted);
        chosen.extend(self.some_others(1));
        chosen.extend(self.unaware().cloned());
        chosen.extend(self.not_known_to_be_clean());
        let renew = self.ticks(RENEW_HALF_TICKS) / 2;
        for (location, peer) in &self.peers {
            let (asked, ranges) = &peer.lease;
            let old = now.saturating_sub(*asked) >= renew;
            let lacks = |ties: &Ties| !ties.lease.is_empty() && (old || ties.lease != *ranges);
            if peer.waiting.is_some() || self.ties.get(location).is_some_and(lacks) {
                chosen.insert(location.clone());
            }
        }
        // The lost in turn. More of them while only they can tell this node that the network has gone on without it.
        let count = match self.ticks < self.alone_from {
            true => self.lost.len().min(LOST_MAX / 4),
            false => self.lost.len().div_ceil(LEASE_TICKS as usize),
        };
        if count > 0 {
            let turn = self.ticks as usize * count % self.lost.len();
            let lost = self.lost.keys().cycle().skip(turn);
            chosen.extend(lost.take(count).cloned());
        }
        chosen
    }

    /// The next one by name, and some others: so each is asked by another one, and news gets everywhere.
    pub(super) fn some_others(&self, count: usize) -> BTreeSet<Location> {
        let names: Vec<_> = self.peers.keys().collect();
        let next = names.iter().position(|name| **name > self.location);
        let next = [next.unwrap_or(0)]
            .into_iter()
            .filter(|_| !names.is_empty());
        let some = (0..count.min(names.len())).map(|_| self.random.below(names.len()));
        next.chain(some).map(|place| names[place].clone()).collect()
    }

    /// A call to a member, made then, got no answer in time.
    pub fn silent(&mut self, location: &Location, made: Duration) {
        let tick = self.ticks;
        if let Some(peer) = self.peers.get_mut(location)
            && peer.answered.is_none_or(|answered| answered < made)
            && peer.waiting.is_none()
        {
            peer.waiting = Some((made, tick));
            self.ask_neighbours();
        }
    }

    /// Asks all that this node shares keys or a lease with.
    fn ask_neighbours(&mut self) {
        for location in self.ties.keys().cloned().collect::<Vec<_>>() {
            self.ask(location);
        }
    }

    /// Before `status` is answered, and before a node has left: all members that share keys with this node are asked,
    /// except those that have answered within a tick.
    pub fn ask_all(&mut self, now: Duration) {
        let tick = self.ticks(1);
        let old = self.replicas().filter(|(_, peer)| {
            let answered = peer.answered;
            answered.is_none_or(|at| now.saturating_sub(at) >= tick)
        });
        for location in old
            .map(|(location, _)| location.clone())
            .collect::<Vec<_>>()
        {
            self.ask(location);
        }
    }

    /// Another node got no answer from these: a reason to ask them.
    pub fn suspect(&mut self, locations: &[Location]) {
        for location in locations {
            if self.peers.contains_key(location) {
                self.ask(location.clone());
            }
        }
    }

    pub(super) fn ask(&mut self, location: Location) {
        if location != self.location && self.asking.insert(location.clone()) {
            self.actions.push(Action::Ask(location));
        }
    }
}
