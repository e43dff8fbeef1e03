//! Nodes and clients at `::1`, in each way in which it may be written.
//!
//! One test, as a machine has one such address; its ports from 9900 up have to be free.

use std::net::TcpListener;
use std::process::Command;

use crate::running::{
    LOCATION, LONG, Node, STOREGET, STOREPUT, STORESERVER, is_settled, members, network, run,
    settle, wait_until,
};

#[test]
fn must_take_ipv6_addresses_as_people_write_them() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        println!("not shown: this machine has no ::1: {error}");
        return;
    }
    let first = Node::start(Command::new(STORESERVER).args(["-a", "[::1]", "--replicas", "1"]));
    assert!(
        first
            .process
            .has_said("Starting the server at [::1]:9900...")
    );
    assert_eq!(&**first.location.name(), "::1:9900");
    settle(&[&first]);
    for (number, peer) in ["::1", "[::1]", "[::1]:9900", "::1:9900"]
        .into_iter()
        .enumerate()
    {
        let value = format!("value {number}");
        let put = run(STOREPUT, &["-h", peer, "key", &value], LONG);
        assert!(put.status.success(), "{peer}: {put:?}");
        let got = run(STOREGET, &["-h", peer, "key"], LONG);
        assert_eq!(got.stdout, format!("{value}\n").as_bytes(), "{peer}");
        let status = run(LOCATION, &["--status", "-h", peer], LONG);
        let out = String::from_utf8(status.stdout).unwrap();
        let row = out.lines().nth(1).unwrap_or_default();
        assert!(row.starts_with("[::1]:9900  full "), "{peer}: {out}");
        let node = Node::start(Command::new(STORESERVER).args([
            "-a",
            "::1",
            "-h",
            peer,
            "--replicas",
            "1",
        ]));
        assert!(
            node.process
                .has_said("Starting the server at [::1]:9901...")
        );
        settle(&[&first, &node]);
        first.process.await_said("added [::1]:9901");
        let names: Vec<_> = members(&network(), &node.location)
            .unwrap()
            .iter()
            .map(|member| member.name().to_string())
            .collect();
        assert!(names.contains(&"::1:9900".to_owned()), "{names:?}");
        node.leave("INT");
        wait_until(LONG, "one is left", || is_settled(&[&first.location]));
    }
    let port = run(STOREGET, &["-h", "::1", "-p", "9900", "key"], LONG);
    assert_eq!(port.stdout, b"value 3\n");
    // Found on its own address.
    let found =
        Node::start(Command::new(STORESERVER).args(["-a", "::1", "-p", "9950", "--replicas", "1"]));
    settle(&[&first, &found]);
    let status = run(LOCATION, &["--status", "-a", "[::1]"], LONG);
    assert!(status.status.success());
}
