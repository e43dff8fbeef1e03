//! `list_keys` of a node: whatever is asked for, an answer keeps to its limits, and page by page all keys come.

use std::collections::BTreeSet;

use thrifty_p2p::client::{Client, Operation};
use thrifty_p2p::digest::digest;
use thrifty_p2p::diststore::{List, Listing};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{read_answer, request_of};
use thrifty_p2p::net::Network;

use crate::running::{CALL_LIMIT, Node, network, own_address, settle};

/// What an answer has at most: so many keys; and no key more, once there are so many bytes.
const KEYS_MAX: usize = 2000;
const BYTES_MAX: usize = 256 << 10;

const RANGES: u32 = 1024;

/// Longer than all other keys.
const LONG_KEY: usize = 30_000;

/// So many different keys of one range, each with so many bytes behind a number.
fn keys(range: u32, count: usize, filling: usize) -> Vec<Vec<u8>> {
    let filling = "k".repeat(filling);
    let keys = (0_u64..).map(|number| format!("{number}{filling}").into_bytes());
    let keys = keys.filter(|key| digest(key) % u64::from(RANGES) == u64::from(range));
    keys.take(count).collect()
}

/// The pages of a range, if so many keys are asked for at a time.
fn pages(network: &dyn Network, at: &Location, range: u32, most: u32) -> Vec<Vec<Vec<u8>>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let list = List {
            range,
            after: after.as_deref(),
            prefix: b"",
            most,
        };
        let answer = network.call(at, &request_of("list_keys", &list), CALL_LIMIT);
        let answer = answer.expect("a page");
        // The keys, and some bytes with each.
        assert!(answer.len() < BYTES_MAX + LONG_KEY + 100 * KEYS_MAX);
        let listing: Listing<'_> = read_answer(&answer, "list_keys").unwrap();
        let page: Vec<_> = listing.keys.iter().map(|key| key.key.to_vec()).collect();
        assert!(page.is_sorted_by(|one, other| one < other));
        if page.is_empty() {
            assert_eq!(listing.reached, None);
            return pages;
        }
        let last = page.last().cloned();
        pages.push(page);
        if listing.reached.is_none() {
            return pages;
        }
        assert_eq!(listing.reached, last.as_deref());
        after = last;
    }
}

#[test]
fn must_list_no_more_than_a_page_whatever_is_asked_for() {
    let node = Node::store(&own_address(), &["--replicas", "1", "--new"]);
    settle(&[&node]);
    let at = &node.location;
    let client = Client::connect(std::slice::from_ref(at)).unwrap();
    let network = network();
    // Many short ones in one range, few long ones in another.
    let (short, long) = (keys(7, 2 * KEYS_MAX + 1, 0), keys(8, 30, LONG_KEY));
    let puts = short.iter().chain(&long);
    let puts: Vec<_> = puts.map(|key| Operation::Put(key, b"v")).collect();
    client.insist(&puts, &mut |_, _| ()).unwrap();
    for most in [u32::MAX, i32::MAX.cast_unsigned(), KEYS_MAX as u32 + 1] {
        for (range, wanted, least) in [(7, &short, 3), (8, &long, 4)] {
            let pages = pages(&network, at, range, most);
            assert_eq!(pages.len(), least, "{range} {most}");
            for page in &pages {
                let bytes: usize = page.iter().map(Vec::len).sum();
                assert!(page.len() <= KEYS_MAX && bytes < BYTES_MAX + LONG_KEY + 20);
            }
            let found: Vec<_> = pages.into_iter().flatten().collect();
            assert_eq!(found.len(), wanted.len(), "nothing twice");
            let wanted: BTreeSet<_> = wanted.iter().cloned().collect();
            assert!(found.into_iter().collect::<BTreeSet<_>>() == wanted);
        }
    }
    assert_eq!(pages(&network, at, 8, 1).len(), long.len());
    for (range, most) in [(7, 0), (RANGES, 5), (u32::MAX, u32::MAX)] {
        assert!(pages(&network, at, range, most).is_empty(), "{range}");
    }
}
