use super::*;
use crate::locator::write_answer;
use crate::membership::Member;
use crate::net::{Answer, Request};
use crate::thrift::Exception;

fn location(port: u16) -> Location {
    Location::new("127.0.0.1", port).unwrap()
}

pub(crate) fn full(at: &Location, members: u32) -> Status {
    Status {
        me: Member {
            location: at.clone(),
            state: State::Full,
            incarnation: 2,
        },
        replicas: 1,
        members,
        full: members,
        digest: 7,
        items: 5,
        unconfirmed: 0,
        settled: true,
        missing: Vec::new(),
        taken: 1234,
        memory: 1 << 20,
        lacking: 0,
        deleted: Some(2),
        connections: Some(3),
        rate: Some(4),
        version: Some("1.2.3".to_owned()),
        since: Some(1_000_000_000_000_000),
    }
}

/// A network in which all nodes say that they are safe, among so many members.
struct Content {
    listed: Vec<Location>,
    members: u32,
}

impl Network for Content {
    fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
        let answer = |(at, request): &(Location, Request)| {
            let mut result = Vec::new();
            match request.method {
                "get_all" => write_answer(&self.listed, &mut result),
                _ => write_answer(&full(at, self.members), &mut result),
            }
            Ok(result)
        };
        calls.iter().map(answer).collect()
    }

    fn forget(&self, _: &Location) {}
}

/// The node that was asked has come into a network since it gave its list.
#[test]
fn must_not_say_safe_unless_all_members_were_asked() {
    let why = |listed: &[u16], members| {
        let listed = listed.iter().map(|port| location(*port)).collect();
        let network = Content { listed, members };
        let report = ask_all(&network, &location(1), Duration::ZERO);
        report.unwrap().why
    };
    assert!(why(&[1, 2, 3], 3).is_empty());
    assert_eq!(why(&[1], 3), ["127.0.0.1:1 knows 3 members, not 1"]);
}

fn why(change: impl Fn(&mut Status)) -> Vec<String> {
    let [one, other] = [location(1), location(2)];
    let mut status = full(&other, 2);
    change(&mut status);
    let first = (one.clone(), Ok(full(&one, 2)));
    Report::new([first, (other, Ok(status))]).why
}

#[test]
fn must_say_why_in_words() {
    assert!(why(|_| ()).is_empty());
    let joining = why(|status| status.me.state = State::Joining);
    assert_eq!(joining, ["127.0.0.1:2 is joining"]);
    let unconfirmed = why(|status| status.unconfirmed = 1);
    assert_eq!(unconfirmed, ["127.0.0.1:2 has 1 key not handed over"]);
    let unsettled = why(|status| status.settled = false);
    assert_eq!(unsettled, ["127.0.0.1:2 is comparing with others"]);
    let few = why(|status| status.replicas = 3);
    assert_eq!(few, ["fewer nodes than copies: 2 of 3"]);
    let lost = why(|status| status.missing = vec![location(8), location(9)]);
    let said = "2 members lost together: keys may be missing: 127.0.0.1:8 127.0.0.1:9";
    assert_eq!(lost, [said]);
    let apart = why(|status| status.digest = 8);
    assert_eq!(apart, ["127.0.0.1:2 doesn't see what 127.0.0.1:1 sees"]);
}

#[test]
fn must_say_once_what_all_say_and_name_those_that_say_nothing() {
    let few = |port| {
        let mut status = full(&location(port), 4);
        status.replicas = 5;
        (location(port), Ok(status))
    };
    let original = CallError::Exception(Exception::unknown_method(b"status"));
    let report = Report::new([
        few(1),
        few(2),
        (location(3), Err(original)),
        (location(4), Err(CallError::Silent)),
    ]);
    let expected = [
        "fewer nodes than copies: 4 of 5",
        "127.0.0.1:3 is a node of the original, which can't tell",
        "127.0.0.1:4 doesn't say how it is: no answer",
    ];
    assert_eq!(report.why, expected);
    let states: Vec<_> = report.members.iter().map(Account::state).collect();
    assert_eq!(states, ["full", "full", "original", "unknown"]);
}

#[test]
fn must_write_a_table_and_a_document() {
    let evil = Location::new("a\"\\<b>", 2).unwrap();
    let mut status = full(&location(1), 2);
    status.lacking = 10;
    status.version = Some("\u{1b}[1m\"\n".repeat(100));
    let report = Report::new([
        (location(1), Ok(status)),
        (evil.clone(), Err(CallError::Silent)),
    ]);
    let lines = report.to_lines();
    assert_eq!(lines.len(), 5);
    let words: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(words, table::COLUMNS);
    let cells: Vec<_> = lines[1].split_whitespace().collect();
    let expected = [
        "127.0.0.1:1",
        "full",
        "3",
        "2",
        "1,234",
        "1,048,576",
        "3",
        "4",
    ];
    assert_eq!(cells[..8], expected);
    assert_eq!(cells[10], "2001-09-09T01:46:40Z");
    assert!(
        lines[2].starts_with("a\"\\<b>:2     unknown"),
        "{}",
        lines[2]
    );
    let cause = format!("not safe: {evil} doesn't say how it is: no answer");
    assert_eq!(lines[3], cause);
    let note = "note: 127.0.0.1:1 has no room for 10 bytes more: 1,234 of 1,048,576 are taken";
    assert_eq!(lines[4], note);
    assert!(lines.concat().chars().all(|c| !c.is_control()));
    let document: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(document["safe"], false);
    assert_eq!(document["why"][0], cause["not safe: ".len()..]);
    assert_eq!(document["notes"][0], note["note: ".len()..]);
    let [one, other] = [0, 1].map(|place| &document["members"][place]);
    assert_eq!(other["name"], evil.to_string());
    assert!(other["keys"].is_null() && other["lost_together"].is_null());
    let share = |member: &serde_json::Value| member["share"].as_f64().unwrap();
    assert!((share(one) + share(other) - 1.0).abs() < 0.001);
    assert_eq!(one["since"], "2001-09-09T01:46:40Z");
    assert_eq!((&one["keys"], &one["deleted"]), (&3.into(), &2.into()));
}
