//! Which node owns a key: the consistent-hash ring of the 2009 original, bit for bit.
//!
//! Pure data: no socket, thread, clock or lock, and no notion of what a node is but its name. Each
//! name has 30 digests, `md5("name-0")` to `md5("name-29")`. The first four bytes of a digest, as a
//! number v, give four points: v, v·2⁴, v·2⁸ and v·2¹². (So points go up to 44 bits, while keys
//! hash to 32: about 32 points of a node lie where keys are.) A key belongs to the owner of the
//! first point greater than its hash.
//!
//! Invariants: names are sorted; points are sorted; of equal points the smaller name's comes first
//! and owns. The order in which nodes came and went can't be seen.

use std::iter::Chain;
use std::slice;
use std::sync::{Arc, OnceLock};

use md5::{Digest, Md5};

/// Digests of a node; each gives four points.
const DIGESTS: usize = 30;

/// A point is kept as `value << OWNER_BITS | owner`: one word, whose order is that of the values
/// and then of the owners' names.
const OWNER_BITS: u32 = 20;

const OWNER_MASK: u64 = (1 << OWNER_BITS) - 1;

/// The most nodes that a ring can hold.
pub const NODES_MAX: usize = 1 << OWNER_BITS;

/// A key's position: the first four bytes of its md5, big-endian. A key of 32 hex digits, in
/// either case, is its own digest.
///
/// ```
/// assert_eq!(thrifty_p2p::ring::hash(b"a"), 0x0cc1_75b9);
/// assert_eq!(thrifty_p2p::ring::hash(b"5f4dcc3b5aa765d61d8327deb882cf99"), 0x5f4d_cc3b);
/// ```
pub fn hash(key: &[u8]) -> u32 {
    if key.len() == 32 && key.iter().all(u8::is_ascii_hexdigit) {
        let digits = std::str::from_utf8(&key[..8]).expect("BUG: hex digits are ASCII");
        return u32::from_str_radix(digits, 16).expect("BUG: eight hex digits");
    }
    first_word(key)
}

fn first_word(bytes: &[u8]) -> u32 {
    let digest = Md5::digest(bytes);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// The nodes and their points.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    names: Vec<Arc<str>>,
    /// Made at the first look-up: a caller that only wants to know the names pays for no points.
    points: OnceLock<Vec<u64>>,
}

impl Ring {
    /// The ring of these names; one that comes twice counts once.
    ///
    /// # Panics
    /// With more than [`NODES_MAX`] names, as [`Ring::insert`]: callers that take names from outside
    /// stop earlier.
    pub fn new(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        assert!(
            names.len() <= NODES_MAX,
            "BUG: a ring of over a million nodes"
        );
        Ring {
            names,
            points: OnceLock::new(),
        }
    }

    /// Sorted.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The place of `name` among the names; or, as an error, where it would be.
    pub fn position(&self, name: &str) -> Result<usize, usize> {
        self.names
            .binary_search_by(|known| known.as_ref().cmp(name))
    }

    /// Merges a node's points in. The answer is its place among the names, as [`Ring::position`].
    ///
    /// # Errors
    /// It is there already, at that place.
    pub fn insert(&mut self, name: &Arc<str>) -> Result<usize, usize> {
        let owner = match self.position(name) {
            Ok(owner) => return Err(owner),
            Err(owner) => owner,
        };
        assert!(
            self.names.len() < NODES_MAX,
            "BUG: a ring of over a million nodes"
        );
        self.names.insert(owner, name.clone());
        if let Some(points) = self.points.get_mut() {
            merge(points, &own_points(name, owner), owner as u64);
        }
        Ok(owner)
    }

    /// Filters a node's points out. The answer is the place it had, if it was there.
    pub fn remove(&mut self, name: &str) -> Option<usize> {
        let owner = self.position(name).ok()?;
        self.names.remove(owner);
        if let Some(points) = self.points.get_mut() {
            let gone = owner as u64;
            points.retain_mut(|point| {
                let owner = *point & OWNER_MASK;
                *point -= u64::from(owner > gone);
                owner != gone
            });
        }
        Some(owner)
    }

    /// The place of the owner of keys that hash to `hash`; `None` in an empty ring. Nothing is
    /// allocated but the points, once.
    pub fn owner(&self, hash: u32) -> Option<usize> {
        let points = self.points();
        let start = self.start(hash);
        // Past the last point comes the first.
        let point = points.get(start).or(points.first())?;
        Some((point & OWNER_MASK) as usize)
    }

    /// The places of all nodes, in the order in which their points are first met from `hash`
    /// upwards: the owner, the node that owns when the owner has gone, and so on.
    pub fn walk(&self, hash: u32) -> Walk<'_> {
        let (below, from) = self.points().split_at(self.start(hash));
        Walk {
            points: from.iter().chain(below),
            nodes: self.names.len(),
            met: 0,
            first: [0; MET_IN_PLACE],
            bits: Vec::new(),
        }
    }

    /// Every point with its owner's place, in order.
    pub fn all_points(&self) -> impl Iterator<Item = (u64, usize)> {
        let split = |point: &u64| (point >> OWNER_BITS, (point & OWNER_MASK) as usize);
        self.points().iter().map(split)
    }

    /// The whole ring as arcs, one behind the other: the least hash of each, the number behind its greatest, and the place
    /// of the node that owns these keys.
    pub fn arcs(&self) -> Vec<(u64, u64, usize)> {
        const END: u64 = 1 << 32;
        let mut arcs: Vec<(u64, u64, usize)> = Vec::new();
        // Past the last point comes the first.
        let first = self.all_points().next().map(|(_, owner)| (END, owner));
        for (point, owner) in self.all_points().chain(first) {
            let (from, to) = (arcs.last().map_or(0, |last| last.1), point.min(END));
            match arcs.last_mut() {
                _ if from == to => {}
                Some(last) if last.2 == owner => last.1 = to,
                _ => arcs.push((from, to, owner)),
            }
        }
        arcs
    }

    /// The ranges of keys that lie before a node's points, for each point from the nearest range
    /// backwards: `visit` gets the hash with which a range begins and the place of the node whose
    /// point ends it, and answers whether to go further back. A range is visited once, however many
    /// of the node's points lie behind it; ranges without keys are visited too, with `None`.
    pub fn ranges_before(&self, place: usize, mut visit: impl FnMut(Option<u32>, usize) -> bool) {
        let points = self.points();
        let ends = own_points(&self.names[place], place);
        let owner = |index: usize| (points[index] & OWNER_MASK) as usize;
        for end in ends {
            let last = points.partition_point(|point| *point < end);
            let mut index = last;
            loop {
                let before = index.checked_sub(1).unwrap_or(points.len() - 1);
                if !visit(self.range_start(index), owner(index)) {
                    break;
                }
                index = before;
                if owner(index) == place {
                    break;
                }
            }
        }
    }

    /// Whether the owner of keys with that hash has a point between a lower hash and this one: its arc, which ends above
    /// the hash, begins above the lower one then.
    pub fn begins_above(&self, lower: u32, hash: u32) -> bool {
        match self.points().get(self.start(lower)..self.start(hash)) {
            None | Some([]) => false,
            Some(between) => {
                let mut owners = between.iter().map(|point| (point & OWNER_MASK) as usize);
                let owner = self.owner(hash);
                owners.any(|other| Some(other) == owner)
            }
        }
    }

    /// A hash in each range that holds keys.
    pub fn ranges(&self) -> impl Iterator<Item = u32> {
        (0..self.points().len()).filter_map(|index| self.range_start(index))
    }

    /// The least hash of the range that ends with a point; `None`: no key lies in it. (A range that
    /// holds the greatest keys and the least ones begins with its greatest.)
    fn range_start(&self, index: usize) -> Option<u32> {
        let points = self.points();
        let end = points[index] >> OWNER_BITS;
        match index.checked_sub(1) {
            Some(before) => {
                let start = points[before] >> OWNER_BITS;
                let start = u32::try_from(start).ok()?;
                (u64::from(start) < end).then_some(start)
            }
            None => {
                // Past the last point comes the first.
                let greatest = points[points.len() - 1] >> OWNER_BITS;
                match u32::try_from(greatest) {
                    Ok(greatest) => Some(greatest),
                    Err(_) => (end > 0).then_some(0),
                }
            }
        }
    }

    /// Index of the first point greater than `hash`.
    ///
    /// Points lie evenly where keys are, so the place is guessed by proportion and then searched
    /// for nearby, within a few cache lines; a bad guess only makes the search longer.
    fn start(&self, hash: u32) -> usize {
        let points = self.points();
        let last = u64::from(hash) << OWNER_BITS | OWNER_MASK;
        // Of a digest's four points the first lies below 2^32, and one in 16, 256, 4096 of the others.
        let low = points.len() * 0x1111 / 0x4000;
        let guess = ((u64::from(hash) * low as u64) >> 32) as usize;
        let (mut from, mut to, mut step) = (guess, guess, 32);
        while from > 0 && points[from - 1] > last {
            to = from - 1;
            from = from.saturating_sub(step);
            step *= 2;
        }
        while to < points.len() && points[to] <= last {
            from = to + 1;
            to = (to + step).min(points.len());
            step *= 2;
        }
        from + points[from..to].partition_point(|point| *point <= last)
    }

    fn points(&self) -> &Vec<u64> {
        self.points.get_or_init(|| {
            let owners = self.names.iter().enumerate();
            let mut points: Vec<_> = owners
                .flat_map(|(owner, name)| own_points(name, owner))
                .collect();
            points.sort_unstable();
            points
        })
    }
}

/// See [`Ring::walk`]. The first few nodes are found without an allocation.
#[derive(Debug)]
pub struct Walk<'a> {
    points: Chain<slice::Iter<'a, u64>, slice::Iter<'a, u64>>,
    nodes: usize,
    met: usize,
    /// The nodes met while they are few,
    first: [usize; MET_IN_PLACE],
    /// and a bit for every node once they are more.
    bits: Vec<u64>,
}

/// More than the replicas that people ask for, with some filling nodes between them.
const MET_IN_PLACE: usize = 8;

impl Walk<'_> {
    /// Notes a node; true if it had not been met.
    fn meet(&mut self, owner: usize) -> bool {
        let bit = |owner: usize| (owner / 64, 1_u64 << (owner % 64));
        if self.met < MET_IN_PLACE && self.first[..self.met].contains(&owner) {
            return false;
        }
        if let Some(first) = self.first.get_mut(self.met) {
            *first = owner;
        } else {
            if self.bits.is_empty() {
                self.bits = vec![0; self.nodes.div_ceil(64)];
                for (word, bit) in self.first.map(bit) {
                    self.bits[word] |= bit;
                }
            }
            let (word, bit) = bit(owner);
            if self.bits[word] & bit != 0 {
                return false;
            }
            self.bits[word] |= bit;
        }
        self.met += 1;
        true
    }
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.met == self.nodes {
            return None;
        }
        while let Some(point) = self.points.next() {
            let owner = (point & OWNER_MASK) as usize;
            if self.meet(owner) {
                return Some(owner);
            }
        }
        None
    }
}

fn own_points(name: &str, owner: usize) -> [u64; 4 * DIGESTS] {
    let mut points = [0; 4 * DIGESTS];
    for (number, four) in points.chunks_exact_mut(4).enumerate() {
        let value = u64::from(first_word(format!("{name}-{number}").as_bytes()));
        for (shift, point) in four.iter_mut().enumerate() {
            *point = value << (4 * shift) << OWNER_BITS | owner as u64;
        }
    }
    points.sort_unstable();
    points
}

/// Puts the sorted points of the new owner `newcomer` among the others, whose owners from that
/// number on move up by one. From the back, so that each point is moved once.
fn merge(points: &mut Vec<u64>, added: &[u64], newcomer: u64) {
    let mut read = points.len();
    points.resize(read + added.len(), 0);
    let mut write = points.len();
    for &new in added.iter().rev() {
        // Equal values: the smaller owner goes first. The others' numbers are still the old ones,
        // of which those from `newcomer` on belong to greater names.
        let start = points[..read].partition_point(|point| *point < new);
        let length = read - start;
        points.copy_within(start..read, write - length);
        for point in &mut points[write - length..write] {
            *point += u64::from(*point & OWNER_MASK >= newcomer);
        }
        write -= length + 1;
        points[write] = new;
        read = start;
    }
    for point in &mut points[..read] {
        *point += u64::from(*point & OWNER_MASK >= newcomer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring with points of our choice: real ones practically never all lie below a hash.
    fn ring(points: &[(u64, u64)]) -> Ring {
        let mut ring = Ring::new(["a:1", "b:1", "c:1"].map(Arc::from));
        let points = points
            .iter()
            .map(|(value, owner)| value << OWNER_BITS | owner);
        ring.points = OnceLock::from(points.collect::<Vec<_>>());
        ring
    }

    #[test]
    fn must_begin_anew_past_the_last_point() {
        let ring = ring(&[(5, 2), (7, 0), (7, 1), (90, 0)]);
        let walk = |hash| ring.walk(hash).collect::<Vec<_>>();
        for (hash, places) in [
            (0, [2, 0, 1]),
            (4, [2, 0, 1]),
            (5, [0, 1, 2]),
            (6, [0, 1, 2]),
            (7, [0, 2, 1]),
            (89, [0, 2, 1]),
            (90, [2, 0, 1]),
            (u32::MAX, [2, 0, 1]),
        ] {
            assert_eq!(walk(hash), places, "hash {hash}");
            assert_eq!(ring.owner(hash), Some(places[0]), "hash {hash}");
        }
    }

    #[test]
    fn must_find_the_first_point_above_wherever_points_lie() {
        // All crowded at one end: the proportion guesses wrong by the whole ring.
        for offset in [0, (1 << 32) - 400, 1 << 40] {
            let points: Vec<_> = (0..400)
                .map(|number| (offset + number, number % 3))
                .collect();
            let ring = ring(&points);
            for hash in [
                0,
                1,
                37,
                398,
                399,
                400,
                1 << 31,
                u32::MAX - 399,
                u32::MAX - 1,
                u32::MAX,
            ] {
                let start = points.iter().position(|point| point.0 > u64::from(hash));
                assert_eq!(ring.start(hash), start.unwrap_or(400), "{offset} {hash}");
            }
        }
    }

    #[test]
    fn must_part_all_hashes_into_arcs_of_one_owner() {
        let few = ring(&[(0, 1), (5, 2), (7, 0), (7, 1), (9, 0), (1 << 32, 1)]);
        assert_eq!(few.arcs(), [(0, 5, 2), (5, 9, 0), (9, 1 << 32, 1)]);
        let names = ["a:1", "a:2", "b:1"].map(Arc::from);
        for count in 0..=3 {
            let ring = Ring::new(names[..count].iter().cloned());
            let mut end = 0;
            for (from, to, owner) in ring.arcs() {
                assert_eq!(from, end);
                for hash in [from, (from + to) / 2, to - 1] {
                    assert_eq!(ring.owner(hash as u32), Some(owner), "{hash}");
                }
                end = to;
            }
            assert_eq!(end, (count.min(1) as u64) << 32);
        }
    }

    #[test]
    fn must_hash_keys_of_32_hex_digits_to_themselves() {
        let digits = b"0123456789abcdefABCDEF0123456789";
        assert_eq!(hash(digits), 0x0123_4567);
        assert_eq!(hash(b"FFFFFFFF000000000000000000000000"), u32::MAX);
        // One digit fewer, one that is none, 32 characters that are 33 bytes.
        for key in [
            &digits[..31],
            b"0123456789abcdefABCDEF012345678g",
            "é123456789abcdefABCDEF0123456789".as_bytes(),
        ] {
            assert_eq!(hash(key), first_word(key));
        }
    }
}
