//! Finding a node among strangers that listen and say nothing.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::running::{
    LOCATION, LONG, Node, STOREGET, STOREPUT, STORESERVER, own_address, run, settle,
};

/// Nothing answers at these; the fault cost three seconds for each.
fn strangers(address: &str) -> Vec<TcpListener> {
    (9900..9905)
        .map(|port| TcpListener::bind((address, port)).expect("a port that is free"))
        .collect()
}

/// Less than the fault took, and far more than is needed.
const SOON: Duration = Duration::from_secs(10);

/// When nothing answers, looking ends after 3 s: that, and what a program takes on a busy machine.
const NOBODY: Duration = Duration::from_secs(5);

/// When a higher port has answered, lower ones are waited for 200 ms: that, and the same.
const LOWER: Duration = Duration::from_secs(2);

#[test]
fn must_find_a_node_behind_strangers_that_are_silent() {
    let address = own_address();
    let _strangers = strangers(&address);
    let started = Instant::now();
    let first = Node::store(&address, &[]);
    assert_eq!(first.location.port(), 9905);
    settle(&[&first]);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let started = Instant::now();
    let second = Node::store(&address, &[]);
    settle(&[&first, &second]);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let started = Instant::now();
    let status = run(LOCATION, &["--status", "-a", &address], LONG);
    assert!(status.status.success());
    assert!(started.elapsed() < LOWER, "{:?}", started.elapsed());
}

/// Clients look on 127.0.0.1: its ports 9900 to 9905 have to be free.
#[test]
fn must_find_a_store_behind_strangers_on_this_machine() {
    let _strangers = strangers("127.0.0.1");
    let started = Instant::now();
    let got = run(STOREGET, &["a"], LONG);
    assert_eq!(got.status.code(), Some(2));
    let errors = String::from_utf8(got.stderr).unwrap();
    assert!(errors.contains("No peer autodiscovered"), "{errors}");
    assert!(started.elapsed() < NOBODY, "{:?}", started.elapsed());
    let node = Node::store("127.0.0.1", &[]);
    assert_eq!(node.location.port(), 9905);
    settle(&[&node]);
    let started = Instant::now();
    let put = run(STOREPUT, &["a", "apple"], LONG);
    assert!(put.status.success(), "{put:?}");
    assert!(started.elapsed() < LOWER, "{:?}", started.elapsed());
    let got = run(STOREGET, &["a"], LONG);
    assert_eq!(got.stdout, b"apple\n");
}

#[test]
fn must_start_a_network_of_its_own_beside_another_kind() {
    let address = own_address();
    let store = Node::store(&address, &[]);
    settle(&[&store]);
    let locators = [(); 2].map(|()| {
        let mut command = std::process::Command::new(LOCATION);
        Node::start(command.args(["-a", &address]))
    });
    settle(&locators.each_ref());
    settle(&[&store]);
    locators[0].process.await_said("Initiating the network...");
}

#[test]
fn must_start_a_network_whatever_is_found_if_told_so() {
    let address = own_address();
    let first = Node::store(&address, &[]);
    settle(&[&first]);
    let second = Node::store(&address, &["--new"]);
    settle(&[&second]);
    settle(&[&first]);
    second.process.await_said("Initiating the network...");
    let with: [&[&str]; 3] = [
        &["--new", "-h", &address],
        &["--new", &address, "9950"],
        &["--new", "--status"],
    ];
    for with in with {
        let refused = run(STORESERVER, with, LONG);
        assert_eq!(refused.status.code(), Some(2));
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(errors.contains("--new"), "{errors}");
    }
}
