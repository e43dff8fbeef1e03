//! What somebody can do who reaches a node's port and is no node: name others that are none.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{News, request};
use thrifty_p2p::net::{Network, TcpNetwork};

use crate::running::{
    CALL_LIMIT, LONG, Node, get, members, network, own_address, put, settle, wait_until,
};

/// Puts and gets ten keys, none of which waits for anybody but the two nodes.
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
    let out = || nodes[0].process.out();
    wait_until(LONG, "it says so", || out().contains(said));
    assert_eq!(out().matches(said).count(), 1, "once a minute");
}
