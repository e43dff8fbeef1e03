//! The network as one node sees it at one moment: a ring, and the state of each node in it.
//!
//! A view never changes; a change makes another one. Which nodes are a key's replicas follows from a view
//! alone.

use std::collections::BTreeMap;

use crate::digest::mix;
use crate::location::Location;
use crate::ring::{self, Ring};

use super::member::{Member, State};

/// The members and their ring.
#[derive(Debug, Clone, Default)]
pub struct View {
    ring: Ring,
    /// In the order of the ring's names, which is that of the names as text.
    members: Vec<Member>,
    /// The digests of the members, in the same order.
    digests: Vec<u64>,
    /// The wrapping sum of the members' digests: equal for equal views.
    digest: u64,
    /// How many members are originals.
    originals: usize,
}

impl View {
    /// In the order of their names as text.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Equal for equal views.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The member of that name.
    pub fn get(&self, location: &Location) -> Option<&Member> {
        Some(&self.members[self.place(location)?])
    }

    /// Whether a member is an original.
    pub fn has_originals(&self) -> bool {
        self.originals > 0
    }

    /// Where a member is among [`View::members`].
    pub fn place(&self, location: &Location) -> Option<usize> {
        self.ring.position(location.name()).ok()
    }

    /// The node that every node, the originals too, takes for the owner of a key.
    pub fn owner(&self, key: &[u8]) -> Option<&Member> {
        match &self.members[..] {
            [only] => Some(only),
            _ => Some(&self.members[self.ring.owner(ring::hash(key))?]),
        }
    }

    /// The places among [`View::members`] of the replicas of keys with that hash, in the order of the ring: all nodes
    /// that are met until `copies` full ones have been. Others that are met on the way are replicas as well, and don't
    /// count. An original counts, but only if it is met first; later ones are left out.
    pub fn list(&self, hash: u32, copies: usize) -> impl Iterator<Item = usize> {
        let mut counted = 0;
        let met = self.ring.walk(hash).enumerate();
        met.map_while(move |(met, place)| {
            if counted == copies {
                return None;
            }
            match self.members[place].state {
                State::Original if met > 0 => return Some(None),
                State::Original | State::Full => counted += 1,
                _ => {}
            }
            Some(Some(place))
        })
        .flatten()
    }

    /// The lists of all ranges.
    pub(super) fn lists(&self, copies: usize) -> impl Iterator<Item = Vec<usize>> {
        let starts = self.ring.ranges();
        starts.map(move |hash| self.list(hash, copies).collect())
    }

    /// Tells lists apart: the nodes, their states, their incarnations, and the order.
    pub fn list_digest(&self, list: impl Iterator<Item = usize>) -> u64 {
        list.fold(0, |digest, place| {
            mix(digest.rotate_left(1) ^ self.digests[place])
        })
    }

    /// Whether a range that begins with a lower hash, and has the same list as this hash, ends below it.
    pub(super) fn ends_below(&self, start: u32, hash: u32) -> bool {
        self.ring.begins_above(start, hash)
    }

    /// What the member at that place shares with each other one of ours.
    pub(super) fn ties(&self, me: usize, copies: usize) -> BTreeMap<usize, Ties> {
        let mut ties: BTreeMap<usize, Ties> = BTreeMap::new();
        // A lease comes from the next full or leaving node behind the primary, be it a replica or not: it is
        // the primary in a view in which this one is not full yet.
        let far = copies.max(2);
        let mut full: Vec<usize> = Vec::new();
        let mut lists: Vec<u32> = Vec::new();
        self.ring.ranges_before(me, |start, ends_with| {
            if ends_with == me {
                // A new run of ranges backwards, from a point of this node's own.
                full.clear();
            } else if self.members[ends_with].state == State::Full && !full.contains(&ends_with) {
                full.push(ends_with);
            }
            if full.len() >= far {
                return false;
            }
            lists.extend(start);
            true
        });
        lists.sort_unstable();
        lists.dedup();
        for hash in lists {
            let list: Vec<_> = self.list(hash, far).collect();
            let (near, primary) = self.near(&list, copies);
            if list[..near].contains(&me) {
                let digest = self.list_digest(list[..near].iter().copied());
                let digest = mix(digest ^ u64::from(hash));
                let ours = |other: &&usize| **other != me && self.members[**other].is_ours();
                for other in list[..near].iter().filter(ours) {
                    let tie = ties.entry(*other).or_default();
                    tie.shared = tie.shared.wrapping_add(digest);
                }
            }
            let Some(primary) = primary else { continue };
            let behind = list[primary + 1..].iter();
            let mut behind = behind.filter(|place| self.members[**place].state.holds_all());
            let Some(&next) = behind.next() else { continue };
            let range = Range {
                start: hash.into(),
                list: self.list_digest(list.iter().copied()),
            };
            if list[primary] == me {
                ties.entry(next).or_default().lease.push(range);
            } else if next == me {
                ties.entry(list[primary]).or_default().grant.push(range);
            }
        }
        ties
    }

    /// How many of those on a longer list are replicas, and which of them is the primary of ours.
    pub(super) fn near(&self, list: &[usize], copies: usize) -> (usize, Option<usize>) {
        let state = |place: &usize| self.members[*place].state;
        let mut counted = 0;
        let counts = |place: &&usize| {
            let before = counted;
            counted += usize::from(matches!(state(place), State::Full | State::Original));
            before < copies
        };
        let near = list.iter().take_while(counts).count();
        let primary = list.iter().position(|place| state(place).holds_all());
        (near, primary)
    }

    /// Puts a member in, or in the place of what was known of it.
    pub(super) fn insert(&mut self, member: Member) {
        let digest = member.digest();
        self.digest = self.digest.wrapping_add(digest);
        self.originals += usize::from(!member.is_ours());
        match self.ring.insert(member.location.name()) {
            Ok(place) => {
                self.members.insert(place, member);
                self.digests.insert(place, digest);
            }
            Err(place) => {
                let known = std::mem::replace(&mut self.members[place], member);
                self.originals -= usize::from(!known.is_ours());
                let old = std::mem::replace(&mut self.digests[place], digest);
                self.digest = self.digest.wrapping_sub(old);
            }
        }
    }

    pub(super) fn remove(&mut self, location: &Location) -> Option<Member> {
        let place = self.ring.remove(location.name())?;
        self.digest = self.digest.wrapping_sub(self.digests.remove(place));
        let member = self.members.remove(place);
        self.originals -= usize::from(!member.is_ours());
        Some(member)
    }
}

/// What two nodes share, by the view of one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ties {
    /// The digest of all ranges of which both are replicas, and of their lists; 0: there are none. If both nodes have the
    /// same digest, both have the same ranges and lists.
    pub shared: u64,
    /// The ranges of which this node is the primary and the other one the granter; sorted.
    pub lease: Vec<Range>,
    /// Those of which the other one is the primary and this node the granter; sorted.
    pub grant: Vec<Range>,
}

/// A range for which one node grants another one the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The hash with which it begins.
    pub start: u64,
    /// The digest of its list, to which the granter is added if R is 1.
    pub list: u64,
}
