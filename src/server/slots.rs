//! Which connections get in near the limit: some slots are kept for the other nodes of the network.
//!
//! A node is known by its address alone, as whatever a message says can be forged. Each has [`EACH`] slots; where
//! that would be more than half of all for all nodes together, the half is shared out, and each has one at least.
//! Connections from a node's address beyond its slots count as anybody's. Invariants, as long as a new node's slots
//! have become free:
//!
//! * a connection within a node's slots finds room, and is not closed for others;
//! * anybody else finds room in half of all slots.
//!
//! A client that has the same address as a node may take its slots.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

/// Slots that are kept for a node: one for its questions, one for those that it puts to silent nodes, one for what
/// moves items, and one for the requests that it forwards.
const EACH: usize = 4;

/// How the slots are shared out, and who has taken them.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: usize,
    /// How many are out of reach for others.
    kept: usize,
    /// How many each node's address has.
    of: HashMap<IpAddr, usize>,
    taken: usize,
    /// How many of them by each address.
    by: HashMap<IpAddr, usize>,
}

impl Slots {
    /// Shares `all` slots out anew. `nodes` are the addresses of the other nodes, one for each node.
    pub fn share_out(&mut self, all: usize, nodes: &[IpAddr]) {
        let half = all / 2;
        let each = half.checked_div(nodes.len()).unwrap_or(0).clamp(1, EACH);
        self.all = all;
        self.kept = half.min(each * nodes.len());
        self.of.clear();
        for node in nodes {
            *self.of.entry(node.to_canonical()).or_default() += each;
        }
    }

    /// A connection from there is let in.
    pub fn take(&mut self, address: IpAddr) {
        self.taken += 1;
        *self.by.entry(address).or_default() += 1;
    }

    /// A connection from there has ended.
    pub fn give_back(&mut self, address: IpAddr) {
        self.taken -= 1;
        if let Entry::Occupied(mut count) = self.by.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// How many slots are kept for an address.
    pub fn of(&self, address: IpAddr) -> usize {
        self.of.get(&address).copied().unwrap_or(0)
    }

    fn by(&self, address: IpAddr) -> usize {
        self.by.get(&address).copied().unwrap_or(0)
    }

    /// Whether an address has less than what is kept for it.
    pub fn is_owed(&self, address: IpAddr) -> bool {
        self.by(address) < self.of(address)
    }

    /// Whether there is room for one more connection from there.
    pub fn has_room(&self, address: IpAddr) -> bool {
        let nodes = self.of.iter();
        let own: usize = nodes.map(|(node, own)| self.by(*node).min(*own)).sum();
        let others_have_room = self.taken - own < self.all - self.kept;
        self.taken < self.all && (self.is_owed(address) || others_have_room)
    }

    /// Whether a connection from there, one of those that were let in, may be closed for others.
    pub fn may_close(&self, address: IpAddr) -> bool {
        self.of(address) == 0 || self.by(address) > self.of(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [127, 0, 0, number].into()
    }

    fn shared_out(all: usize, nodes: &[IpAddr]) -> Slots {
        let mut slots = Slots::default();
        slots.share_out(all, nodes);
        slots
    }

    #[test]
    fn must_keep_four_for_each_node_and_no_more_than_half() {
        let of = |all, nodes: &[u8]| {
            let nodes: Vec<_> = nodes.iter().map(|node| address(*node)).collect();
            let slots = shared_out(all, &nodes);
            (slots.kept, slots.of(address(1)))
        };
        assert_eq!(of(100, &[]), (0, 0));
        assert_eq!(of(100, &[1, 2]), (8, 4));
        assert_eq!(of(100, &[1, 2, 1]), (12, 8), "two nodes at one address");
        assert_eq!(of(8, &[1, 2]), (4, 2));
        assert_eq!(of(9, &[1]), (4, 4));
        assert_eq!(of(4, &[1, 2, 3]), (2, 1), "one at least");
        assert_eq!(of(1, &[1]), (0, 1));
    }

    #[test]
    fn must_tell_which_connection_finds_room_and_which_may_be_closed() {
        let [node, other, client] = [1, 2, 9].map(address);
        let taken = |addresses: &[IpAddr]| {
            let mut slots = shared_out(8, &[node, other]);
            addresses.iter().for_each(|address| slots.take(*address));
            let room = [node, other, client].map(|address| slots.has_room(address));
            let close = [node, other, client].map(|address| slots.may_close(address));
            (room, close)
        };
        let clients = [client; 4];
        let (room, close) = taken(&clients);
        assert_eq!(room, [true, true, false]);
        assert_eq!(close, [false, false, true]);
        let (room, close) = taken(&[&clients[..], &[node, node]].concat());
        assert_eq!(room, [false, true, false], "its own are taken");
        assert_eq!(close, [false, false, true]);
        let (room, close) = taken(&[&clients[1..], &[node, node, node]].concat());
        assert_eq!(room, [false, true, false]);
        assert_eq!(close, [true, false, true], "it has more than its own");
        let (room, _) = taken(&[&clients[..], &clients[..]].concat());
        assert_eq!(room, [false; 3], "full, though it is owed some");
    }

    #[test]
    fn must_know_an_address_in_both_forms() {
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        assert_eq!(shared_out(8, &[mapped]).of(address(1)), 4);
    }

    #[test]
    fn must_have_all_slots_again_once_all_are_given_back() {
        let [node, client] = [1, 9].map(address);
        let mut slots = shared_out(4, &[node]);
        for _ in 0..2 {
            for address in [node, node, client] {
                slots.take(address);
            }
            slots.share_out(4, &[node]);
            assert!(slots.has_room(client));
            slots.take(client);
            assert!(!slots.has_room(client) && slots.may_close(client));
            for address in [node, client, client, node] {
                slots.give_back(address);
            }
            assert!(slots.taken == 0 && slots.by.is_empty());
        }
    }
}
