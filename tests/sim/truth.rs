//! What the world is really like, seen from outside: which nodes agree, and where copies lie.

use std::collections::{BTreeMap, BTreeSet};

use thrifty_p2p::location::Location;

use super::history::{Outcome, Promise, brief};
use super::world::{Item, Phase, World};

impl World {
    /// The members of each node are the nodes that run, and none of them starts, comes in or leaves.
    ///
    /// # Errors
    /// What is in the way.
    pub fn agreed(&self) -> Result<(), String> {
        let processes = self.processes();
        for (location, process) in &processes {
            if process.phase != Phase::Up {
                return Err(format!("{location} is {:?}", process.phase));
            }
            let mut members = process.node.members();
            members.sort_unstable();
            let live = processes.iter().map(|(location, _)| location);
            if !members.iter().map(|(member, _)| member).eq(live) {
                return Err(format!("{location} knows {members:?}"));
            }
            if let Some((member, _)) = members.iter().find(|(_, filling)| *filling) {
                return Err(format!("{location} has {member} as filling"));
            }
        }
        Ok(())
    }

    /// All replicas of each key hold its latest item; and if `nobody_else`, no other node holds it.
    ///
    /// # Errors
    /// The first key of which this isn't so.
    pub fn copies(&self, nobody_else: bool) -> Result<(), String> {
        let processes = self.processes();
        let live: Vec<Location> = processes.iter().map(|(at, _)| at.clone()).collect();
        let mut keys: BTreeMap<Vec<u8>, BTreeMap<Location, Item>> = BTreeMap::new();
        for (location, process) in &processes {
            for item in process.node.items() {
                let copies = keys.entry(item.key.clone()).or_default();
                copies.insert(location.clone(), item);
            }
        }
        let placement = self.subject.placement(&live);
        for (key, copies) in keys {
            let newest = copies.values().max().expect("BUG: a key without copies");
            let holders: BTreeSet<_> = placement(&key).into_iter().collect();
            for holder in &holders {
                // If nothing older is anywhere, a floor that puts have to be above is as good as a tombstone, which each holder
                // forgets for itself.
                let deleted = newest.value.is_empty() && copies.values().all(|copy| copy == newest);
                let forgotten = || {
                    let floor = self.node(holder).map(|node| node.floor());
                    deleted && !copies.contains_key(holder) && floor >= Some(newest.version)
                };
                if copies.get(holder) != Some(newest) && !forgotten() {
                    let copies = copies
                        .iter()
                        .map(|(at, item)| (at, item.version, brief(&item.value)));
                    let copies: Vec<_> = copies.collect();
                    let key = brief(&key);
                    return Err(format!("{key}: {holder} lacks the newest of {copies:?}"));
                }
            }
            let other = copies.keys().find(|node| !holders.contains(*node));
            if let Some(other) = other.filter(|_| nobody_else) {
                let key = brief(&key);
                return Err(format!("{key}: {other} is none of {holders:?}"));
            }
        }
        Ok(())
    }

    /// Every key has its copies: any R-1 nodes may be killed now.
    ///
    /// # Errors
    /// What is in the way.
    pub fn safe(&self) -> Result<(), String> {
        self.agreed()?;
        self.copies(false)
    }

    /// Every put that had been acknowledged before an event and is promised, or something later, lies on that many nodes
    /// that run: so many may be killed but one. If nothing older is anywhere, a node with that floor, which puts have to be above,
    /// is as good as one with a tombstone: it may have forgotten it.
    ///
    /// # Errors
    /// The first key of which this isn't so.
    pub fn is_copied(&self, event: u64, copies: usize, promise: Promise) -> Result<(), String> {
        let mut acknowledged: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        let history = self.history();
        for put in history.operations() {
            if let Outcome::Acknowledged(Some(version)) = put.outcome
                && put.end.is_some_and(|end| end < event)
                && history.is_promised(put, promise)
            {
                let newest = acknowledged.entry(put.key.clone()).or_insert(version);
                *newest = version.max(*newest);
            }
        }
        let processes = self.processes();
        let run = processes.iter().filter(|(_, process)| !process.stopped);
        let nodes = run.map(|(_, process)| (process.node.items(), process.node.floor()));
        let nodes: Vec<(Vec<Item>, i64)> = nodes.collect();
        for (key, version) in acknowledged {
            let mut older = nodes.iter().flat_map(|(items, _)| items);
            let older = older.any(|item| item.key == key && item.version < version);
            let forgotten = !older && history.deleted(&key) >= Some(version);
            let has = |(items, floor): &&(Vec<Item>, i64)| {
                let mut of_key = items.iter().filter(|item| item.key == key);
                (forgotten && *floor >= version) || of_key.any(|item| item.version >= version)
            };
            let found = nodes.iter().filter(has).count();
            if found < copies {
                let key = brief(&key);
                return Err(format!("{key} lies on {found} nodes instead of {copies}"));
            }
        }
        Ok(())
    }

    /// Nothing is left to do.
    ///
    /// # Errors
    /// What is.
    pub fn settled(&self) -> Result<(), String> {
        self.agreed()?;
        self.copies(true)
    }

    /// The version under which some node holds the value of a put that has just been acknowledged. Of the empty one,
    /// which is not unique, the least; `None` if it may be that of another put which was not acknowledged. The history
    /// notes the greatest.
    pub fn version_of(&self, key: &[u8], value: &[u8]) -> Option<i64> {
        // That put itself has not ended either.
        if value.is_empty() && self.history().open_deletes(key) > 1 {
            return None;
        }
        let processes = self.processes();
        let items = processes
            .iter()
            .flat_map(|(_, process)| process.node.items());
        let versions = items.filter(|item| item.key == key && item.value == value);
        let versions: Vec<_> = versions.map(|item| item.version).collect();
        let greatest = versions.iter().copied().max();
        if value.is_empty() {
            greatest.inspect(|version| self.history().note_tombstone(key, *version));
            versions.into_iter().min()
        } else {
            greatest
        }
    }
}
