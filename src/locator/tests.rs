//! A node alone, with a network in which every call fails.

use super::calls::Hello;
use super::membership::Pulled;
use super::*;
use crate::net::clock::Settable;
use crate::net::{Answer, CallError, Clock, Network, Random, Request, SystemClock};
use crate::service::Service;

/// A network in which every call fails in the same way.
struct Failing(CallError);

impl Network for Failing {
    fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
        calls.iter().map(|_| Err(self.0.clone())).collect()
    }

    fn forget(&self, _: &Location) {}
}

fn member(name: &str, state: State, stamp: i64) -> Member {
    let location = name.parse().unwrap();
    Member {
        location,
        state,
        stamp,
    }
}

/// What a node said on its log, and `die` once it was told to.
type Log = Arc<Mutex<Vec<String>>>;

/// A node `a:1` that knows `b:1`, whose stamp is 10.
fn node(failure: CallError) -> LocatorService {
    logging_node(failure, false).0
}

fn logging_node(failure: CallError, die_from_anywhere: bool) -> (LocatorService, Log) {
    node_by(Arc::new(SystemClock::new()), failure, die_from_anywhere)
}

fn node_by(
    clock: Arc<dyn Clock>,
    failure: CallError,
    die_from_anywhere: bool,
) -> (LocatorService, Log) {
    let log = Log::default();
    let (said, told) = (log.clone(), log.clone());
    let options = Options {
        service_types: SERVICE_TYPES,
        replicas: 1,
        tick: Duration::from_millis(500),
        die_from_anywhere,
        on_die: Box::new(move || told.lock().unwrap().push("die".to_owned())),
    };
    let environment = Environment {
        network: Arc::new(Failing(failure)),
        clock,
        random: Random::new(1),
        log: Box::new(move |line| said.lock().unwrap().push(line.to_owned())),
    };
    let locator = Locator::new("a:1".parse().unwrap(), options, environment);
    locator.admit(member("b:1", State::Full, 10));
    (LocatorService::new(locator), log)
}

fn names(node: &LocatorService) -> Vec<String> {
    let view = node.locator().view();
    let members = view.members().iter();
    members.map(|member| member.location.to_string()).collect()
}

fn say_goodbye(node: &LocatorService, me: Member) {
    let hello = HelloArguments {
        me,
        digest: 0,
        counted: true,
    };
    node.locator().on_hello(&hello, &mut Vec::new());
}

fn call(node: &LocatorService, method: &[u8], local: bool) -> Result<(), Exception> {
    let call = Call {
        method,
        arguments: EMPTY,
        local,
        done: &|| (),
    };
    Service::call(node, &call, &mut Vec::new())
}

#[test]
fn must_know_from_tick_to_tick_what_the_wall_says() {
    let clock = Arc::new(Settable::default());
    let (node, _) = node_by(clock.clone(), CallError::Silent, false);
    let locator = node.locator();
    let differs_by = |microseconds: i64| {
        let (before, found) = (clock.wall(), locator.wall_at(clock.now()));
        // Two looks, at the making and here, of which each may be held up between the clocks.
        (found - before + microseconds).abs() < 1_000_000
    };
    assert!(differs_by(0));
    for set in [3_600_000_000, -86_400_000_000] {
        let before = clock.ahead.swap(set, Ordering::Relaxed);
        assert!(differs_by(set - before));
        locator.tick();
        assert!(differs_by(0));
    }
}

#[test]
fn must_die_for_its_own_machine_only_unless_told_otherwise() {
    for (local, from_anywhere) in [(true, false), (true, true), (false, true), (false, false)] {
        let (node, log) = logging_node(CallError::Refused, from_anywhere);
        let obeyed = call(&node, b"die", local).is_ok();
        assert_eq!(obeyed, local || from_anywhere);
        assert_eq!(log.lock().unwrap().contains(&"die".to_owned()), obeyed);
    }
}

#[test]
fn regression_must_say_one_line_whatever_is_in_it() {
    let (node, log) = logging_node(CallError::Refused, false);
    log.lock().unwrap().clear();
    node.locator().say("received é\nremoved b:1\x1b[2J");
    assert_eq!(*log.lock().unwrap(), ["received é\\nremoved b:1\\u{1b}[2J"]);
}

#[test]
fn must_print_its_state_on_its_own_log() {
    let (node, log) = logging_node(CallError::Refused, false);
    log.lock().unwrap().clear();
    call(&node, b"debug", false).unwrap();
    let log = log.lock().unwrap().join("\n");
    for part in ["Status", "\na:1 Filling", "\nb:1 Full"] {
        assert!(log.contains(part), "{log}");
    }
}

#[test]
fn regression_must_not_believe_the_late_goodbye_of_an_earlier_run() {
    let node = node(CallError::Refused);
    say_goodbye(&node, member("b:1", State::Gone, 9));
    assert_eq!(names(&node), ["a:1", "b:1"]);
    say_goodbye(&node, member("b:1", State::Gone, 11));
    assert_eq!(names(&node), ["a:1"]);
}

#[test]
fn regression_must_not_take_itself_out_for_what_others_say() {
    let node = node(CallError::Refused);
    say_goodbye(&node, member("a:1", State::Gone, i64::MAX));
    assert_eq!(names(&node), ["a:1", "b:1"]);
}

#[test]
fn regression_must_not_take_a_suspect_out_for_trouble_of_its_own() {
    let suspects = ["b:1".parse().unwrap()];
    let local = node(CallError::Local("no descriptors".into()));
    local.locator().on_suspect(&suspects);
    assert_eq!(names(&local), ["a:1", "b:1"]);
    let refused = node(CallError::Refused);
    refused.locator().on_suspect(&suspects);
    assert_eq!(names(&refused), ["a:1"]);
}

#[test]
fn regression_must_take_in_a_new_run_whose_clock_is_behind() {
    let node = node(CallError::Refused);
    let pull = PullArguments {
        me: member("b:1", State::Filling, 5),
        replicas: 1,
        service: node.locator().service_type().as_bytes(),
        digest: 0,
        cursor: &[],
        looking: false,
    };
    let mut page = Vec::new();
    node.locator().on_pull(pull, &mut page, &node).unwrap();
    let newcomer = member("b:1", State::Filling, 11);
    let page = Page::read(&page).unwrap();
    assert!(page.members.contains(&newcomer), "{:?}", page.members);
}

#[test]
fn regression_must_not_take_a_new_run_out_for_the_refusal_of_the_one_before() {
    let node = node(CallError::Refused);
    let b = "b:1".parse().unwrap();
    let asked = node.locator().view();
    node.locator().admit(member("b:1", State::Filling, 20));
    node.locator().refused(&b, &asked);
    assert_eq!(names(&node), ["a:1", "b:1"]);
    node.locator().refused(&b, &node.locator().view());
    assert_eq!(names(&node), ["a:1"]);
}

#[test]
fn must_fill_again_when_another_has_dropped_it() {
    let node = node(CallError::Silent);
    let locator = node.locator();
    locator.set_state(State::Full);
    let hello = |known| calls::Hello {
        me: member("b:1", State::Full, 10),
        digest: locator.view().digest(),
        known,
        members: None,
    };
    let b = "b:1".parse().unwrap();
    locator.on_answer(&b, hello(calls::Known::Member));
    assert_eq!(locator.me().state, State::Full);
    locator.on_answer(&b, hello(calls::Known::Lost));
    assert_eq!(locator.me().state, State::Filling);
}

#[test]
fn regression_must_take_another_name_at_a_members_place_for_its_end() {
    let node = node(CallError::Refused);
    let answer = |name| Hello {
        me: member(name, State::Full, 12),
        digest: 0,
        known: Known::Member,
        members: None,
    };
    let asked = "b:1".parse().unwrap();
    assert!(node.locator().is_stranger(&asked, &answer("c:1")));
    assert!(!node.locator().is_stranger(&asked, &answer("b:1")));
}

#[test]
fn regression_must_not_take_a_new_run_that_others_have_found_first_for_a_stranger() {
    let node = node(CallError::Refused);
    let answer = |state| Hello {
        me: member("b:1", state, 12),
        digest: 0,
        known: Known::No,
        members: Some(vec![
            member("b:1", state, 12),
            member("c:1", State::Filling, 5),
        ]),
    };
    let asked = "b:1".parse().unwrap();
    assert!(!node.locator().is_stranger(&asked, &answer(State::Filling)));
    assert!(node.locator().is_stranger(&asked, &answer(State::Full)));
}

/// Has `b:1` answer a pull by `asked` with so many items, and these cursors.
fn take_page(
    node: &LocatorService,
    asked: &[u8],
    items: usize,
    cursors: &[&[u8]],
) -> Result<(), CallError> {
    let item = Item {
        key: b"k",
        version: 1,
        value: Some(b"v"),
        digest: None,
    };
    let page = Page {
        me: member("b:1", State::Full, 10),
        members: Vec::new(),
        items: vec![item; items],
        cursors: cursors.to_vec(),
        joined: true,
    };
    node.locator().take_page(&page, asked, node)
}

#[test]
fn must_have_pulled_all_when_every_part_has_come() {
    let node = node(CallError::Refused);
    let b = "b:1".parse().unwrap();
    let pulled = || node.locator().membership().pulled.get(&b).cloned();
    let but = |cursors: &[&[u8]]| {
        let cursors = cursors.iter().map(|cursor| cursor.to_vec());
        Some(Pulled::But(cursors.collect()))
    };
    take_page(&node, b"", 1, &[b"1", b"2"]).unwrap();
    assert_eq!(pulled(), but(&[b"1", b"2"]));
    take_page(&node, b"1", 1, &[b"3"]).unwrap();
    assert_eq!(pulled(), but(&[b"2", b"3"]));
    take_page(&node, b"2", 0, &[]).unwrap();
    take_page(&node, b"2", 0, &[]).unwrap();
    assert_eq!(pulled(), but(&[b"3"]));
    take_page(&node, b"3", 0, &[]).unwrap();
    assert_eq!(pulled(), Some(Pulled::All));
}

#[test]
fn regression_must_not_count_a_part_of_what_is_pulled_anew() {
    let node = node(CallError::Refused);
    take_page(&node, b"", 1, &[b"1"]).unwrap();
    node.locator().membership().refill(11);
    take_page(&node, b"1", 0, &[]).unwrap();
    assert!(node.locator().membership().pulled.is_empty());
}

#[test]
fn must_not_follow_pages_that_lead_nowhere() {
    let node = node(CallError::Refused);
    for (items, cursors) in [(0, 1), (1, 17)] {
        let page = take_page(&node, b"", items, &vec![&b"1"[..]; cursors]);
        assert!(matches!(page, Err(CallError::Broken(_))));
        assert!(node.locator().membership().pulled.is_empty());
    }
}
