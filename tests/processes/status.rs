//! `location --status`: the table, the document of JSON, the waiting, and the reasons.

use std::time::Instant;

use serde_json::Value;

use crate::running::{
    LOCATION, LONG, Node, Process, SECONDS, STOREPUT, own_address, run, settle, wait_until,
};

fn ask(at: &Node, options: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["--status", "-h", at.location.name()], options].concat();
    let output = run(LOCATION, &arguments, SECONDS);
    assert!(output.stderr.is_empty(), "{output:?}");
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn document(at: &Node) -> Value {
    serde_json::from_str(&ask(at, &["--json"]).1).expect("a document of JSON")
}

#[test]
fn must_tell_of_each_member() {
    let address = own_address();
    let nodes = [0, 1].map(|_| Node::store(&address, &["--memory", "64m"]));
    settle(&[&nodes[0], &nodes[1]]);
    let at = &**nodes[0].location.name();
    for (key, value) in [("a", "apple"), ("b", "bee"), ("c", "cat"), ("b", "")] {
        assert!(
            run(STOREPUT, &["-h", at, key, value], SECONDS)
                .status
                .success()
        );
    }
    let (code, out) = ask(&nodes[1], &[]);
    assert_eq!(code, Some(0), "{out}");
    let rows: Vec<Vec<_>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 3, "{out}");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{out}");
    let column = |name| rows[0].iter().position(|column| *column == name).unwrap();
    let document = document(&nodes[1]);
    assert_eq!(document["safe"], true);
    assert!(document["why"].as_array().unwrap().is_empty());
    let members = document["members"].as_array().unwrap();
    assert_eq!(members.len(), 2);
    for (row, member) in rows[1..].iter().zip(members) {
        let number = |name: &str| member[name].as_u64().expect(name);
        let text = |name: &str| member[name].as_str().expect(name);
        let told = |name| row[column(name)];
        for name in ["name", "state", "version", "since"] {
            assert_eq!(told(name), text(name));
        }
        assert_eq!(
            (text("state"), text("version")),
            ("full", env!("CARGO_PKG_VERSION"))
        );
        assert_eq!((number("keys"), number("deleted")), (2, 1));
        assert_eq!((told("keys"), told("deleted")), ("2", "1"));
        assert_eq!((number("memory"), told("memory")), (64 << 20, "67,108,864"));
        assert!(number("bytes") > 0 && number("bytes") < 10_000);
        assert!(number("connections") > 0 && number("requests_per_second") < 1000);
        assert!(member["share"].as_f64().unwrap() > 0.1);
        assert!(told("share").ends_with('%'));
        let since = text("since");
        assert!(since.starts_with("20") && since.ends_with('Z') && since.len() == 20);
        assert_eq!((number("replicas"), number("members")), (2, 2));
        assert_eq!((number("not_handed_over"), number("lacking")), (0, 0));
        assert_eq!(member["settled"], true);
        assert!(member["lost_together"].as_array().unwrap().is_empty());
    }
    // README names each field.
    let readme = include_str!("../../README.md");
    for field in document.as_object().unwrap().keys() {
        assert!(
            readme.contains(&format!("`{field}`")),
            "README.md lacks {field}"
        );
    }
    for field in members[0].as_object().unwrap().keys() {
        assert!(
            readme.contains(&format!("`{field}`")),
            "README.md lacks {field}"
        );
    }
}

#[test]
fn must_say_why_not_every_key_is_safe() {
    let address = own_address();
    let first = Node::store(&address, &["--replicas", "2"]);
    wait_until(LONG, "it has begun", || {
        ask(&first, &[]).1.contains(" full ")
    });
    let (code, out) = ask(&first, &[]);
    assert_eq!(code, Some(1));
    let last = out.lines().last();
    assert_eq!(
        last,
        Some("not safe: fewer nodes than copies: 1 of 2"),
        "{out}"
    );
    assert_eq!(
        document(&first)["why"][0],
        "fewer nodes than copies: 1 of 2"
    );
    let second = Node::store(&address, &["--replicas", "2"]);
    settle(&[&first, &second]);
    second.process.signal("STOP");
    let (code, out) = ask(&first, &[]);
    assert_eq!(code, Some(1));
    let silent = format!(
        "not safe: {} doesn't say how it is: no answer",
        second.location
    );
    assert!(out.lines().any(|line| line == silent), "{out}");
    let unknown = format!("{}  unknown ", second.location);
    assert!(out.lines().any(|line| line.starts_with(&unknown)), "{out}");
    second.process.signal("CONT");
}

#[test]
fn must_wait_until_every_key_is_safe_or_the_time_is_over() {
    let address = own_address();
    let first = Node::store(&address, &[]);
    wait_until(LONG, "it has begun", || {
        ask(&first, &[]).1.contains(" full ")
    });
    let began = Instant::now();
    let (code, out) = ask(&first, &["--wait", "1"]);
    assert_eq!(code, Some(1));
    assert!(began.elapsed().as_secs() >= 1);
    assert_eq!(
        out.matches("not safe: ").count(),
        1,
        "the last answer alone: {out}"
    );
    let arguments = ["--status", "--wait", "60", "-h", first.location.name()];
    let mut waiting = Process::start(std::process::Command::new(LOCATION).args(arguments));
    assert!(waiting.is_running());
    let second = Node::store(&address, &[]);
    assert!(waiting.wait(LONG).success());
    // A row of each, below the names of the columns.
    assert_eq!(waiting.out().lines().count(), 3, "{}", waiting.out());
    // Without a time, as long as it takes; as the last argument, and with others behind it.
    let at = first.location.name();
    let both = [&["-s", "-h", at, "--wait"][..], &["--wait", "-s", "-h", at]];
    second.leave("INT");
    wait_until(LONG, "it is alone", || ask(&first, &[]).0 == Some(1));
    let mut waiting =
        both.map(|arguments| Process::start(std::process::Command::new(LOCATION).args(arguments)));
    let began = Instant::now();
    wait_until(LONG, "some looks have passed", || {
        assert!(waiting.iter_mut().all(Process::is_running));
        began.elapsed().as_secs() >= 1
    });
    let _third = Node::store(&address, &[]);
    for waiting in &mut waiting {
        assert!(waiting.wait(LONG).success());
    }
    let nobody = own_address();
    let output = run(
        LOCATION,
        &["--status", "-a", &nobody, "--wait", "1"],
        SECONDS,
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn must_take_wait_and_json_with_status_alone() {
    for options in [
        &["--json"][..],
        &["--wait", "3"],
        &["--wait"],
        &["--status", "--wait", "soon"],
        &["--status", "--wait=soon"],
        &["--status", "--wait="],
        &["--status", "--wait", "3", "--wait"],
    ] {
        let output = run(LOCATION, options, SECONDS);
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(output.stdout.is_empty(), "{options:?}");
    }
}

/// Two of four are killed at once, and with them both copies of some keys: so says `--status` until it is told that they
/// are given up.
#[test]
fn must_say_that_keys_are_lost_until_the_loss_is_accepted() {
    let address = own_address();
    let options = ["--replicas", "2"];
    let mut nodes: Vec<_> = (0..4).map(|_| Node::store(&address, &options)).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    let at = nodes[0].location.name().to_string();
    for number in 0..20 {
        let put = run(
            STOREPUT,
            &["-h", &at, &format!("key {number}"), "value"],
            SECONDS,
        );
        assert!(put.status.success(), "{put:?}");
    }
    settle(&nodes.iter().collect::<Vec<_>>());
    let gone = nodes.split_off(2);
    gone.iter().for_each(|node| node.process.signal("KILL"));
    let together = |out: &str| {
        let line = out
            .lines()
            .find(|line| line.contains("2 members lost together"));
        line.is_some_and(|line| {
            gone.iter()
                .all(|node| line.contains(&**node.location.name()))
        })
    };
    for node in &nodes {
        wait_until(LONG, "it says so", || {
            let (code, out) = ask(node, &[]);
            code == Some(1) && together(&out)
        });
    }
    // It doesn't go by itself.
    let (code, out) = ask(&nodes[0], &["--wait", "3"]);
    assert!(code == Some(1) && together(&out), "{out}");
    let accept = ["--accept-loss", "-h", nodes[1].location.name()];
    let accepted = run(LOCATION, &accept, SECONDS);
    assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
    for node in &nodes {
        let (code, out) = ask(node, &["--wait", "10"]);
        assert_eq!(code, Some(0), "{out}");
    }
}

/// With `--replicas 1` there is no second copy to wait for.
#[test]
fn must_say_at_once_that_one_copy_is_safe() {
    let node = Node::store(&own_address(), &["--replicas", "1", "--new"]);
    wait_until(SECONDS, "it has begun", || {
        let (code, out) = ask(&node, &[]);
        assert!(code == Some(0) || !out.contains(" full "), "{out}");
        code == Some(0)
    });
}
