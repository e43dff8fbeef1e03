//! What moves when nodes come and go, and what clients see of it: nothing.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thrifty_p2p::diststore::{KeyValue, SERVICE_TYPES, Store};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{Locator, Options, Participant, request};
use thrifty_p2p::membership::State;
use thrifty_p2p::net::{Environment, Network, Random, SystemClock, secret};
use thrifty_p2p::node::Node as OwnNode;

use crate::running::load::Load;
use crate::running::{
    CALL_LIMIT, LONG, Node, get, network, own_address, owner, put, settle, status, wait_until,
};

const KEYS: usize = 500;

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn owners(at: &Location) -> Vec<Location> {
    let network = network();
    (0..KEYS)
        .map(|number| owner(&network, at, &key(number)))
        .collect()
}

#[test]
fn must_move_no_more_than_a_newcomer_takes_over() {
    let address = own_address();
    let options = ["--replicas", "1"];
    let mut nodes: Vec<_> = (0..3).map(|_| Node::store(&address, &options)).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    let network = network();
    for number in 0..KEYS {
        put(&network, &nodes[0].location, &key(number), b"value").unwrap();
    }
    let before = owners(&nodes[0].location);
    nodes.push(Node::store(&address, &options));
    let newcomer = nodes[3].location.clone();
    settle(&nodes.iter().collect::<Vec<_>>());
    let after = owners(&nodes[1].location);
    let moved = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    let moved: Vec<_> = moved.map(|(_, after)| after).collect();
    assert!(moved.iter().all(|after| **after == newcomer));
    // About a quarter: far from none and from all.
    assert!(
        (KEYS / 20..KEYS / 2).contains(&moved.len()),
        "{}",
        moved.len()
    );
    for node in &nodes {
        let own = after.iter().filter(|owner| **owner == node.location);
        assert_eq!(status(&network, &node.location).items, own.count());
    }
    nodes.pop().unwrap().leave("INT");
    settle(&nodes.iter().collect::<Vec<_>>());
    assert_eq!(owners(&nodes[2].location), before);
    for number in 0..KEYS {
        let value = get(&network, &nodes[number % 3].location, &key(number));
        assert_eq!(value.unwrap(), b"value");
    }
}

/// Seconds of processor time that a node has taken.
fn processor_seconds(node: &Node) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.process.id())).unwrap();
    let (_, behind_name) = stat.rsplit_once(')').unwrap();
    let times = behind_name.split_whitespace().skip(11).take(2);
    // In hundredths, on every Linux.
    times.map(|time| time.parse::<f64>().unwrap() / 100.0).sum()
}

/// Many values of a middling size: a second node gets them all, and then the two have nothing left to do.
#[test]
fn must_get_many_values_and_come_to_rest() {
    const VALUES: usize = 18_000;
    const TOGETHER: usize = 200;
    let address = own_address();
    let options = ["--memory", "600m", "--replicas", "2"];
    let first = Node::store(&address, &options);
    settle(&[&first]);
    let network = network();
    let value = vec![b'v'; 17 << 10];
    for begin in (0..VALUES).step_by(TOGETHER) {
        let some = begin..begin + TOGETHER;
        let puts = some.map(|number| {
            let arguments = KeyValue::write(&key(number), Some(&value));
            (first.location.clone(), request("put", arguments))
        });
        let answers = network.call_all(&puts.collect::<Vec<_>>(), CALL_LIMIT);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    let second = Node::store(&address, &options);
    let took = settle(&[&first, &second]);
    println!("{:.1} s: {VALUES} values are safe", took.as_secs_f64());
    // Some 300 MB, on a busy machine.
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(status(&network, &second.location).items, VALUES);
    let nodes = [&first, &second];
    let used = || nodes.map(processor_seconds).iter().sum::<f64>();
    let before = used();
    let seconds = 3;
    thread::sleep(Duration::from_secs(seconds));
    let share = (used() - before) / seconds as f64;
    assert!(
        share < 0.2,
        "{share:.2} of a core while nothing is to be done"
    );
}

#[test]
fn must_have_as_many_copies_as_asked_for() {
    for replicas in [2, 3] {
        let address = own_address();
        let options = ["--replicas", &replicas.to_string()];
        let mut nodes = vec![Node::store(&address, &options)];
        let network = network();
        settle(&[&nodes[0]]);
        for number in 0..KEYS {
            put(&network, &nodes[0].location, &key(number), b"value").unwrap();
        }
        for count in 2..=4 {
            nodes.push(Node::store(&address, &options));
            settle(&nodes.iter().collect::<Vec<_>>());
            let items = nodes
                .iter()
                .map(|node| status(&network, &node.location).items);
            assert_eq!(items.sum::<usize>(), KEYS * replicas.min(count));
        }
    }
}

/// A store node in this process.
fn start_here(address: &str, peer: &Location) -> (OwnNode<Store>, Arc<Store>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let location = listener.local_addr().unwrap().to_string().parse().unwrap();
    let options = Options {
        service_types: SERVICE_TYPES,
        replicas: 1,
        tick: Duration::from_millis(500),
        die_from_anywhere: false,
        on_die: Box::new(|| {}),
    };
    let environment = Environment {
        network: Arc::new(network()),
        clock: Arc::new(SystemClock::new()),
        random: Random::new(secret()),
        secret: secret(),
        log: Box::new(|_, _| {}),
    };
    let store = Arc::new(Store::new(
        Locator::new(location, options, environment),
        usize::MAX,
    ));
    let mut node = OwnNode::start(listener, store.clone(), Default::default()).unwrap();
    node.join(std::slice::from_ref(peer)).unwrap();
    (node, store)
}

#[test]
fn must_carry_out_what_a_node_has_tried_that_has_left() {
    let address = own_address();
    let other = Node::store(&address, &["--replicas", "1"]);
    let (node, store) = start_here(&address, &other.location);
    wait_until(LONG, "it is full", || {
        store.locator().me().state == State::Full
    });
    assert_eq!(node.leave(), Ok(0));
    // It was the primary when a client put this, and could not decide then.
    let above = 1 << 61;
    let forward = KeyValue {
        key: b"key",
        value: Some(b"value"),
        above,
        caller: Some(
            store
                .locator()
                .caller(&store.locator().me(), &other.location),
        ),
    };
    let network = network();
    network
        .call(&other.location, &forward.request(), CALL_LIMIT)
        .unwrap();
    assert_eq!(get(&network, &other.location, b"key").unwrap(), b"value");
}

/// No error and no old value: not even read at the nodes that are leaving, until they refuse.
fn must_stay_readable(replicas: &str) {
    let address = own_address();
    let options = ["--replicas", replicas];
    let start = || Node::store(&address, &options);
    let mut nodes: Vec<_> = (0..3).map(|_| start()).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    let load = Load::start(3, 3, nodes.iter().map(|node| &node.location));
    let mut number = 0;
    let mut leave = |node: &Node| {
        number += 1;
        load.only_read(&node.location);
        node.process
            .signal(if number % 2 == 0 { "INT" } else { "TERM" });
    };
    for round in 0..4 {
        // One comes.
        nodes.push(start());
        load.add(&nodes[nodes.len() - 1].location);
        settle(&nodes.iter().collect::<Vec<_>>());
        // One goes.
        let mut leaver = nodes.remove(round % nodes.len());
        leave(&leaver);
        leaver.left();
        load.remove(&leaver.location);
        // Two come and one goes, all at once.
        let mut leaver = nodes.remove(0);
        leave(&leaver);
        nodes.extend([start(), start()]);
        leaver.left();
        load.remove(&leaver.location);
        for node in &nodes {
            load.add(&node.location);
        }
        settle(&nodes.iter().collect::<Vec<_>>());
        // Two go at once.
        let mut leavers = [nodes.remove(1), nodes.remove(0)];
        leavers.iter().for_each(&mut leave);
        for leaver in &mut leavers {
            leaver.left();
            load.remove(&leaver.location);
        }
        // And they are back at their ports, empty, before anybody could wonder.
        let again = leavers
            .each_ref()
            .map(|leaver| leaver.location.port().to_string());
        for port in again {
            nodes.push(Node::store(
                &address,
                &["--replicas", replicas, "-p", &port],
            ));
        }
        let leaver = nodes.remove(0);
        load.only_read(&leaver.location);
        let location = leaver.location.clone();
        leaver.leave("INT");
        load.remove(&location);
        settle(&nodes.iter().collect::<Vec<_>>());
    }
    let failed = load.failed();
    assert!(failed.is_empty(), "{failed:?}");
    let sums = load.finish(&nodes.iter().map(|node| &node.location).collect::<Vec<_>>());
    println!("{replicas} copies: {sums:?}");
}

#[test]
fn must_stay_readable_through_joins_and_leaves() {
    must_stay_readable("1");
}

#[test]
fn must_stay_readable_through_joins_and_leaves_with_copies() {
    must_stay_readable("2");
}
