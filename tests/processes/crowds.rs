//! More clients than a node has connections for: the nodes keep theirs.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::os::connect_from;

use crate::running::{CALL_LIMIT, Node, network, own_address, put, settle};

/// At each node.
const CROWD: usize = 40;

/// How often those look whether they have been closed.
const PACE: Duration = Duration::from_millis(1);

/// Holds connections to all nodes, in the middle of a message, and opens those again that are closed.
fn crowd(own: IpAddr, nodes: &[SocketAddr], ended: &AtomicBool) {
    let open = |place: usize| {
        let mut stream = connect_from(own, nodes[place % nodes.len()], CALL_LIMIT).ok()?;
        stream.write_all(b"\x80\x01").ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    };
    let is_open = |stream: &TcpStream| {
        let peeked = stream.peek(&mut [0]);
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
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
