//! Few descriptors: `--connections` may ask for no more than they bear, and a node goes on listening.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use crate::running::{
    LOCATION, Node, Process, SECONDS, STORESERVER, get, network, own_address, owner, put, settle,
    wait_until,
};

/// With a limit of 64.
fn limited(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", program]);
    command.args(arguments);
    command
}

#[test]
fn must_refuse_more_connections_than_the_limit_bears() {
    for program in [STORESERVER, LOCATION] {
        let mut refused = Process::start(&mut limited(program, &["--connections", "49"]));
        assert_eq!(refused.wait(SECONDS).code(), Some(2));
        let name = program.rsplit('/').next().unwrap();
        let expected = format!(
            "{name}: --connections: 49 is above 48, three quarters of the descriptor limit \
             (ulimit -n) (--help tells more)\n"
        );
        assert_eq!(refused.errors(), expected);
        let address = own_address();
        let arguments = ["-a", &address, "--connections", "48"];
        let node = Node::start(&mut limited(program, &arguments));
        settle(&[&node]);
        node.leave("TERM");
    }
}

/// The connections that a node keeps to another one take descriptors that those of clients would need.
#[test]
fn must_go_on_listening_when_calls_to_others_have_taken_the_descriptors() {
    const CALLS: usize = 16;
    let address = own_address();
    let few = ["-a", &address, "--replicas", "1"];
    let node = Node::start(&mut limited(STORESERVER, &few));
    let other = Node::store(&address, &["--replicas", "1"]);
    settle(&[&node, &other]);
    let at = &node.location;
    // One connection: the ends of many would be noticed one by one, and be counted until then.
    let one = network();
    let of_the_other = |key: &String| owner(&one, at, key.as_bytes()) == other.location;
    let keys = (0..).map(|number| format!("key {number}"));
    let keys: Vec<_> = keys.filter(of_the_other).take(CALLS).collect();
    let before = descriptors(&node);
    // Few of these calls find a connection that another one, or a question, has done with.
    const KEPT: usize = 4;
    other.process.signal("STOP");
    thread::scope(|scope| {
        let put = |key: &'_ String| put(&network(), at, key.as_bytes(), b"value").map(drop);
        let puts: Vec<_> = keys
            .iter()
            .map(|key| scope.spawn(move || put(key)))
            .collect();
        wait_until(SECONDS, "all calls are on their way", || {
            descriptors(&node) + KEPT >= before + 2 * CALLS
        });
        other.process.signal("CONT");
        puts.into_iter()
            .for_each(|put| put.join().unwrap().unwrap());
    });
    // Fewer than the limit of connections, and more than there is room for.
    let idle: Vec<_> = (0..46)
        .map(|_| TcpStream::connect(at.name().as_ref()).unwrap())
        .collect();
    for key in &keys {
        // It may be turned away as long as too many wait.
        wait_until(SECONDS, "the value is read", || {
            get(&network(), at, key.as_bytes()).is_ok_and(|value| value == b"value")
        });
    }
    drop(idle);
}

fn descriptors(node: &Node) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", node.process.id()));
    all.expect("it runs").count()
}
