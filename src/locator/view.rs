//! The network as one node sees it at one moment: a ring, and what is known of each node in it.
//!
//! A view never changes; nodes look at one for as long as they like, and at the next one to see
//! whether anything has changed. Who holds a key follows from a view alone.

use crate::location::Location;
use crate::ring::{self, Ring};

use super::member::{Member, State, fnv1a};

#[derive(Debug, Clone, Default)]
pub struct View {
    ring: Ring,
    /// In the order of the ring's names, which is that of the names as text.
    members: Vec<Member>,
    /// The wrapping sum of the members' digests: equal for equal lists.
    digest: u64,
    /// The same of the names alone, of ours that take items.
    names: u64,
    /// How many changes led here.
    epoch: u64,
}

impl View {
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Tells lists apart that don't name the same nodes of ours as taking items: all but the leaving.
    pub fn names(&self) -> u64 {
        self.names
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn get(&self, location: &Location) -> Option<&Member> {
        Some(&self.members[self.place(location)?])
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

    /// The nodes that should hold a key, in the order of the ring; the first is the primary.
    ///
    /// Going round from the key, they are all nodes until `replicas` full ones have been met:
    /// filling and leaving ones on the way hold the key beside those that count, so that the old
    /// holders stay holders until the new one is full, and the new ones are holders before the
    /// old one has left. An original counts, but only as the primary; further on it is passed by.
    /// (Where an original is the primary, the others hold shadow copies.)
    pub fn holders(&self, key: &[u8], replicas: usize) -> Vec<&Member> {
        if let [only] = &self.members[..] {
            return vec![only];
        }
        let mut holders = Vec::with_capacity(replicas);
        let places = self.holders_at(ring::hash(key), replicas);
        holders.extend(places.map(|place| &self.members[place]));
        holders
    }

    /// The places among [`View::members`] of the holders of keys with that hash; see
    /// [`View::holders`].
    pub fn holders_at(&self, hash: u32, replicas: usize) -> impl Iterator<Item = usize> {
        let mut counted = 0;
        let met = self.ring.walk(hash).enumerate();
        met.map_while(move |(met, place)| {
            if counted == replicas {
                return None;
            }
            match self.members[place].state {
                State::Original if met > 0 => return Some(None),
                State::Original | State::Full => counted += 1,
                State::Filling | State::Leaving | State::Gone => {}
            }
            Some(Some(place))
        })
        .flatten()
    }

    /// The holder of a key, if there is only one.
    pub fn only_holder(&self, key: &[u8], replicas: usize) -> Option<&Member> {
        if let [only] = &self.members[..] {
            return Some(only);
        }
        let mut holders = self.holders_at(ring::hash(key), replicas);
        let first = holders.next().filter(|_| holders.next().is_none());
        first.map(|place| &self.members[place])
    }

    /// A key's place on the ring; any will do where there is only one node.
    pub fn hash(&self, key: &[u8]) -> u32 {
        match &self.members[..] {
            [_] => 0,
            _ => ring::hash(key),
        }
    }

    /// Puts a member in, or in the place of what was known of it.
    pub(super) fn insert(&mut self, member: Member) {
        self.epoch += 1;
        self.digest = self.digest.wrapping_add(member.digest());
        self.names = self.names.wrapping_add(name_digest(&member));
        match self.ring.insert(member.name()) {
            Ok(place) => self.members.insert(place, member),
            Err(place) => {
                let old = std::mem::replace(&mut self.members[place], member);
                self.digest = self.digest.wrapping_sub(old.digest());
                self.names = self.names.wrapping_sub(name_digest(&old));
            }
        }
    }

    pub(super) fn remove(&mut self, location: &Location) -> Option<Member> {
        let place = self.ring.remove(location.name())?;
        let member = self.members.remove(place);
        self.epoch += 1;
        self.digest = self.digest.wrapping_sub(member.digest());
        self.names = self.names.wrapping_sub(name_digest(&member));
        Some(member)
    }
}

fn name_digest(member: &Member) -> u64 {
    if matches!(member.state, State::Filling | State::Full) {
        fnv1a(member.name().as_bytes())
    } else {
        0
    }
}
