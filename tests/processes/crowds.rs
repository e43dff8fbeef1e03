//! More clients than a node has connections for: the nodes keep theirs.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;
use thrifty_p2p::locator::request;
use thrifty_p2p::membership::{Member, Standing, State};
use thrifty_p2p::net::Network;
use thrifty_p2p::os::connect_from;
use thrifty_p2p::thrift::{MessageKind, Write as _, begin_message};

use crate::running::{CALL_LIMIT, Node, network, own_address, put, settle};
use crate::strangers::{candidate, encoded, name, question};

/// At each node.
const CROWD: usize = 40;

/// How often those look whether they have been closed.
const PACE: Duration = Duration::from_millis(1);

/// Holds connections to all nodes, in the middle of a message, and opens those again that are closed.
fn crowd(own: IpAddr, nodes: &[SocketAddr], ended: &AtomicBool) {
    let open = |place: usize| {
        let mut stream = connect_from(own, nodes[place % nodes.len()], CALL_LIMIT).ok()?;
        stream.write_all(b"\x80\x01").ok()?;
        Some(stream)
    };
    let mut streams: Vec<_> = (0..CROWD * nodes.len()).map(open).collect();
    while !ended.load(Ordering::Relaxed) {
        for (place, stream) in streams.iter_mut().enumerate() {
            if !stream.as_ref().is_some_and(is_open) {
                *stream = None;
                *stream = open(place);
            }
        }
        thread::sleep(PACE);
    }
}

/// How many connections from there a node has at most: the last ones that it has answered, the others it has closed.
fn kept(own: IpAddr, node: SocketAddr) -> usize {
    let open = |_| {
        let mut stream = connect_from(own, node, CALL_LIMIT).ok()?;
        let mut ping = Vec::new();
        begin_message(&mut ping, MessageKind::Call, b"ping", 1, false);
        ping.write_stop();
        stream.write_all(&ping).ok()?;
        stream.set_read_timeout(Some(CALL_LIMIT)).ok()?;
        let heard = stream.read(&mut [0; 100]).unwrap_or(0);
        assert!(heard > 0, "it is not served");
        Some(stream)
    };
    let streams: Vec<_> = (0..20).filter_map(open).collect();
    streams.iter().filter(|stream| is_open(stream)).count()
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Somebody that is called a node, by itself and by others, and isn't one.
#[test]
fn must_keep_no_connections_for_what_only_calls_itself_a_node() {
    let address = own_address();
    let options = ["--connections", "8"];
    let nodes = [0, 1].map(|_| Node::store(&address, &options));
    settle(&nodes.each_ref());
    let crowd_at = own_address();
    let own: IpAddr = crowd_at.parse().unwrap();
    let place = SocketAddr::new(address.parse().unwrap(), nodes[0].location.port());
    let before = kept(own, place);
    // Half of them are the other node's, and one may be this test's.
    assert!((3..=4).contains(&before), "{before}");
    let listener = TcpListener::bind((own, 0)).unwrap();
    let crowd: Location = listener.local_addr().unwrap().to_string().parse().unwrap();
    let network = network();
    name(&network, &nodes[0], &crowd);
    let candidate = candidate(&crowd);
    let known = question(&candidate.me, Standing::Unknown);
    let member = Member {
        state: State::Full,
        ..candidate.me.clone()
    };
    let member = question(&member, Standing::Member(State::Full, 2));
    for (method, arguments) in [
        ("ask", encoded(&known)),
        ("ask", encoded(&member)),
        ("enter", encoded(&candidate)),
    ] {
        let forged = request(method, arguments);
        let answer = network.call(&nodes[0].location, &forged, CALL_LIMIT);
        assert!(answer.is_ok(), "{method}: {answer:?}");
    }
    // It has been asked what it is.
    let _asked = listener.accept().unwrap();
    drop(network);
    let after = kept(own, place);
    assert!(after <= 4, "{after} instead of {before}");
    settle(&nodes.each_ref());
}

/// Three nodes that have eight connections each stay one network for 15 s in such a crowd, whatever a client puts.
#[test]
fn must_stay_a_network_while_clients_hold_all_connections_that_they_get() {
    let addresses = [0, 1, 2].map(|_| own_address());
    let first = Node::store(&addresses[0], &["--connections", "8", "--new"]);
    let peer = first.location.name();
    let join = |address: &String| Node::store(address, &["--connections", "8", "-h", peer]);
    let nodes = [join(&addresses[1]), join(&addresses[2]), first];
    settle(&nodes.each_ref());
    let places = nodes.each_ref().map(|node| {
        let mut found = node.location.name().to_socket_addrs().unwrap();
        found.next().unwrap()
    });
    let [crowd_at, client_at] = [(), ()].map(|()| own_address().parse().unwrap());
    let network = network().from(client_at);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| crowd(crowd_at, &places, &ended));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(15) {
            for (node, key) in nodes.iter().zip(0..) {
                // It may be closed before its turn comes.
                let key = format!("key {key}");
                let _ = put(&network, &node.location, key.as_bytes(), b"value");
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    for node in &nodes {
        assert!(!node.process.out().contains("removed"), "it was lost");
    }
    settle(&nodes.each_ref());
}
