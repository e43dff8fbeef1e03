//! A node whose only other member answers that it is another one.

use std::sync::{Arc, Mutex};

use super::super::calls::EMPTY;
use super::super::originals::tests::node_over;
use super::*;
use crate::membership::{Entry, Question, Reply, Standing, View};
use crate::net::{Answer, Network, Request, SystemClock};

fn location(number: u16) -> Location {
    Location::new("127.0.0.1", 9900 + number).unwrap()
}

fn full(number: u16) -> Member {
    Member {
        location: location(number),
        state: State::Full,
        incarnation: 8,
    }
}

/// Has the node as a member, and says of a comparison that it is the one at that place.
struct Other(u16);

impl Network for Other {
    fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
        let answer = |(_, request): &(Location, Request)| {
            let mut result = Vec::new();
            match request.method {
                "ask" => {
                    let question: Question = read_arguments(&request.arguments).unwrap();
                    let me = question.caller.me;
                    let reply = Reply {
                        me: full(1),
                        you: Standing::Member(me.state, me.incarnation),
                        granted: Vec::new(),
                        digest: question.digest,
                        side: None,
                        members: None,
                        missing: None,
                        floor: 0,
                        clean: false,
                    };
                    write_answer(&reply, &mut result);
                }
                "compare" => {
                    let compared = Compared {
                        me: full(self.0),
                        members: None,
                        digests: Some(vec![5]),
                        left: Vec::new(),
                    };
                    write_answer(&compared, &mut result);
                }
                _ => result.extend(EMPTY),
            }
            Ok(result)
        };
        calls.iter().map(answer).collect()
    }

    fn forget(&self, _: &Location) {}
}

/// The nodes with which it is to exchange what differs.
#[derive(Default)]
struct Exchanges(Mutex<Vec<Location>>);

impl Application for Exchanges {
    fn digests(&self, _: &View, others: &[Location]) -> Vec<Vec<u64>> {
        vec![vec![4]; others.len()]
    }

    fn exchange(&self, with: &Member, _: u64, _: &[usize]) -> bool {
        self.0.lock().unwrap().push(with.location.clone());
        true
    }
}

/// It would send what it has to whatever listens at any name that a member makes up.
#[test]
fn must_exchange_nothing_with_another_than_the_one_that_was_asked() {
    for (number, exchanges) in [(1, vec![location(1)]), (2, vec![])] {
        let node = node_over(Arc::new(Other(number)), Arc::new(SystemClock::new()));
        node.with(|membership, _| {
            membership.start(&[location(1)], false);
            let me = membership.candidate();
            let entry = Entry::Admitted {
                members: vec![full(1), me.clone()],
                lost: Vec::new(),
                missing: Vec::new(),
                expired: Vec::new(),
                floor: 0,
            };
            membership.entered(&location(1), me.incarnation, entry);
        });
        node.tick();
        node.ask(false);
        let done = Exchanges::default();
        node.settle(&done);
        assert_eq!(*done.0.lock().unwrap(), exchanges);
    }
}
