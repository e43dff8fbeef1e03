//! Starting: ports, discovery, many at once.

use std::collections::BTreeSet;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::process::Command;

use thrifty_p2p::locator::{News, single_request};
use thrifty_p2p::net::Network;
use thrifty_p2p::thrift::{Write, wire};

use crate::running::{
    CALL_LIMIT, LOCATION, LONG, Node, Process, STORESERVER, get, members, network, own_address,
    owner, put, run, settle,
};

fn locator(address: &str) -> Node {
    Node::start(Command::new(LOCATION).args(["-a", address]))
}

#[test]
fn must_take_the_first_free_port_and_find_the_others() {
    let address = own_address();
    let first = Node::store(&address, &[]);
    assert_eq!(*first.location.name(), format!("{address}:9900").into());
    settle(&[&first]);
    first.process.await_said("Initiating the network...");
    let second = Node::store(&address, &[]);
    assert_eq!(second.location.port(), 9901);
    settle(&[&first, &second]);
    second.process.await_said("Joining the network...");
    assert!(
        first
            .process
            .has_said(&format!("added {}", second.location))
    );
    first.kill();
    let third = Node::store(&address, &[]);
    assert_eq!(third.location.port(), 9900, "free again");
    settle(&[&second, &third]);
}

#[test]
fn must_take_the_port_that_it_is_given() {
    let address = own_address();
    let (ours, other) = (own_address(), own_address());
    let first = Node::store(&address, &["-p", "12345"]);
    let name = first.location.name();
    assert_eq!(first.location.port(), 12345);
    let others = [
        Node::store(&ours, &["-h", name, "-p", "9950"]),
        // The original's older form.
        Node::store(&ours, &[name, "9951"]),
        // An option beats a position.
        Node::store(&other, &["--host", name, "127.0.0.1:1", "9952"]),
    ];
    assert_eq!(
        others.each_ref().map(|node| node.location.port()),
        [9950, 9951, 9952]
    );
    let nodes: Vec<_> = others.iter().chain([&first]).collect();
    settle(&nodes);
}

#[test]
fn must_join_nodes_of_its_own_service_only() {
    let address = own_address();
    let locators = [locator(&address), locator(&address)];
    let stores = [Node::store(&address, &[]), Node::store(&address, &[])];
    settle(&locators.each_ref());
    settle(&stores.each_ref());
    let last = locator(&address);
    let [first, second] = &locators;
    settle(&[first, second, &last]);
}

#[test]
fn must_be_one_network_if_all_are_started_at_once() {
    for _ in 0..3 {
        let address = own_address();
        let started: Vec<_> = (0..10)
            .map(|_| Process::start(Command::new(STORESERVER).args(["-a", &address])))
            .collect();
        let nodes: Vec<_> = started.into_iter().map(Node::serving).collect();
        let ports: BTreeSet<_> = nodes.iter().map(|node| node.location.port()).collect();
        assert_eq!(ports, (9900..9910).collect());
        settle(&nodes.iter().collect::<Vec<_>>());
        let network = network();
        for node in &nodes {
            let members = members(&network, &node.location).unwrap();
            assert_eq!(members.len(), 10, "as an original asks");
        }
    }
}

/// A node that is found, and has gone by the time it is to be joined.
#[test]
fn regression_must_look_again_when_the_node_found_has_gone() {
    let address = own_address();
    let listener = TcpListener::bind((&*address, 9900)).unwrap();
    let started = Process::start(Command::new(STORESERVER).args(["-a", &address]));
    let (mut stream, _) = listener.accept().unwrap();
    // The header of a CALL in one piece; that of the REPLY differs in its last byte of four.
    let mut message = vec![0; 100];
    let length = stream.read(&mut message).unwrap();
    message.truncate(length - 1);
    message[3] = 2;
    message.write_field(wire::LIST, 0);
    message.write_list(wire::STRING, 2);
    message.write_bytes(b"diststore.Store");
    message.write_bytes(b"thrifty.Peer");
    message.write_stop();
    drop(listener);
    stream.write_all(&message).unwrap();
    let node = Node::serving(started);
    settle(&[&node]);
    node.process.await_said("Initiating the network...");
}

/// They find each other first, as their ports come first, but the network is elsewhere.
#[test]
fn regression_must_not_take_another_starting_node_for_the_network() {
    for _ in 0..5 {
        let address = own_address();
        let mut nodes: Vec<_> = (0..4).map(|_| Node::store(&address, &[])).collect();
        settle(&nodes.iter().collect::<Vec<_>>());
        let network = network();
        put(&network, &nodes[0].location, b"key", b"value").unwrap();
        nodes.remove(0).leave("INT");
        nodes.remove(0).leave("INT");
        let start = || Process::start(Command::new(STORESERVER).args(["-a", &address]));
        let started = [start(), start()];
        for process in started {
            let node = Node::serving(process);
            assert_eq!(get(&network, &node.location, b"key").unwrap(), b"value");
            nodes.push(node);
        }
        settle(&nodes.iter().collect::<Vec<_>>());
    }
}

/// Calls for what the other name would own come back to the node, which would pass them on to it again.
#[test]
fn regression_must_take_another_name_of_its_own_for_no_other_node() {
    let node = Node::store(&own_address(), &["--replicas", "1"]);
    settle(&[&node]);
    let alias = node.location.name().replacen("127.", "0x7f.", 1);
    let add = News::write(&alias.parse().unwrap(), [].iter());
    let network = network();
    let add = single_request("add", add, false);
    network.call(&node.location, &add, CALL_LIMIT).unwrap();
    settle(&[&node]);
    assert!(!node.process.has_said(&format!("added {alias}")));
    for number in 0..20 {
        let key = format!("key {number}");
        put(&network, &node.location, key.as_bytes(), b"value").unwrap();
    }
}

/// A node that is told which peer to join is none that another one has to wait for, though its name comes first.
#[test]
fn regression_must_not_wait_for_nodes_that_are_told_to_join() {
    for _ in 0..5 {
        let addresses = [(); 3].map(|()| own_address());
        let [low, middle, high] = &addresses;
        let start = |address: &str, options: &[&str]| {
            Process::start(
                Command::new(STORESERVER)
                    .args(["-a", address])
                    .args(options),
            )
        };
        let first = Node::serving(start(high, &["-p", "12345"]));
        let peer = first.location.name();
        let others = [low, middle].map(|address| start(address, &["-h", peer]));
        let others = others.map(Node::serving);
        settle(&[&first, &others[0], &others[1]]);
        first.process.await_said("Initiating the network...");
    }
}

/// A node is told which peer to join before that peer is there.
#[test]
fn must_wait_for_the_peer_that_it_is_given_to_start() {
    let (own, address) = (own_address(), own_address());
    let peer = format!("{address}:9900");
    let waits = Node::store(&own, &["-h", &peer]);
    // Until then it knows itself alone.
    let at = waits.location.clone();
    assert_eq!(members(&network(), &at).unwrap(), std::slice::from_ref(&at));
    assert_eq!(owner(&network(), &at, b"key"), at);
    let first = Node::store(&address, &[]);
    settle(&[&first, &waits]);
    let out = waits.process.out();
    let joining = out.lines().filter(|line| line.starts_with("Joining"));
    assert_eq!(joining.count(), 1, "{out}");
}

#[test]
fn must_be_one_network_if_two_are_told_to_join_each_other() {
    for round in 0..4 {
        let addresses = [(); 2].map(|()| own_address());
        let peers = addresses.each_ref().map(|own| format!("{own}:9900"));
        let start = |me: usize| {
            let mut command = Command::new(STORESERVER);
            let peer = &peers[1 - me];
            Process::start(command.args(["-a", &addresses[me], "-h", peer]))
        };
        let first = start(round % 2);
        let nodes = if round < 2 {
            // The second comes when the first one has been refused.
            let first = Node::serving(first);
            [first, Node::serving(start(1 - round % 2))]
        } else {
            [first, start(1 - round % 2)].map(Node::serving)
        };
        settle(&nodes.each_ref());
    }
}

/// A node at this address that takes its peers from the environment.
fn with_peers(address: &str, peers: &str, options: &[&str]) -> Process {
    let mut command = Command::new(STORESERVER);
    let command = command.env("THRIFTY_PEERS", peers);
    Process::start(command.args(["-a", address]).args(options))
}

/// The others are an address without a program, a silent program, another service, a node that is looking for a
/// network, and a network.
#[test]
fn must_join_by_way_of_the_first_peer_that_is_in_a_network() {
    let addresses = [(); 6].map(|()| own_address());
    let [nobody, silent, other, looking, first, own] = &addresses;
    let _silent = TcpListener::bind((&**silent, 9900)).unwrap();
    let other = locator(other);
    let nobody = format!("{nobody}:9900");
    let looking = Node::store(looking, &["-h", &nobody]);
    let first = Node::store(first, &[]);
    settle(&[&first]);
    let names = [&looking, &other, &first].map(|node| node.location.name().to_string());
    let peers = [&*nobody, &names.join(","), silent, &format!("{own}:9900")].join(",");
    let joins = Node::store(own, &["-h", &peers]);
    settle(&[&first, &joins]);
    // As a position, too, and by way of one that is behind a silent one.
    let second = Node::store(own, &[&format!("{silent},{}", first.location), "9901"]);
    settle(&[&first, &joins, &second]);
}

/// All nodes have the same list, with other names for the same nodes in it. The first is started with `--new`.
#[test]
fn must_join_the_peers_of_the_environment() {
    let addresses = [(); 3].map(|()| own_address());
    let peers = addresses
        .each_ref()
        .map(|own| own.replacen("127.", "0x7f.", 1));
    let peers = peers.join(",");
    let [one, two, three] = &addresses;
    let first = Node::serving(with_peers(one, &peers, &["--new"]));
    let second = Node::serving(with_peers(two, &peers, &[]));
    settle(&[&first, &second]);
    let third = Node::serving(with_peers(three, &peers, &["-p", "9900"]));
    settle(&[&first, &second, &third]);
    // Options and positions beat it.
    let alone = Node::serving(with_peers(three, &peers, &["--new"]));
    settle(&[&alone]);
    let name = alone.location.name();
    let joins = Node::serving(with_peers(three, &peers, &["-h", name]));
    settle(&[&alone, &joins]);
    let last = Node::serving(with_peers(three, &peers, &[name, "9950"]));
    settle(&[&alone, &joins, &last]);
}

/// After a power failure, say.
#[test]
fn must_start_one_network_if_all_that_a_list_names_are_there() {
    let addresses = [(); 3].map(|()| own_address());
    let peers = addresses.join(",");
    let started = addresses.each_ref().map(|own| with_peers(own, &peers, &[]));
    let nodes = started.map(Node::serving);
    settle(&nodes.each_ref());
}

/// Two of three start no network: the third may be in one.
#[test]
fn must_name_the_peers_if_none_is_in_a_network() {
    let addresses = [(); 3].map(|()| own_address());
    let peers = addresses.join(",");
    let mut two = [0, 1].map(|me| with_peers(&addresses[me], &peers, &["--tick", "100"]));
    for (me, process) in two.iter_mut().enumerate() {
        assert_eq!(process.wait(LONG).code(), Some(2));
        let errors = process.errors();
        let named = |peer: usize| errors.contains(&format!("{}:9900", addresses[peer]));
        assert!((0..3).all(named), "{me}: {errors}");
        assert!(!process.out().contains("Initiating"), "{}", process.out());
    }
    let alone = with_peers(&addresses[0], &addresses[0], &[]).wait(LONG);
    assert_eq!(alone.code(), Some(2));
    let refused = run(
        STORESERVER,
        &["-a", &addresses[0], "-h", &addresses[0]],
        LONG,
    );
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.contains("--new starts a network"), "{errors}");
}
