//! A few nodes, of which each reaches those that it is told to.

use super::*;
use crate::locator::{Options, write_key};
use crate::net::clock::Settable;
use crate::net::{Answer, CallError, Clock, Environment, Network, Random, Request, SystemClock};

/// Carries calls to these nodes; others are silent.
#[derive(Default)]
struct Direct {
    stores: Mutex<Vec<Arc<Store>>>,
    /// Happens while the answers to the next calls are on their way.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Direct {
    /// From now on to these.
    fn lead_to(&self, stores: &[&Arc<Store>]) {
        *self.stores.lock().unwrap() = stores.iter().copied().cloned().collect();
    }
}

impl Network for Direct {
    fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
        let stores = self.stores.lock().unwrap().clone();
        let answer = |(to, request): &(Location, Request)| {
            let store = stores.iter().find(|store| store.locator.location() == to);
            let store = store.ok_or(CallError::Silent)?;
            call(store, request.method, &request.arguments).map_err(CallError::Exception)
        };
        let answers = calls.iter().map(answer).collect();
        let meanwhile = self.meanwhile.lock().unwrap().take();
        meanwhile.into_iter().for_each(|happens| happens());
        answers
    }

    fn forget(&self, _: &Location) {}
}

fn call(store: &Store, method: &str, arguments: &[u8]) -> Result<Vec<u8>, Exception> {
    let mut result = Vec::new();
    let call = Call {
        method: method.as_bytes(),
        arguments,
        local: true,
        done: &|| (),
    };
    Service::call(store, &call, &mut result)?;
    Ok(result)
}

fn store(name: &str, replicas: usize, network: Arc<Direct>) -> Arc<Store> {
    timed_store(name, replicas, network, Arc::new(SystemClock::new()))
}

fn timed_store(
    name: &str,
    replicas: usize,
    network: Arc<Direct>,
    clock: Arc<dyn Clock>,
) -> Arc<Store> {
    let options = Options {
        service_types: SERVICE_TYPES,
        replicas,
        tick: Duration::from_millis(5),
        die_from_anywhere: false,
        on_die: Box::new(|| ()),
    };
    let environment = Environment {
        network,
        clock,
        random: Random::new(1),
        log: Box::new(|_| ()),
    };
    let locator = Locator::new(name.parse().unwrap(), options, environment);
    Arc::new(Store::new(locator))
}

/// `a:1`, a network of its own.
fn first(replicas: usize) -> Arc<Store> {
    let store = store("a:1", replicas, Arc::default());
    store.locator.start(None, &*store).unwrap();
    store
}

/// `b:1`, which joins it.
fn second(first: &Arc<Store>) -> Arc<Store> {
    joined("b:1", first, Arc::default())
}

/// A node that joins that one by this network.
fn joined(name: &str, first: &Arc<Store>, network: Arc<Direct>) -> Arc<Store> {
    network.lead_to(&[first]);
    let store = store(name, first.locator.replicas(), network);
    let peer = first.locator.location();
    store.locator.start(Some(peer), &*store).unwrap();
    store
}

/// A key that `owner` owns, as that one sees it.
fn key_of(owner: &Store, seen_by: &Store) -> Vec<u8> {
    let view = seen_by.locator.view();
    let mut keys = (0..100).map(|number| format!("k{number}").into_bytes());
    let owner = owner.locator.location();
    let key = keys.find(|key| view.owner(key).unwrap().location == *owner);
    key.expect("it owns none")
}

#[test]
fn must_look_at_the_ring_again_before_it_acknowledges_alone() {
    let a = first(1);
    let now = a.now();
    let epoch = a.locator.epoch_if_only_holder(b"k", now).unwrap();
    let put = |value| a.put_from(now, Some(epoch), b"k", value, &|| ());
    assert_eq!(put(b"v"), Ok(()));
    // It has pulled by now, and not got what comes next.
    let _b = second(&a);
    assert!(put(b"w").is_err(), "b:1 is silent");
}

/// It was the primary when it looked, and had handed the key over when it read.
#[test]
fn regression_must_not_take_a_key_for_missing_that_it_has_handed_over() {
    let network = Arc::new(Direct::default());
    let a = store("a:1", 1, network.clone());
    a.locator.start(None, &*a).unwrap();
    let keys: Vec<_> = (0..100).map(|n| format!("k{n}").into_bytes()).collect();
    for key in &keys {
        call(&a, "put", &KeyValue::write(key, Some(b"v"))).unwrap();
    }
    let epoch = a.locator.epoch_if_primary(&keys[0]);
    let own = |key: &[u8]| a.own(epoch, key, |record| record.value().to_vec());
    assert_eq!(own(b"none"), Some(None));
    let b = second(&a);
    b.work();
    network.lead_to(&[&b]);
    a.work();
    let key = key_of(&b, &a);
    assert_eq!(a.items.version(&key), 0, "a:1 still has it");
    assert_eq!(own(&key), None);
}

/// The put went on by way of the new primary, whose clock was behind: the older value, which had got
/// a later version before, came back over the next one.
#[test]
fn regression_must_put_above_what_it_has_put_alone() {
    let network = Arc::new(Direct::default());
    let clock = Arc::new(Settable::default());
    clock.ahead.store(10_000_000, Ordering::Relaxed);
    let a = timed_store("a:1", 1, network.clone(), clock);
    a.locator.start(None, &*a).unwrap();
    let now = a.now();
    let epoch = a.locator.epoch_if_only_holder(b"k", now);
    let b = second(&a);
    b.work();
    network.lead_to(&[&b]);
    a.work();
    a.work();
    assert!(!a.pass_is_due());
    let key = key_of(&b, &a);
    a.put_from(now, epoch, &key, b"v", &|| ()).unwrap();
    call(&b, "put", &KeyValue::write(&key, Some(b"w"))).unwrap();
    a.work();
    let value = b.items.read(&key, |record| record.value().to_vec());
    assert_eq!(value, Some(b"w".to_vec()));
    assert_eq!(a.items.version(&key), 0, "it lies where it doesn't belong");
}

#[test]
fn regression_must_not_answer_from_what_is_left_when_all_have_gone() {
    let a = first(1);
    call(&a, "put", &KeyValue::write(b"k", Some(b"v"))).unwrap();
    assert!(call(&a, "get", &write_key(b"k")).is_ok());
    assert_eq!(a.leave(), Ok(1));
    assert!(call(&a, "get", &write_key(b"k")).is_err());
}

#[test]
fn regression_must_not_answer_fetch_for_a_key_that_others_hold() {
    let a = first(1);
    let b = second(&a);
    b.work();
    let view = a.locator.view();
    let keys = (0..100).map(|number| format!("k{number}").into_bytes());
    let is_its = |key: &Vec<u8>| view.owner(key).unwrap().location == *b.locator.location();
    let (its, own): (Vec<_>, Vec<_>) = keys.partition(is_its);
    assert!(!its.is_empty() && !own.is_empty());
    assert!(
        its.iter()
            .all(|key| call(&a, "fetch", &write_key(key)).is_err())
    );
    assert!(
        own.iter()
            .all(|key| call(&a, "fetch", &write_key(key)).is_ok())
    );
}

#[test]
fn regression_must_ask_those_that_the_holders_name() {
    let network = Arc::new(Direct::default());
    let leaver = joined("c:1", &first(1), network.clone());
    leaver.work();
    assert!(leaver.locator.begin_leaving());
    // Another run of the only node that it knows: neither this one nor the newcomer knows the leaver.
    let a = first(1);
    let b = second(&a);
    let key = key_of(&b, &a);
    leaver.items.merge(&key, 7, b"old");
    b.items.merge(&key, 8, b"new");
    // With that the other one is a holder too, and has nothing.
    b.work();
    assert!(b.locator.begin_leaving());
    network.lead_to(&[&a, &b]);
    let read = call(&leaver, "forward", &KeyValue::write(&key, None)).unwrap();
    assert_eq!(calls::read_answer(&read).unwrap(), b"new");
}

#[test]
fn regression_must_find_what_comes_in_while_it_asks() {
    let a = first(1);
    let network = Arc::new(Direct::default());
    let newcomer = joined("c:1", &a, network.clone());
    let there = newcomer.clone();
    // As if the one that is asked had handed it over before.
    let comes = move || {
        there.items.merge(b"k", 7, b"v");
    };
    *network.meanwhile.lock().unwrap() = Some(Box::new(comes));
    let read = call(&newcomer, "forward", &KeyValue::write(b"k", None)).unwrap();
    assert_eq!(calls::read_answer(&read).unwrap(), b"v");
}

#[test]
fn regression_must_ask_again_when_the_ring_has_changed_while_it_asked() {
    let a = first(1);
    let network = Arc::new(Direct::default());
    let newcomer = joined("c:1", &a, network.clone());
    let key = key_of(&newcomer, &a);
    let (there, by, leads) = (a.clone(), newcomer.clone(), network.clone());
    // As if it had been handed over and back again.
    let handed = key.clone();
    let comes_and_goes = move || {
        let d = joined("d:1", &by, Arc::default());
        there.items.merge(&handed, 7, b"v");
        leads.lead_to(&[&there, &d]);
    };
    *network.meanwhile.lock().unwrap() = Some(Box::new(comes_and_goes));
    let read = call(&newcomer, "forward", &KeyValue::write(&key, None)).unwrap();
    assert_eq!(calls::read_answer(&read).unwrap(), b"v");
}

#[test]
fn must_not_repeat_a_put_that_nothing_has_overtaken() {
    let a = first(1);
    let network = Arc::new(Direct::default());
    let forwarder = joined("c:1", &a, network.clone());
    forwarder.work();
    a.work();
    let by = forwarder.clone();
    let changes = move || drop(joined("d:1", &by, Arc::default()));
    *network.meanwhile.lock().unwrap() = Some(Box::new(changes));
    let key = key_of(&a, &a);
    call(&forwarder, "put", &KeyValue::write(&key, Some(b"v"))).unwrap();
    assert_eq!(a.items.version(&key), a.version.load(Ordering::Relaxed));
    assert_eq!(a.changes.load(Ordering::Relaxed), 1);
}

#[test]
fn regression_must_not_take_another_value_of_that_version_for_the_put() {
    let a = first(1);
    let store = |value: &[u8]| {
        let item = Item {
            key: b"k",
            version: 7,
            value: Some(value),
            digest: None,
        };
        let stored = call(&a, "store", &calls::write_item(&item)).unwrap();
        Stored::read(&stored).unwrap().version
    };
    assert_eq!(store(b"x"), 7);
    assert_eq!(store(b"x"), 7);
    assert_eq!(store(b""), 8);
    assert_eq!(store(b"y"), 7);
}

#[test]
fn regression_must_repair_two_values_of_one_version() {
    let a = first(2);
    let b = second(&a);
    b.work();
    a.items.merge(b"k", 7, b"x");
    b.items.merge(b"k", 7, b"y");
    assert!(b.repair(&b.locator.view()));
    let value = a.items.read(b"k", |record| record.value().to_vec());
    assert_eq!(value.as_deref(), Some(&b"y"[..]));
}

#[test]
fn must_not_forget_what_nobody_says_to_have() {
    let a = first(1);
    for number in 0..100 {
        call(&a, "put", &KeyValue::write(&[number], Some(b"v"))).unwrap();
    }
    let b = second(&a);
    b.work();
    b.work();
    assert!(b.items.count() > 0);
    // Its offers aren't answered.
    a.work();
    assert_eq!(a.items.count(), 100);
    assert_eq!(a.moves().unconfirmed, b.items.count());
}

/// Two leave, and a newcomer has come to one of them.
#[test]
fn must_find_who_stays_before_it_drops_anything() {
    let networks = [(); 3].map(|()| Arc::new(Direct::default()));
    let a = store("a:1", 1, networks[0].clone());
    a.locator.start(None, &*a).unwrap();
    let b = joined("b:1", &a, networks[1].clone());
    networks[0].lead_to(&[&b]);
    b.work();
    for number in 0..100 {
        call(&a, "put", &KeyValue::write(&[number], Some(b"v"))).unwrap();
    }
    assert!(a.items.count() > 0);
    assert!(b.locator.begin_leaving());
    let newcomer = joined("c:1", &b, networks[2].clone());
    networks[0].lead_to(&[&b, &newcomer]);
    networks[2].lead_to(&[&a, &b]);
    assert_eq!(a.locator.view().members().len(), 2, "unknown so far");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // Before, it would find the leaver by itself.
                if a.locator.view().get(newcomer.locator.location()).is_some() {
                    newcomer.work();
                }
                newcomer.pause(Duration::from_millis(1));
            }
        });
        let left = a.leave();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(left, Ok(0));
    });
    a.each_item(|key, version, _| assert_eq!(newcomer.items.version(key), version));
}
