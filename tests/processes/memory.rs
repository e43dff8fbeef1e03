//! `--memory`: a node that is full refuses what makes it larger, and goes on with everything else.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::request;
use thrifty_p2p::net::{Answer, CallError, Network, TcpNetwork};
use thrifty_p2p::thrift::Exception;

use crate::running::{
    LOCATION, LONG, Node, Process, STORESERVER, get, network, own_address, put, run, settle,
    status, wait_until,
};

/// What the highest of all may be, with `--memory 64m`.
const HIGHEST: usize = 110_000_000;

/// Most are small, most bytes are in the large ones.
const SIZES: [usize; 12] = [
    100,
    100,
    100,
    100,
    100,
    100,
    10_000,
    10_000,
    10_000,
    10_000,
    10_000,
    1 << 20,
];

/// The most that the node has ever taken.
pub fn highest(node: &Node) -> usize {
    memory(node, "VmHWM:")
}

fn memory(node: &Node, which: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes.unwrap().parse::<usize>().unwrap() << 10
}

fn says_no_room(answer: &Answer, node: &Location) -> bool {
    let said = format!("{node} has no room for ");
    match answer {
        Err(CallError::Exception(Exception { kind, message })) => {
            *kind == Exception::NO_ROOM && message.starts_with(&said)
        }
        _ => false,
    }
}

/// One client puts keys of many sizes, until the small ones are refused too. What was acknowledged: key numbers and sizes.
fn fill(at: &Location, client: usize, full: &[&Location]) -> Vec<(usize, usize)> {
    let network = network();
    let (mut done, mut refused) = (Vec::new(), 0);
    for number in 0..2000 {
        let size = SIZES[number % SIZES.len()];
        let answer = put(&network, at, &key(client, number), &vec![b'v'; size]);
        if answer.is_ok() {
            done.push((number, size));
        } else {
            assert!(
                full.iter().any(|full| says_no_room(&answer, full)),
                "{answer:?}"
            );
            refused += usize::from(size == 100);
            if refused == 20 {
                return done;
            }
        }
    }
    panic!("it is never full");
}

fn key(client: usize, number: usize) -> Vec<u8> {
    format!("key {client} {number}").into_bytes()
}

fn fill_by_four(at: &Location, round: usize) -> Vec<(usize, Vec<(usize, usize)>)> {
    thread::scope(|scope| {
        let clients = (0..4).map(|client| 4 * round + client);
        let fill = |client| scope.spawn(move || (client, fill(at, client, &[at])));
        let clients: Vec<_> = clients.map(fill).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    })
}

fn must_have(network: &TcpNetwork, at: &Location, client: usize, done: &[(usize, usize)]) {
    for (number, size) in done {
        let value = get(network, at, &key(client, *number)).unwrap();
        assert_eq!(value.len(), *size, "{client} {number}");
    }
}

#[test]
fn must_live_and_answer_when_it_is_full() {
    let node = Node::store(&own_address(), &["--memory", "64m", "--replicas", "1"]);
    settle(&[&node]);
    let (at, network) = (&node.location, network());
    for round in 0..4 {
        let filled = fill_by_four(at, round);
        let most = highest(&node);
        println!("round {round}: {most}");
        assert!(most < HIGHEST, "round {round}: {most}");
        let found = status(&network, at);
        assert_eq!(found.memory, 64 << 20);
        assert!(found.lacking > 0 && found.taken <= found.memory);
        assert!(found.taken > found.memory - (4 << 20), "{}", found.taken);
        let said = run(LOCATION, &["--status", "-h", at.name()], LONG);
        assert!(said.status.success(), "the keys that are there are safe");
        let said = String::from_utf8(said.stdout).unwrap();
        let line = format!("of {} are taken", "67,108,864");
        assert!(
            said.contains("no room for ") && said.contains(&line),
            "{said}"
        );
        for (client, done) in filled {
            must_have(&network, at, client, &done);
            let (number, size) = done[0];
            put(&network, at, &key(client, number), &vec![b'w'; size]).unwrap();
            for (number, _) in &done {
                put(&network, at, &key(client, *number), b"").unwrap();
            }
        }
        put(&network, at, b"there is room", b"again").unwrap();
        assert_eq!(status(&network, at).lacking, 0);
    }
    let log = node.process.errors();
    assert_eq!(
        log.matches(": no room for ").count(),
        1,
        "once a minute: {log}"
    );
}

#[test]
fn must_refuse_what_one_of_the_replicas_has_no_room_for() {
    let address = own_address();
    let large = Node::store(&address, &["--memory", "64m"]);
    let small = Node::store(&address, &["--memory", "32m"]);
    settle(&[&large, &small]);
    let network = network();
    let (client, full) = (0, [&small.location]);
    let done = fill(&large.location, client, &full);
    let again = fill(&small.location, 1, &full);
    // What was refused is nowhere: the two hold the same.
    settle(&[&large, &small]);
    for node in [&large, &small] {
        must_have(&network, &node.location, client, &done);
        must_have(&network, &node.location, 1, &again);
    }
    let items = [&large, &small].map(|node| status(&network, &node.location).items);
    assert_eq!(items[0], items[1]);
    assert_eq!(items[0], done.len() + again.len());
    for node in [&large, &small] {
        let most = highest(node);
        assert!(most < HIGHEST, "{most} bytes at the highest");
    }
    for (number, _) in &done {
        put(&network, &large.location, &key(client, *number), b"").unwrap();
    }
    put(&network, &large.location, b"there is room", b"again").unwrap();
    settle(&[&large, &small]);
}

/// The newcomer ends, and says why. Puts and gets go on meanwhile.
#[test]
fn must_do_without_a_newcomer_that_has_too_little() {
    let address = own_address();
    let nodes = [0, 1].map(|_| Node::store(&address, &["--memory", "64m"]));
    settle(&[&nodes[0], &nodes[1]]);
    let network = network();
    let value = vec![b'v'; 10_000];
    for number in 0..1000 {
        put(&network, &nodes[0].location, &key(0, number), &value).unwrap();
    }
    let mut newcomer =
        Process::start(Command::new(STORESERVER).args(["-a", &address, "--memory", "1m"]));
    let mut count = 1000;
    wait_until(LONG, "the newcomer ends", || {
        put(&network, &nodes[0].location, &key(0, count), &value).unwrap();
        let read = get(&network, &nodes[1].location, &key(0, count)).unwrap();
        assert!(read == value, "{count}");
        count += 1;
        !newcomer.is_running()
    });
    assert_eq!(newcomer.wait(LONG).code(), Some(2));
    let complaints = newcomer.complaints();
    assert!(
        complaints.len() == 1 && complaints[0].contains(": no room for "),
        "{complaints:?}"
    );
    assert!(count > 1000, "{count}");
    wait_until(LONG, "it is no member", || {
        status(&network, &nodes[0].location).members == 2
    });
    settle(&[&nodes[0], &nodes[1]]);
    for number in 0..count {
        let read = get(&network, &nodes[1].location, &key(0, number)).unwrap();
        assert!(!read.is_empty(), "{number}");
    }
}

/// Puts these keys, a batch at a time.
fn put_many(network: &TcpNetwork, at: &Location, round: usize, keys: usize, value: &[u8]) {
    const BATCH: usize = 500;
    for first in (0..keys).step_by(BATCH) {
        let batch = first..keys.min(first + BATCH);
        let calls = batch.map(|number| {
            let arguments = KeyValue::write(&key(round, number), Some(value));
            (at.clone(), request("put", arguments))
        });
        let answers = network.call_all(&calls.collect::<Vec<_>>(), LONG);
        answers.into_iter().for_each(|answer| drop(answer.unwrap()));
    }
}

/// A number of the environment's.
fn number(name: &str, otherwise: usize) -> usize {
    let given = std::env::var(name);
    given.map_or(otherwise, |given| given.parse().expect(name))
}

/// The system gives less than `--memory`: what fails for want of memory is what a client wants, and not the node.
#[test]
fn must_refuse_what_the_system_has_no_memory_for() {
    let address = own_address();
    let script = format!(
        "ulimit -v 300000; exec {STORESERVER} -a {address} --new --replicas 1 --memory 512m"
    );
    let mut limited = Command::new("sh");
    // Each arena of glibc's takes 64 MiB of addresses, whatever is in it, and as many arenas as threads.
    let node = Node::start(limited.args(["-c", &script]).env("MALLOC_ARENA_MAX", "1"));
    settle(&[&node]);
    let (at, network) = (&node.location, network());
    let mut done = Vec::new();
    // The small ones fill what the large ones have left.
    for (client, size) in [1 << 20, 10_000, 100].into_iter().enumerate() {
        let mut refused = 0;
        for number in 0..2_000_000 {
            let answer = put(&network, at, &key(client, number), &vec![b'v'; size]);
            if answer.is_ok() {
                done.push((client, number, size));
                continue;
            }
            assert!(says_no_room(&answer, at), "{answer:?}");
            refused += 1;
            if refused == 1000 {
                break;
            }
        }
        assert_eq!(refused, 1000, "it is never full");
    }
    println!(
        "{} keys of {} bytes",
        done.len(),
        status(&network, at).taken
    );
    // What is too large for all that is left is refused as well, whatever a client sends at once.
    let largest = vec![b'v'; 32 << 20];
    for _ in 0..3 {
        let answer = put(&network, at, b"largest", &largest);
        assert!(answer.is_err());
    }
    for (client, number, size) in &done {
        let value = get(&network, at, &key(*client, *number)).unwrap();
        assert!(value.len() == *size, "{client} {number}");
    }
    for (client, number, _) in &done {
        put(&network, at, &key(*client, *number), b"").unwrap();
    }
    put(&network, at, b"there is room", &[b'v'; 100_000]).unwrap();
    settle(&[&node]);
}

/// Two nodes are put so many keys, which are then deleted, again and again. They forget all of them, in the memory that the
/// first ones took.
#[test]
fn must_forget_what_was_deleted() {
    let (keys, rounds) = (number("MEMORY_KEYS", 250_000), number("MEMORY_ROUNDS", 2));
    let address = own_address();
    let nodes = [0, 1].map(|_| Node::store(&address, &[]));
    settle(&nodes.each_ref());
    let network = network();
    let at = &nodes[0].location;
    let mut first = [0; 2];
    for round in 0..rounds {
        put_many(&network, at, round, keys, &[b'v'; 100]);
        assert_eq!(status(&network, at).items, keys);
        put_many(&network, at, round, keys, b"");
        for node in &nodes {
            let forgotten = || status(&network, &node.location).items == 0;
            wait_until(Duration::from_secs(200), "all is forgotten", forgotten);
        }
        let most = nodes.each_ref().map(highest);
        println!("round {round}: {most:?}");
        for (node, most) in nodes.iter().zip(most) {
            let little = || memory(node, "VmRSS:") < most / 2;
            wait_until(LONG, "the memory is the system's again", little);
        }
        if round == 0 {
            first = most;
        }
        for (most, first) in most.iter().zip(first) {
            assert!(*most < first + first / 4, "{most} instead of {first}");
        }
    }
    let value = get(&network, &nodes[1].location, &key(0, 0)).unwrap();
    assert_eq!(value, b"");
}
