//! What a program that is no node can do at a node's port: name others that are none.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use thrifty_p2p::digest::mix;
use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{News, VERSION, read_answer, request};
use thrifty_p2p::membership::{Caller, Member, Question, Reply, Standing, State};
use thrifty_p2p::net::{Network, TcpNetwork};
use thrifty_p2p::ring::Ring;
use thrifty_p2p::thrift::Encode;
use thrifty_p2p::thrift_struct;

use crate::memory::highest;
use crate::running::{
    CALL_LIMIT, LONG, Node, get, members, network, own_address, owner, put, settle, wait_until,
};

/// Puts and gets ten keys, none of which waits for any but the two nodes.
fn must_serve(network: &TcpNetwork, node: &Node) {
    for number in 0..10 {
        let key = format!("key {number}");
        let began = Instant::now();
        put(network, &node.location, key.as_bytes(), b"value").unwrap();
        let value = get(network, &node.location, key.as_bytes()).unwrap();
        assert_eq!(value, b"value");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{key}: {took:?}");
    }
}

/// Says `add` and `join` of it, as anybody may.
pub fn name(network: &TcpNetwork, node: &Node, stranger: &Location) {
    for method in ["add", "join"] {
        let news = request(method, News::write(stranger, std::iter::empty()));
        network.call(&node.location, &news, CALL_LIMIT).unwrap();
    }
}

fn threads(node: &Node) -> usize {
    let tasks = format!("/proc/{}/task", node.process.id());
    fs::read_dir(tasks).unwrap().count()
}

fn two_nodes() -> (TcpNetwork, [Node; 2]) {
    let address = own_address();
    let nodes = [0, 1].map(|_| Node::store(&address, &[]));
    settle(&[&nodes[0], &nodes[1]]);
    (network(), nodes)
}

fn must_be_alone(network: &TcpNetwork, nodes: &[Node; 2]) {
    for node in nodes {
        must_serve(network, node);
        assert_eq!(members(network, &node.location).unwrap().len(), 2);
    }
}

#[test]
fn must_not_take_in_what_never_answers() {
    let (network, mut nodes) = two_nodes();
    let silent = TcpListener::bind((own_address(), 0)).unwrap();
    let silent_at: Location = silent.local_addr().unwrap().to_string().parse().unwrap();
    name(&network, &nodes[0], &silent_at);
    // It has been asked what it is.
    let asked = silent.accept().unwrap();
    must_be_alone(&network, &nodes);
    let began = Instant::now();
    nodes[0].process.signal("TERM");
    assert!(nodes[0].process.wait(LONG).success());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(asked);
}

#[test]
fn must_not_take_in_what_nobody_can_find() {
    let (network, nodes) = two_nodes();
    for number in 0..20 {
        let stranger = Location::new(&format!("nosuchhost-{number}.invalid"), 9900).unwrap();
        name(&network, &nodes[0], &stranger);
    }
    must_be_alone(&network, &nodes);
}

/// Names of one kind of place, each another one.
type Places<'a> = &'a dyn Fn(usize) -> Location;

/// Names that nobody finds, ports where nobody is, and a listener that never answers.
#[test]
fn must_ask_few_at_a_time_however_many_are_named() {
    const EACH: usize = 1000;
    let (network, nodes) = two_nodes();
    let before = threads(&nodes[0]);
    let nobodys = own_address();
    // It has all loopback addresses, and so many names.
    let silent = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let unknown = |number| format!("nosuchhost-{number}.invalid:9900").parse().unwrap();
    let closed = |number| Location::new(&nobodys, 10_000 + number as u16).unwrap();
    let deaf = |number| {
        let host = format!("127.255.{}.{}", number / 250, 1 + number % 250);
        Location::new(&host, port).unwrap()
    };
    let places: [Places; 3] = [&unknown, &closed, &deaf];
    let mut most = 0;
    let began = Instant::now();
    for (method, place) in ["add", "join"].iter().flat_map(|m| places.map(|p| (m, p))) {
        let calls = (0..EACH).map(|number| {
            let news = News::write(&place(number), std::iter::empty());
            (nodes[0].location.clone(), request(method, news))
        });
        let calls: Vec<_> = calls.collect();
        for some in calls.chunks(500) {
            let answers = network.call_all(some, LONG);
            assert!(answers.iter().all(Result::is_ok));
            most = most.max(threads(&nodes[0]));
        }
        must_be_alone(&network, &nodes);
    }
    // 64 that are asked, each by a thread that connects, and 16 look-ups.
    assert!(most < before + 100, "{before} threads, then {most}");
    let memory = highest(&nodes[0]);
    println!("{most} threads and {memory} bytes at the highest");
    assert!(memory < 64 << 20, "{memory} bytes at the highest");
    let said = "64 nodes that were named are being asked what they are";
    let log = || nodes[0].process.errors();
    wait_until(LONG, "it says so", || log().contains(said));
    let minutes = 1 + began.elapsed().as_secs() as usize / 60;
    assert!(log().matches(said).count() <= minutes, "once a minute");
    for node in &nodes {
        assert!(!node.process.errors().contains("panicked"));
    }
}

/// A node that is named is asked again after twice as long each time.
#[test]
fn must_seldom_call_what_never_answers() {
    let (network, nodes) = two_nodes();
    let silent = TcpListener::bind((own_address(), 0)).unwrap();
    silent.set_nonblocking(true).unwrap();
    let silent_at: Location = silent.local_addr().unwrap().to_string().parse().unwrap();
    let join = request("join", News::write(&silent_at, std::iter::empty()));
    let began = Instant::now();
    network.call(&nodes[0].location, &join, CALL_LIMIT).unwrap();
    let mut asked = Vec::new();
    wait_until(LONG, "12 s have gone by", || {
        asked.extend(silent.accept());
        began.elapsed() >= Duration::from_secs(12)
    });
    let asked = asked.len();
    assert!((2..=10).contains(&asked), "{asked} connections");
    must_be_alone(&network, &nodes);
}

/// `store`, as far as it is needed here.
struct Stored<'a> {
    caller: Caller,
    put: bool,
    items: Vec<Item<'a>>,
}
thrift_struct!(Stored<'a> { 1 caller, 2 put, 3 items });

struct Item<'a> {
    key: &'a [u8],
    version: i64,
    value: Option<&'a [u8]>,
    list: u64,
}
thrift_struct!(Item<'a> { 1 key, 2 version, 3 value, 5 list });

struct Taken {
    taken: Vec<i64>,
}
thrift_struct!(Taken { 1 taken });

/// `enter`: what a candidate says of itself.
pub struct Candidate<'a> {
    pub me: Member,
    pub service: &'a [u8],
    pub replicas: u32,
    pub tick_millis: i64,
    pub version: i32,
}
thrift_struct!(Candidate<'a> { 1 me, 2 service, 3 replicas, 4 tick_millis, 5 version });

/// A newcomer of that name that fits.
pub fn candidate(location: &Location) -> Candidate<'static> {
    Candidate {
        me: Member {
            location: location.clone(),
            state: State::Joining,
            incarnation: 2,
        },
        service: b"diststore.Store",
        replicas: 2,
        tick_millis: 500,
        version: VERSION,
    }
}

pub fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// What anybody may ask a node, in another one's name.
pub fn question(caller: &Member, you: Standing) -> Question {
    let (me, token) = (caller.clone(), 1);
    Question {
        caller: Caller { me, token },
        you,
        wants_lease: false,
        digest: 0,
        side: None,
        wants_members: true,
        lost: Vec::new(),
        token: 1,
        floor: 0,
    }
}

fn ask(network: &TcpNetwork, node: &Node, question: &Question) -> Reply {
    let question = request("ask", encoded(question));
    let answer = network.call(&node.location, &question, CALL_LIMIT);
    read_answer(&answer.unwrap(), "ask").unwrap()
}

#[test]
fn must_not_believe_what_others_say_in_a_members_name() {
    let (network, mut nodes) = two_nodes();
    let stranger = Member {
        location: Location::new(&own_address(), 9900).unwrap(),
        state: State::Full,
        incarnation: 2,
    };
    // All that a member knows of another one, anybody may ask for.
    let reply = ask(&network, &nodes[0], &question(&stranger, Standing::Unknown));
    let members = reply.members.unwrap();
    let known = |node: &Node| members.iter().find(|m| m.location == node.location);
    let [target, named] = [0, 1].map(|number| known(&nodes[number]).unwrap().clone());
    let you = Standing::Member(target.state, target.incarnation);
    for state in [
        State::Left,
        State::Leaving,
        State::Returning,
        State::Original,
    ] {
        let said = Member {
            state,
            ..named.clone()
        };
        ask(&network, &nodes[0], &question(&said, you));
    }
    for incarnation in [0, i64::MAX, i64::MIN, named.incarnation + 1] {
        let said = Member {
            incarnation,
            ..named.clone()
        };
        ask(&network, &nodes[0], &question(&said, you));
        ask(
            &network,
            &nodes[0],
            &question(&said, Standing::Lost(target.incarnation)),
        );
    }
    // Nobody asks because of what a stranger says is lost, however much that is.
    let mut long = question(&named, you);
    long.lost = vec![named.location.clone(); 300_000];
    ask(&network, &nodes[0], &long);
    must_be_alone(&network, &nodes);
    for node in &nodes {
        assert!(!node.process.out().contains("removed"));
    }
    // With the two of them as its replicas, in this order or the other, every key has one of two lists.
    put(&network, &nodes[0].location, b"key", b"before").unwrap();
    let digests: Vec<_> = [[&target, &named], [&named, &target]]
        .into_iter()
        .map(|list| list_digest(&list))
        .collect();
    let items = digests.iter().map(|list| Item {
        key: b"key",
        version: 1 << 62,
        value: Some(b"forged"),
        list: *list,
    });
    let (me, token) = (named.clone(), 1);
    let stored = Stored {
        caller: Caller { me, token },
        put: true,
        items: items.collect(),
    };
    let stored = request("store", encoded(&stored));
    let answer = network.call(&nodes[0].location, &stored, CALL_LIMIT);
    let Taken { taken } = read_answer(&answer.unwrap(), "store").unwrap();
    assert_eq!(taken, [0, 0], "the lists differ");
    put(&network, &nodes[0].location, b"key", b"after").unwrap();
    let value = get(&network, &nodes[1].location, b"key").unwrap();
    assert_eq!(value, b"after");
    let shared = shared_digest([&target, &named]);
    for me in [&stranger, &named] {
        must_show_nothing_to(&network, &nodes[0], me, shared);
    }
    must_still_be_whole(&network, &nodes);
    // The life that was spoken of ends; the next one is let in.
    let (place, port) = (nodes[1].location.clone(), nodes[1].location.port());
    nodes[1].process.signal("KILL");
    nodes[1].process.wait(LONG);
    let mut left = question(&named, you);
    for state in [State::Left, State::Leaving] {
        left.caller.me.state = state;
        ask(&network, &nodes[0], &left);
    }
    let peer = nodes[0].location.name();
    nodes[1] = Node::store(place.address(), &["-p", &port.to_string(), "-h", peer]);
    assert_eq!(nodes[1].location, place);
    settle(&nodes.each_ref());
    let value = get(&network, &nodes[1].location, b"key").unwrap();
    assert_eq!(value, b"after");
}

/// Nobody has been lost some seconds after all that was said.
fn must_still_be_whole(network: &TcpNetwork, nodes: &[Node; 2]) {
    // More than it takes to lose a silent node.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        must_be_alone(network, nodes);
    }
    for node in nodes {
        assert!(!node.process.out().contains("removed"));
    }
    settle(&nodes.each_ref());
}

/// `compare`, and its answer as far as it is needed here.
struct Comparison {
    caller: Caller,
    shared: u64,
    digests: Vec<u64>,
    exchanged: bool,
    view: u64,
}
thrift_struct!(Comparison { 1 caller, 2 shared, 3 digests, 4 exchanged, 5 view });

struct Compared {
    me: Member,
    digests: Option<Vec<u64>>,
}
thrift_struct!(Compared { 1 me, 3 digests });

/// `exchange`, and its answer as far as it is needed here.
struct Part {
    caller: Caller,
    shared: u64,
    range: u32,
    items: Vec<u64>,
}
thrift_struct!(Part { 1 caller, 2 shared, 3 range, 6 items });

struct Exchanged<'a> {
    items: Vec<Item<'a>>,
}
thrift_struct!(Exchanged<'a> { 1 items });

/// Of the ranges that two nodes share, which are all, and of their lists. As the nodes work it out; see `View::ties`.
fn shared_digest(members: [&Member; 2]) -> u64 {
    let names = members.map(|member| member.location.name().clone());
    let ring = Ring::new(names);
    let member = |place: usize| {
        let mut members = members.iter();
        let found = members.find(|member| *member.location.name() == ring.names()[place]);
        *found.unwrap()
    };
    let ranges = ring.ranges().collect::<BTreeSet<_>>().into_iter();
    let digests = ranges.map(|hash| {
        let list: Vec<_> = ring.walk(hash).map(member).collect();
        mix(list_digest(&list) ^ u64::from(hash))
    });
    digests.fold(0, u64::wrapping_add)
}

/// Who calls itself so hears neither digests nor items, even if it says what only a member knows of the lists.
fn must_show_nothing_to(network: &TcpNetwork, node: &Node, me: &Member, shared: u64) {
    let caller = || Caller {
        me: me.clone(),
        token: 1,
    };
    for (shared, exchanged) in [(0, false), (shared, false), (shared, true)] {
        let comparison = Comparison {
            caller: caller(),
            shared,
            digests: vec![0; 1024],
            exchanged,
            view: 0,
        };
        let comparison = request("compare", encoded(&comparison));
        let answer = network.call(&node.location, &comparison, CALL_LIMIT);
        let answer: Compared = read_answer(&answer.unwrap(), "compare").unwrap();
        assert_eq!(answer.me.location, node.location);
        assert_eq!(answer.digests, None);
    }
    // A key is in one of them.
    for range in 0..1024 {
        let part = Part {
            caller: caller(),
            shared,
            range,
            items: Vec::new(),
        };
        let part = request("exchange", encoded(&part));
        let answer = network.call(&node.location, &part, CALL_LIMIT).unwrap();
        let answer: Exchanged = read_answer(&answer, "exchange").unwrap();
        assert!(answer.items.is_empty(), "range {range}");
    }
}

/// As the nodes work it out; see `View::list_digest`.
fn list_digest(list: &[&Member]) -> u64 {
    list.iter().fold(0, |digest, member| {
        mix(digest.rotate_left(1) ^ member.digest())
    })
}

#[test]
fn must_cost_one_connection_to_ask_whether_a_candidate_is_there() {
    let (network, nodes) = two_nodes();
    let silent = TcpListener::bind((own_address(), 0)).unwrap();
    let silent_at = silent.local_addr().unwrap().to_string().parse().unwrap();
    let enter = request("enter", encoded(&candidate(&silent_at)));
    // One of them lets candidates in, the other one names it.
    for node in &nodes {
        network.call(&node.location, &enter, CALL_LIMIT).unwrap();
    }
    silent.set_nonblocking(true).unwrap();
    let connections: Vec<_> = silent.incoming().map_while(Result::ok).collect();
    assert_eq!(connections.len(), 1);
    must_be_alone(&network, &nodes);
}

/// The answer to `enter`, as far as it is needed here.
struct Entered {
    kind: i32,
    reason: String,
}
thrift_struct!(Entered { 1 kind, 5 reason });

/// "Not in this network, and why."
const REFUSED: i32 = 6;

/// The kind of the answer, and the reason, when that name asks one of the nodes to be let in. The node of the first name
/// lets in.
fn enter(network: &TcpNetwork, nodes: &[Node; 2], name: &Location) -> (i32, String) {
    let gatekeeper = nodes.iter().map(|node| &node.location).min().unwrap();
    let enter = request("enter", encoded(&candidate(name)));
    let answer = network.call(gatekeeper, &enter, CALL_LIMIT).unwrap();
    let Entered { kind, reason } = read_answer(&answer, "enter").unwrap();
    (kind, reason)
}

#[test]
fn must_tell_a_candidate_why_it_is_not_reached_at_its_name() {
    let (network, nodes) = two_nodes();
    let gatekeeper = nodes.iter().map(|node| &node.location).min().unwrap();
    let refused_with = |name: Location, why: &str| {
        let began = Instant::now();
        let (kind, reason) = enter(&network, &nodes, &name);
        let took = began.elapsed();
        assert_eq!(kind, REFUSED, "{reason}");
        let cause = reason.strip_prefix(&format!("{name} can't be reached from {gatekeeper}: "));
        let cause = cause.and_then(|cause| cause.strip_suffix(": give another --address"));
        assert!(
            cause.is_some_and(|cause| cause.starts_with(why)),
            "{reason}"
        );
        assert!(took < Duration::from_secs(3), "{reason}: {took:?}");
    };
    let unknown = "nosuchhost.invalid:9900".parse().unwrap();
    refused_with(unknown, "nosuchhost.invalid: ");
    let closed = Location::new(&own_address(), 9900).unwrap();
    refused_with(closed, "connection refused");
    // Another name for the place where one of them is.
    let other = nodes[1].location.clone();
    let alias = format!("::ffff:{}", other.address());
    let alias = Location::new(&alias, other.port()).unwrap();
    refused_with(alias, &format!("{other} answers there"));
    must_be_alone(&network, &nodes);
}

#[test]
fn must_not_take_a_version_from_a_stranger() {
    let (network, nodes) = two_nodes();
    let key: &[u8] = b"key of a stranger";
    let primary = owner(&network, &nodes[0].location, key);
    put(&network, &primary, key, b"before").unwrap();
    for above in [1 << 62, (1 << 62) - 1, 1] {
        let (value, caller) = (Some(&b"forged"[..]), None);
        let forward = KeyValue {
            key,
            value,
            above,
            caller,
        };
        let answer = network.call(&primary, &forward.request(), CALL_LIMIT);
        assert!(answer.is_ok(), "{answer:?}");
        for node in &nodes {
            assert_eq!(get(&network, &node.location, key).unwrap(), b"before");
        }
    }
    put(&network, &primary, key, b"after").unwrap();
    assert_eq!(get(&network, &nodes[1].location, key).unwrap(), b"after");
}
