//! What a program that is no node can do at a node's port: name others that are none.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use thrifty_p2p::digest::mix;
use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{News, VERSION, read_answer, request};
use thrifty_p2p::membership::{Caller, Member, Question, Reply, Standing, State};
use thrifty_p2p::net::{Network, TcpNetwork};
use thrifty_p2p::thrift::Encode;
use thrifty_p2p::thrift_struct;

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
fn name(network: &TcpNetwork, node: &Node, stranger: &Location) {
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

#[test]
fn must_ask_few_at_a_time_however_many_are_named() {
    let (network, nodes) = two_nodes();
    let before = threads(&nodes[0]);
    let calls = (0..5000).map(|number| {
        let stranger = Location::new(&format!("nosuchhost-{number}.invalid"), 9900).unwrap();
        let news = request("add", News::write(&stranger, std::iter::empty()));
        (nodes[0].location.clone(), news)
    });
    let calls: Vec<_> = calls.collect();
    let mut most = 0;
    for some in calls.chunks(500) {
        let answers = network.call_all(some, LONG);
        assert!(answers.iter().all(Result::is_ok));
        most = most.max(threads(&nodes[0]));
    }
    // 64 that are asked, each by a thread that connects, and 16 look-ups.
    assert!(most < before + 100, "{before} threads, then {most}");
    must_be_alone(&network, &nodes);
    let said = "64 nodes that were named are being asked what they are";
    let log = || nodes[0].process.errors();
    wait_until(LONG, "it says so", || log().contains(said));
    assert_eq!(log().matches(said).count(), 1, "once a minute");
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
struct Candidate<'a> {
    me: Member,
    service: &'a [u8],
    replicas: u32,
    tick_millis: i64,
    version: i32,
}
thrift_struct!(Candidate<'a> { 1 me, 2 service, 3 replicas, 4 tick_millis, 5 version });

fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// What anybody may ask a node, in another one's name.
fn question(caller: &Member, you: Standing) -> Question {
    let (me, token) = (caller.clone(), 1);
    Question {
        caller: Caller { me, token },
        you,
        lease: 0,
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
    let (network, nodes) = two_nodes();
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
    // A member that is said to be lost is asked, once, however often it is named.
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
    let (me, token) = (named, 1);
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
    let candidate = Candidate {
        me: Member {
            location: silent.local_addr().unwrap().to_string().parse().unwrap(),
            state: State::Joining,
            incarnation: 2,
        },
        service: b"diststore.Store",
        replicas: 2,
        tick_millis: 500,
        version: VERSION,
    };
    let enter = request("enter", encoded(&candidate));
    // One of them lets candidates in, the other one names it.
    for node in &nodes {
        network.call(&node.location, &enter, CALL_LIMIT).unwrap();
    }
    silent.set_nonblocking(true).unwrap();
    let connections: Vec<_> = silent.incoming().map_while(Result::ok).collect();
    assert_eq!(connections.len(), 1);
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
