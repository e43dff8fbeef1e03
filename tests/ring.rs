//! The ring against the original's own placements (`tests/data/ring.tsv` and its like, made by its code) and
//! against a scan over all points that shares no code with it.

mod counting;

use std::collections::BTreeMap;
use std::sync::Arc;

use counting::measure;
use md5::{Digest, Md5};
use thrifty_p2p::ring::{self, Ring};

/// The lines of a table, without the first, each cut at the tabs.
fn table(name: &str) -> Vec<Vec<String>> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let cells = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().skip(1).map(cells).collect()
}

/// The names of the columns of `ring.tsv` that are node sets.
fn columns() -> Vec<String> {
    let path = format!("{}/tests/data/ring.tsv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let head = text.lines().next().expect("a head line");
    head.split('\t').skip(2).map(str::to_owned).collect()
}

/// Set to its nodes, in the order of their indexes.
fn sets() -> BTreeMap<String, Vec<Arc<str>>> {
    let mut sets: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
    for line in table("ring_sets.tsv") {
        let nodes = sets.entry(line[0].clone()).or_default();
        assert_eq!(line[1].parse(), Ok(nodes.len()), "{line:?}");
        nodes.push(line[2].as_str().into());
    }
    sets
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

fn numbers(text: &str) -> Vec<usize> {
    text.split(',').map(|text| text.parse().unwrap()).collect()
}

/// Every point of `names`, sorted, equal ones by name: the definition, word for word.
fn definition(names: &[Arc<str>]) -> Vec<(u64, Arc<str>)> {
    let mut points = Vec::new();
    for name in names {
        for number in 0..30 {
            let digest = Md5::digest(format!("{name}-{number}"));
            let value = u32::from_be_bytes(digest[..4].try_into().unwrap());
            for shift in [0, 4, 8, 12] {
                points.push((u64::from(value) << shift, name.clone()));
            }
        }
    }
    points.sort();
    points
}

/// The preference list of `hash`, by looking at every point.
fn scan(points: &[(u64, Arc<str>)], hash: u32) -> Vec<Arc<str>> {
    let above = |(value, _): &&(u64, Arc<str>)| *value > u64::from(hash);
    let from = points.iter().filter(above);
    let below = points.iter().filter(|point| !above(point));
    let mut met = Vec::new();
    for (_, name) in from.chain(below) {
        if !met.contains(name) {
            met.push(name.clone());
        }
    }
    met
}

fn owner_name(ring: &Ring, hash: u32) -> Option<Arc<str>> {
    ring.owner(hash).map(|place| ring.names()[place].clone())
}

fn walk_names(ring: &Ring, hash: u32) -> Vec<Arc<str>> {
    let places = ring.walk(hash);
    places.map(|place| ring.names()[place].clone()).collect()
}

/// A ring and the definition agree on every point, and on the owners at, below and above some.
fn assert_is(ring: &Ring, names: &[Arc<str>], what: &str) {
    let expected = definition(names);
    let found: Vec<_> = ring.all_points().collect();
    let found: Vec<_> = (found.iter())
        .map(|&(value, place)| (value, ring.names()[place].clone()))
        .collect();
    assert!(found == expected, "points differ: {what}");
    for (value, _) in expected.iter().step_by(1 + expected.len() / 40) {
        let Ok(hash) = u32::try_from(*value) else {
            break;
        };
        for hash in [hash.wrapping_sub(1), hash, hash.wrapping_add(1)] {
            let preferred = scan(&expected, hash);
            assert_eq!(walk_names(ring, hash), preferred, "{what}, hash {hash}");
            assert_eq!(owner_name(ring, hash).as_ref(), preferred.first(), "{what}");
        }
    }
}

/// splitmix64: the numbers of a seed are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[test]
fn must_give_every_key_the_owner_that_the_original_gives_it() {
    let sets = sets();
    let columns = columns();
    assert_eq!(columns.len(), sets.len());
    let rings: Vec<_> = (columns.iter())
        .map(|set| (Ring::new(sets[set].iter().cloned()), &sets[set]))
        .collect();
    let keys = table("ring.tsv");
    assert_eq!(keys.len(), 3882);
    for line in keys {
        let hash = ring::hash(&unhex(&line[0]));
        assert_eq!(line[1].parse(), Ok(hash), "hash of key {}", line[0]);
        for ((ring, nodes), (index, set)) in rings.iter().zip(line[2..].iter().zip(&columns)) {
            let expected = &nodes[index.parse::<usize>().unwrap()];
            let found = owner_name(ring, hash);
            assert_eq!(found.as_ref(), Some(expected), "key {}, set {set}", line[0]);
        }
    }
}

#[test]
fn must_prefer_nodes_in_the_order_of_the_original() {
    let sets = sets();
    let lists = table("ring_prefs.tsv");
    assert!(lists.len() > 100);
    let mut ring = (String::new(), Ring::default());
    for line in lists {
        let nodes = &sets[&line[0]];
        if ring.0 != line[0] {
            ring = (line[0].clone(), Ring::new(nodes.iter().cloned()));
        }
        let expected: Vec<_> = (numbers(&line[2]).iter())
            .map(|&index| nodes[index].clone())
            .collect();
        let found = walk_names(&ring.1, ring::hash(&unhex(&line[1])));
        assert_eq!(found, expected, "key {}, set {}", line[1], line[0]);
    }
}

#[test]
fn must_have_the_points_of_the_original() {
    let sets = sets();
    let mut expected: BTreeMap<String, Vec<(u64, Arc<str>)>> = BTreeMap::new();
    for line in table("ring_points.tsv") {
        let node = sets[&line[0]][line[2].parse::<usize>().unwrap()].clone();
        let points = expected.entry(line[0].clone()).or_default();
        points.push((line[1].parse().unwrap(), node));
    }
    assert!(expected.len() >= 3);
    for (set, points) in expected {
        let ring = Ring::new(sets[&set].iter().cloned());
        let found: Vec<_> = (ring.all_points())
            .map(|(value, place)| (value, ring.names()[place].clone()))
            .collect();
        assert_eq!(found, points, "set {set}");
        assert_eq!(found.len(), 120 * sets[&set].len());
    }
}

#[test]
fn must_end_in_the_same_ring_whatever_the_order_of_joins_and_leaves() {
    for seed in 0..20 {
        let mut numbers = Numbers(seed);
        let candidates: Vec<Arc<str>> = (0..1 + numbers.below(40))
            .map(|number| format!("127.0.0.{}:{}", number % 3, 9900 + number).into())
            .collect();
        let mut members: Vec<Arc<str>> = Vec::new();
        let mut ring = Ring::default();
        for step in 0..80 {
            let what = format!("seed {seed}, step {step}");
            let name = &candidates[numbers.below(candidates.len())];
            let at = members.binary_search(name);
            // Points are made at the first look-up, so a ring is changed with and without them.
            if numbers.below(8) == 0 {
                assert_is(&ring, &members, &what);
            }
            if numbers.below(5) < 3 {
                assert_eq!(ring.insert(name), at.map_or_else(Ok, Err), "{what}");
                if let Err(at) = at {
                    members.insert(at, name.clone());
                }
            } else {
                assert_eq!(ring.remove(name), at.ok(), "{what}");
                if let Ok(at) = at {
                    members.remove(at);
                }
            }
            assert_eq!(ring.names(), members, "{what}");
        }
        assert_is(&ring, &members, &format!("seed {seed}, end"));
        let at_once = Ring::new(members.iter().rev().cloned());
        assert!(ring.all_points().eq(at_once.all_points()), "seed {seed}");
    }
}

#[test]
fn must_keep_a_large_ring_right_when_single_nodes_come_and_go() {
    let names: Vec<Arc<str>> = (0..1000)
        .map(|number| format!("10.0.{}.{}:9900", number / 250, number % 250).into())
        .collect();
    let whole = Ring::new(names.iter().cloned());
    let points: Vec<_> = whole.all_points().collect();
    assert_eq!(points.len(), 120_000);
    for at in [0, 1, 499, 998, 999] {
        let mut ring = whole.clone();
        let name = whole.names()[at].clone();
        assert_eq!(ring.remove(&name), Some(at));
        let others = names.iter().filter(|other| **other != name);
        let without = Ring::new(others.cloned());
        assert!(ring.all_points().eq(without.all_points()), "without {name}");
        assert_eq!(ring.insert(&name), Ok(at));
        assert!(ring.all_points().eq(points.iter().copied()), "with {name}");
    }
    for number in 0..2000_u32 {
        let hash = ring::hash(format!("key-{number}").as_bytes());
        let above = points.iter().find(|(value, _)| *value > u64::from(hash));
        assert_eq!(whole.owner(hash), above.map(|(_, place)| *place));
    }
    let everybody: Vec<_> = whole.walk(12345).collect();
    assert_eq!(everybody.len(), 1000, "a walk meets each node once");
    assert_eq!(everybody, {
        let mut seen = Vec::new();
        let start = points.iter().position(|(value, _)| *value > 12345).unwrap();
        for (_, place) in points[start..].iter().chain(&points[..start]) {
            if !seen.contains(place) {
                seen.push(*place);
            }
        }
        seen
    });
}

/// Pairs of names that share a point below 2^32, where keys are, the smaller name first. A few
/// thousand names have some: 32 points of each lie there.
fn pairs_with_a_common_point() -> Vec<(u32, [Arc<str>; 2])> {
    let names: Vec<Arc<str>> = (0..4000)
        .map(|n| format!("127.{}.{}.{}:{}", n % 7, n % 11, n % 13, 9900 + n).into())
        .collect();
    let points = definition(&names);
    let mut pairs = Vec::new();
    for two in points.windows(2) {
        let [(low, first), (high, second)] = two else {
            unreachable!("windows of two")
        };
        if low == high
            && first != second
            && let Ok(value) = u32::try_from(*low)
        {
            pairs.push((value, [first.clone(), second.clone()]));
        }
    }
    pairs
}

#[test]
fn must_give_a_common_point_to_the_smaller_name_in_any_order_of_insertion() {
    let pairs = pairs_with_a_common_point();
    assert!(!pairs.is_empty(), "no two names share a point");
    for (value, [small, great]) in pairs {
        assert!(small < great);
        let other: Arc<str> = "m:1".into();
        for order in [
            [&small, &great, &other],
            [&small, &other, &great],
            [&great, &small, &other],
            [&great, &other, &small],
            [&other, &small, &great],
            [&other, &great, &small],
        ] {
            let mut ring = Ring::default();
            for name in order {
                // With points there, so that they are merged.
                ring.owner(0);
                ring.insert(name).unwrap();
            }
            let names = [small.clone(), great.clone(), other.clone()];
            assert_is(&ring, &names, &format!("{order:?}"));
            let before = value - 1;
            assert_eq!(owner_name(&ring, before), Some(small.clone()));
            assert_eq!(
                walk_names(&ring, before)[..2],
                [small.clone(), great.clone()]
            );
            ring.remove(&small).unwrap();
            assert_eq!(owner_name(&ring, before), Some(great.clone()));
            ring.insert(&small).unwrap();
            ring.remove(&great).unwrap();
            assert_eq!(owner_name(&ring, before), Some(small.clone()));
        }
    }
}

#[test]
fn must_answer_for_an_empty_ring() {
    let mut ring = Ring::default();
    let name: Arc<str> = "a:1".into();
    for _ in 0..2 {
        assert_eq!(ring.owner(0), None);
        assert_eq!(ring.owner(u32::MAX), None);
        assert_eq!(ring.walk(7).count(), 0);
        assert_eq!(ring.all_points().count(), 0);
        assert_eq!(ring.names().len(), 0);
        assert_eq!(ring.position("a:1"), Err(0));
        assert_eq!(ring.remove("a:1"), None);
        // And when all have left.
        assert_eq!(ring.insert(&name), Ok(0));
        assert_eq!(ring.insert(&name), Err(0));
        assert_eq!(ring.owner(u32::MAX), Some(0));
        assert_eq!(ring.remove("a:1"), Some(0));
    }
}

#[test]
fn must_count_a_name_once() {
    let names = ["b:1", "a:1", "b:1"].map(Arc::from);
    let ring = Ring::new(names);
    assert_eq!(ring.names(), ["a:1", "b:1"].map(Arc::from));
    assert_eq!(ring.all_points().count(), 240);
}

#[test]
fn must_look_up_without_an_allocation() {
    let ring = Ring::new((0..1000).map(|number| format!("10.0.0.1:{number}").into()));
    ring.owner(0);
    let (owners, usage) = measure(|| {
        let mut sum = 0;
        for number in 0..1000_u32 {
            let hash = ring::hash(&number.to_be_bytes());
            sum += ring.owner(hash).unwrap() + ring.walk(hash).take(8).count();
        }
        sum
    });
    assert!(owners > 8000);
    assert_eq!(usage.allocations, 0);
    // The counter can be seen to count.
    let (walked, usage) = measure(|| ring.walk(0).count());
    assert_eq!((walked, usage.allocations), (1000, 1));
}

/// From any point, all ranges are met once, and each by the node that owns it; every key lies in one of them.
#[test]
fn must_divide_all_keys_into_ranges() {
    for names in sets().into_values() {
        let ring = Ring::new(names.iter().cloned());
        let starts: BTreeMap<u32, Vec<usize>> = ring
            .ranges()
            .map(|hash| (hash, ring.walk(hash).collect()))
            .collect();
        assert_eq!(starts.len(), ring.ranges().count(), "a range twice");
        for hash in (0..1000).map(|number: u32| number.wrapping_mul(0x9e37_79b9)) {
            // A range begins with its least hash; the one past the last point with its greatest.
            let before = starts.range(..=hash).next_back();
            let (_, walk) = before.or(starts.last_key_value()).expect("no ranges");
            assert!(
                ring.walk(hash).eq(walk.iter().copied()),
                "{names:?}: {hash}"
            );
        }
        for place in 0..names.len() {
            let mut met = BTreeMap::new();
            ring.ranges_before(place, |start, owner| {
                let Some(start) = start else { return true };
                assert_eq!(starts[&start][0], owner);
                assert_eq!(met.insert(start, owner), None, "met twice");
                true
            });
            assert_eq!(met.len(), starts.len());
        }
    }
}
