//! An exchange with a node that would have it go on for ever, or take much.

use std::sync::{Arc, Mutex};

use super::super::calls::{Exchanged, Item};
use super::super::*;
use crate::locator::{Options, read_answer};
use crate::membership::Entry;
use crate::net::{Answer, Environment, Network, Random, Request, SystemClock};

fn item(key: &[u8]) -> Item<'_> {
    Item {
        key,
        version: 1,
        value: Some(b"v"),
        digest: None,
        list: None,
    }
}

fn answer(keys: &[&[u8]], wanted: &[u32], reached: Option<&[u8]>) -> Vec<u8> {
    let exchanged = Exchanged {
        items: keys.iter().map(|key| item(key)).collect(),
        wanted: wanted.to_vec(),
        reached,
        differs: None,
    };
    let mut result = Vec::new();
    write_answer(&exchanged, &mut result);
    result
}

#[test]
fn must_read_only_what_an_exchange_can_bring() {
    let reads = |result: Vec<u8>| read_answer::<Exchanged<'_>>(&result, "exchange").is_ok();
    assert!(reads(answer(&[], &[], None)));
    assert!(reads(answer(&[b"a", b"b"], &[0, 1, 7], None)));
    assert!(reads(answer(&[b"a", b"b"], &[], Some(b"b"))));
    assert!(reads(answer(&[b"a"], &[], Some(b"b"))));
    // An item is asked for once.
    assert!(!reads(answer(&[], &[1, 1], None)));
    assert!(!reads(answer(&[], &[1, 0], None)));
    // Each key comes once, in their order.
    assert!(!reads(answer(&[b"a", b"a"], &[], None)));
    assert!(!reads(answer(&[b"b", b"a"], &[], None)));
    // What goes on has brought something.
    assert!(!reads(answer(&[], &[], Some(b"b"))));
    assert!(!reads(answer(&[b"c"], &[], Some(b"b"))));
}

/// Answers each call with the same.
struct Same {
    result: Vec<u8>,
    calls: Mutex<usize>,
}

impl Network for Same {
    fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
        let mut count = self.calls.lock().unwrap();
        *count += calls.len();
        assert!(*count < 1000, "it goes on and on");
        calls.iter().map(|_| Ok(self.result.clone())).collect()
    }

    fn forget(&self, _: &Location) {}
}

#[test]
fn must_end_an_exchange_that_gets_no_further() {
    for result in [
        answer(&[], &[], Some(b"k")),
        answer(&[], &[], Some(b"")),
        answer(&[b"k"], &[], Some(b"k")),
        answer(&[b"k", b"l"], &[], Some(b"m")),
    ] {
        let network = Arc::new(Same {
            result,
            calls: Mutex::default(),
        });
        let options = Options {
            service_types: SERVICE_TYPES,
            replicas: 2,
            tick: Duration::from_millis(500),
            die_from_anywhere: false,
            on_die: Box::new(|| ()),
        };
        let environment = Environment {
            network: network.clone(),
            clock: Arc::new(SystemClock::new()),
            random: Random::new(1),
            secret: 1,
            log: Box::new(|_, _| ()),
        };
        let location = |port| Location::new("127.0.0.1", port).unwrap();
        let store = Store::new(
            Locator::new(location(9900), options, environment),
            usize::MAX,
        );
        let other = Member {
            location: location(9901),
            state: State::Full,
            incarnation: 8,
        };
        let shared = store.locator.with(|membership, _| {
            membership.start(&[location(9901)], false);
            let me = membership.candidate();
            let entry = Entry::Admitted {
                members: vec![other.clone(), me.clone()],
                lost: Vec::new(),
                missing: Vec::new(),
                expired: Vec::new(),
                floor: 0,
            };
            membership.entered(&other.location, me.incarnation, entry);
            membership.shared_with_life(&other).unwrap().digest
        });
        assert!(!store.exchange_shards(&other, shared, &[5]));
    }
}
