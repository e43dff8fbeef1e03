//! What a node does whose calls all fail, without a socket.

use std::sync::{Arc, Mutex};

use super::super::{Options, SERVICE_TYPES, SILENT_MAX};
use super::*;
use crate::membership::{Action, Entry, Member, State};
use crate::net::{Clock, Environment, Random};

const TICK: Duration = Duration::from_millis(500);

/// Far more than any of the bounds.
const MANY: u16 = 3000;

fn location(number: u16) -> Location {
    Location::new("127.0.0.1", 9900 + number).unwrap()
}

/// All calls fail for that reason.
struct Failing(CallError);

impl Network for Failing {
    fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
        calls.iter().map(|_| Err(self.0.clone())).collect()
    }

    fn forget(&self, _: &Location) {}
}

/// Stands still but for [`Hand::turn`].
#[derive(Default)]
struct Hand(Mutex<Duration>);

impl Hand {
    fn turn(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for Hand {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn wall(&self) -> i64 {
        i64::try_from(self.now().as_micros()).unwrap()
    }

    fn pause(&self, time: Duration) {
        self.turn(time);
    }
}

fn node(why: CallError) -> (Locator, Arc<Hand>) {
    let clock = Arc::new(Hand::default());
    (node_over(Arc::new(Failing(why)), clock.clone()), clock)
}

/// The node at the first location.
pub(in crate::locator) fn node_over(network: Arc<dyn Network>, clock: Arc<dyn Clock>) -> Locator {
    let options = Options {
        service_types: SERVICE_TYPES,
        replicas: 2,
        tick: TICK,
        die_from_anywhere: false,
        on_die: Box::new(|| ()),
    };
    let environment = Environment {
        network,
        clock,
        random: Random::new(1),
        secret: 1,
        log: Box::new(|_, _| ()),
    };
    Locator::new(location(0), options, environment)
}

fn unknown_name() -> CallError {
    CallError::Local("host: name not known".to_owned())
}

/// Looks after the others until that one is no member; how long that took.
fn time_until_dropped(node: &Locator, clock: &Hand, member: &Location) -> Duration {
    let began = clock.now();
    assert!(node.view().get(member).is_some());
    for _ in 0..1000 {
        clock.turn(TICK);
        node.tick();
        node.ask(false);
        node.ask(true);
        node.look_after_originals();
        if node.view().get(member).is_none() {
            return clock.now() - began;
        }
    }
    panic!("it is never dropped");
}

#[test]
fn must_drop_an_original_whose_name_is_not_found_any_more() {
    for why in [unknown_name(), CallError::Broken("end".to_owned())] {
        let (node, clock) = node(why);
        node.with(|membership, _| {
            membership.start(&[], true);
            membership.add_original(location(1));
        });
        let took = time_until_dropped(&node, &clock, &location(1));
        // Only now and then it is looked whether it answers.
        assert!(took > DEAF && took < 4 * DEAF, "{took:?}");
    }
}

#[test]
fn must_drop_one_of_ours_whose_name_is_not_found_any_more() {
    let (node, clock) = node(unknown_name());
    let full = Member {
        location: location(1),
        state: State::Full,
        incarnation: 2,
    };
    node.with(|membership, _| {
        membership.start(std::slice::from_ref(&full.location), false);
        let me = membership.candidate();
        let entry = Entry::Admitted {
            members: vec![full.clone(), me.clone()],
            lost: Vec::new(),
            missing: Vec::new(),
            expired: Vec::new(),
            floor: 0,
        };
        membership.entered(&full.location, me.incarnation, entry);
    });
    let took = time_until_dropped(&node, &clock, &full.location);
    assert!(took >= 8 * TICK && took <= 12 * TICK, "{took:?}");
}

#[test]
fn must_not_wait_for_what_runs_another_service() {
    let (node, _) = node(CallError::Silent);
    node.with(|membership, _| membership.start(&[], true));
    let says = |kind: &str| {
        node.on_add(&location(1), BTreeSet::new());
        let types = [kind, EXTENSION].map(str::to_owned);
        node.hear_kind(&location(1), Ok(types.to_vec()));
        node.with(|membership, _| membership.lost().count())
    };
    assert_eq!(says("another.Service"), 0);
    assert_eq!(says(node.service_type()), 1);
}

impl Locator {
    /// Whatever others have said.
    pub(crate) fn must_be_bounded(&self) {
        self.with(|membership, _| membership.must_be_bounded());
        let inner = self.lock();
        let Originals {
            named,
            silent_since,
            leaving,
            removed,
            ..
        } = &inner.originals;
        let lengths = [
            named.len(),
            silent_since.len(),
            leaving.len(),
            removed.len(),
        ];
        assert!(
            lengths.iter().all(|length| *length <= NAMED_MAX),
            "{lengths:?}"
        );
        assert!(inner.silent.len() <= SILENT_MAX);
    }
}

#[test]
fn must_bound_what_it_remembers_of_originals() {
    let (node, _) = node(CallError::Silent);
    node.with(|membership, _| membership.start(&[], true));
    for number in 1..MANY {
        let other = location(number);
        node.lock().originals.tell_removed(&other);
        node.note_original(&other, Duration::ZERO, &Err::<(), _>(CallError::Silent));
        node.put_questions(vec![Action::Ask(other.clone())]);
        node.on_add(&location(MANY + number), BTreeSet::new());
        node.with(|membership, _| membership.add_original(other.clone()));
        node.on_remove(&other, &[]);
    }
    let inner = node.lock();
    let Originals {
        named,
        silent_since,
        leaving,
        removed,
        ..
    } = &inner.originals;
    assert_eq!(named.len(), NAMED_MAX);
    // What is no member any more is forgotten.
    assert!(silent_since.len() <= NAMED_MAX);
    assert_eq!(leaving.len(), NAMED_MAX);
    assert_eq!(removed.len(), NAMED_MAX);
    assert_eq!(inner.silent.len(), SILENT_MAX);
}
