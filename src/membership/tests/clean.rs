//! When tombstones may be forgotten, and what a node that was lost for long brings back.

use super::*;

/// Two that have the same, and nothing else, as each knows.
fn two_clean() -> (Membership, Membership) {
    let (mut one, mut other) = two_full(2);
    ask(&mut one, &mut other, TICK);
    for (node, with) in [(&mut one, 1), (&mut other, 0)] {
        node.synced(&location(with), true);
        node.brought(node.changes());
        node.note_safety();
    }
    (one, other)
}

#[test]
fn must_take_each_members_own_word_that_it_is_clean() {
    let (mut one, mut other) = two_clean();
    assert_eq!(one.all_clean(TICK), None, "the other one has not said so");
    let mut tick = TICK;
    let mut is_clean = |one: &mut Membership, other: &mut Membership| {
        tick += TICK;
        ask(one, other, tick);
        assert_eq!(one.all_clean(tick + TICK), None, "not since then");
        one.all_clean(tick).is_some()
    };
    assert!(is_clean(&mut one, &mut other));
    // It has something that belongs elsewhere.
    other.brought = None;
    assert!(!is_clean(&mut one, &mut other));
    other.brought(other.changes());
    assert!(is_clean(&mut one, &mut other));
    // It doesn't know whether it has the same as others.
    other.synced(&location(0), false);
    assert!(!is_clean(&mut one, &mut other));
    other.synced(&location(0), true);
    // It waits for somebody.
    other.remember_lost(location(7), 2);
    assert!(!is_clean(&mut one, &mut other));
    other.lost.clear();
    // Keys may be missing.
    other.raise_alarm([(location(7), 2)].into());
    assert!(!is_clean(&mut one, &mut other));
    one.accept_loss();
    other.accept_loss();
    assert!(is_clean(&mut one, &mut other));
    // It has another view.
    other.take_in(Member {
        location: location(7),
        state: State::Full,
        incarnation: 2,
    });
    for number in [0, 7] {
        other.synced(&location(number), true);
    }
    other.brought(other.changes());
    assert!(other.is_clean());
    assert!(!is_clean(&mut one, &mut other));
}

#[test]
fn must_forget_that_members_were_clean_when_the_view_changes() {
    let (mut one, mut other) = two_clean();
    ask(&mut one, &mut other, TICK * 2);
    assert!(one.all_clean(TICK).is_some());
    one.change_view(|_| ());
    one.brought(one.changes());
    assert_eq!(one.all_clean(TICK), None);
}

#[test]
fn must_agree_on_the_least_floor_and_tell_it() {
    let (mut one, mut other) = two_clean();
    one.raise_floor(7);
    // The question tells it, so the answer has it.
    ask(&mut one, &mut other, TICK * 2);
    assert_eq!((one.all_clean(TICK), other.floor()), (Some(7), 7));
    other.raise_floor(9);
    assert_eq!(one.all_clean(TICK), Some(7));
    ask(&mut one, &mut other, TICK * 3);
    assert_eq!((one.all_clean(TICK), one.floor()), (Some(9), 9));
    one.raise_floor(12);
    assert_eq!(
        one.all_clean(TICK),
        Some(9),
        "the other one has not heard it"
    );
    let mut newcomer = node(2, 2);
    newcomer.start(&[location(0)], false);
    let candidate = newcomer.candidate();
    let _ = one.enter(&candidate);
    one.expect(&candidate, false);
    ask(&mut one, &mut newcomer, TICK * 4);
    assert_eq!(newcomer.floor(), 0, "it is no member");
    let entry = one.admit(&candidate);
    newcomer.entered(&location(0), candidate.incarnation, entry);
    assert_eq!(newcomer.floor(), 12);
}

#[test]
fn must_take_no_floor_from_a_stranger_nor_one_above_the_greatest() {
    let (mut one, mut other) = two_clean();
    let mut question = forged(&other, &one, State::Full);
    question.floor = 7;
    one.answer(TICK, &question);
    assert_eq!(one.floor(), 0);
    other.floor = i64::MAX;
    ask(&mut one, &mut other, TICK * 2);
    assert_eq!(one.floor(), FLOOR_MAX);
}

#[test]
fn must_ask_whether_others_are_clean_only_if_somebody_wants_to_know() {
    let mut one = first(1);
    for number in 1..=60 {
        one.take_in(Member {
            location: location(number),
            state: State::Full,
            incarnation: 8,
        });
    }
    for peer in one.peers.values_mut() {
        peer.synced = true;
    }
    one.brought(one.changes());
    assert!(one.not_known_to_be_clean().is_empty());
    one.want_clean(Some(TICK));
    assert_eq!(one.not_known_to_be_clean().len(), 16);
    for peer in one.peers.values_mut() {
        peer.clean = Some((TICK, 0));
    }
    assert!(one.not_known_to_be_clean().is_empty());
}

const HOUR_TICKS: u64 = 7200;

/// One of two clean ones that has lost the other, in this life.
fn one_that_lost_one() -> (Membership, Membership) {
    let (mut one, other) = two_clean();
    one.refused(&location(1), other.me().incarnation);
    one.missing.clear();
    one.brought(one.changes());
    (one, other)
}

#[test]
fn must_wait_for_a_lost_node_for_an_hour_of_its_own_ticks() {
    let (mut one, _) = one_that_lost_one();
    one.ticks += HOUR_TICKS - 1;
    // Whatever the clock says.
    one.ticked += TICK * 1_000_000;
    one.expire_the_lost();
    assert!(!one.is_clean());
    one.ticks += 1;
    one.raise_alarm([(location(1), 2)].into());
    one.expire_the_lost();
    assert!(
        !one.lost[&location(1)].expired,
        "keys may be missing with it"
    );
    one.accept_loss();
    one.expire_the_lost();
    assert!(one.is_clean());
    // It is still one that is to be met again.
    assert!(one.lost().any(|lost| *lost == location(1)));
}

#[test]
fn must_wait_for_those_that_it_has_no_room_for() {
    let (mut one, _) = two_clean();
    let count = LOST_MAX as u16;
    (0..count).for_each(|number| one.remember_lost(location(10 + number), 2));
    one.ticks += HOUR_TICKS;
    one.expire_the_lost();
    assert!(one.is_clean());
    // Those that it waits for no more go first.
    one.remember_lost(location(5), 2);
    assert!(!one.is_clean());
    one.lost.values_mut().for_each(|lost| lost.expired = false);
    one.remember_lost(location(6), 2);
    assert_eq!(one.lost.len(), LOST_MAX);
    one.lost.clear();
    assert!(!one.is_clean(), "one of them may come back");
    one.ticks += HOUR_TICKS;
    assert!(one.is_clean());
}

#[test]
fn must_not_be_clean_while_a_large_value_is_on_its_way() {
    let (mut one, _) = two_clean();
    one.sends(true);
    one.sends(true);
    one.sends(false);
    assert!(!one.is_clean());
    one.sends(false);
    assert!(one.is_clean());
}

#[test]
fn must_wait_again_for_one_with_which_keys_are_missing() {
    let (mut one, other) = one_that_lost_one();
    one.ticks += HOUR_TICKS;
    one.expire_the_lost();
    assert!(one.lost[&location(1)].expired && one.expired.len() == 1);
    one.hear_missing(&[other.me()]);
    assert!(!one.lost[&location(1)].expired && one.expired.is_empty());
}

#[test]
fn must_not_wait_for_one_that_left_in_good_order() {
    let (mut one, other) = one_that_lost_one();
    assert!(!one.is_clean());
    one.hear_left(&[Member {
        state: State::Left,
        ..other.me()
    }]);
    assert!(one.is_clean());
}

/// A node asks the one that has lost it to be let in, with what it had.
fn comes_back(one: &mut Membership, other: &mut Membership) {
    other.begin_anew(true, vec![location(0)]);
    let candidate = other.candidate();
    one.expect(&candidate, false);
    ask(one, other, TICK);
    let entry = one.admit(&candidate);
    other.entered(&location(0), candidate.incarnation, entry);
}

#[test]
fn must_come_back_with_what_it_had_while_it_is_waited_for() {
    let (mut one, mut other) = one_that_lost_one();
    one.ticks += HOUR_TICKS - 1;
    one.expire_the_lost();
    comes_back(&mut one, &mut other);
    assert_eq!(other.state(), State::Returning);
    assert!(!other.has_to_drop());
}

#[test]
fn must_come_back_with_nothing_when_it_is_waited_for_no_more() {
    let (mut one, mut other) = one_that_lost_one();
    one.ticks += HOUR_TICKS;
    one.expire_the_lost();
    comes_back(&mut one, &mut other);
    assert_eq!(other.state(), State::Outside);
    assert!(other.has_to_drop());
    other.take_actions();
    other.tick(TICK);
    assert_eq!(
        other.take_actions(),
        [],
        "it asks before it has dropped all"
    );
    other.dropped();
    assert!(!other.candidate().has_returned());
    other.tick(TICK * 2);
    assert_eq!(other.take_actions(), [Action::Enter(location(0))]);
    let candidate = other.candidate();
    assert_eq!(candidate.state, State::Joining);
    one.expect(&candidate, false);
    ask(&mut one, &mut other, TICK * 2);
    let entry = one.admit(&candidate);
    other.entered(&location(0), candidate.incarnation, entry);
    assert_eq!(other.state(), State::Joining);
}

/// The network waits for it, but it has forgotten what it would have kept for one of the members.
#[test]
fn must_come_back_with_nothing_to_one_that_it_waited_for_no_more() {
    for keys_are_missing in [false, true] {
        let (mut one, mut other) = one_that_lost_one();
        if keys_are_missing {
            one.raise_alarm([(location(1), other.me().incarnation)].into());
        }
        other.refused(&location(0), one.me().incarnation);
        other.missing.clear();
        other.ticks += HOUR_TICKS;
        other.expire_the_lost();
        comes_back(&mut one, &mut other);
        assert_eq!(other.has_to_drop(), !keys_are_missing);
    }
}

#[test]
fn must_tell_a_newcomer_which_of_the_lost_are_waited_for_no_more() {
    let (mut one, _) = one_that_lost_one();
    one.ticks += HOUR_TICKS;
    one.expire_the_lost();
    one.remember_lost(location(8), 4);
    let mut newcomer = node(2, 2);
    join(&mut newcomer, &mut one);
    let expired = |number| newcomer.lost[&location(number)].expired;
    assert!(expired(1) && !expired(8));
}

/// Which of the two comes back.
fn meets(one: &mut Membership, other: &mut Membership) -> [bool; 2] {
    let now = TICK * 3;
    ask(one, other, now);
    ask(other, one, now);
    ask(one, other, now);
    [one.state(), other.state()].map(|state| state == State::Outside)
}

#[test]
fn must_come_back_to_one_that_waits_for_it_no_more_whichever_is_the_stronger() {
    for expired in 0..2 {
        let (one, other) = two_clean();
        let mut both = [one, other];
        for (node, with) in [(0, 1), (1, 0)] {
            let incarnation = both[with].me().incarnation;
            both[node].refused(&location(with as u16), incarnation);
            both[node].missing.clear();
        }
        both[expired].ticks += HOUR_TICKS;
        both[expired].expire_the_lost();
        // It stood still: otherwise it would come back.
        both[expired].slept_until = u64::MAX;
        let [one, other] = &mut both;
        let comes_back = meets(one, other);
        assert_eq!(comes_back, [expired == 1, expired == 0]);
    }
}

#[test]
fn must_drop_what_it_has_when_one_that_it_was_with_is_waited_for_no_more() {
    for was_with in [true, false] {
        let (one, mut other) = two_clean();
        let gone = Member {
            location: location(7),
            state: State::Full,
            incarnation: 4,
        };
        if was_with {
            other.take_in(gone.clone());
        }
        other.begin_anew(true, vec![location(0)]);
        let candidate = other.candidate();
        let entry = Entry::Admitted {
            members: vec![one.me(), candidate.clone()],
            lost: Vec::new(),
            missing: Vec::new(),
            expired: vec![gone],
            floor: 0,
        };
        other.entered(&location(0), candidate.incarnation, entry);
        assert_eq!(other.has_to_drop(), was_with);
        assert_eq!(other.state() == State::Returning, !was_with);
    }
}

#[test]
fn must_drop_nothing_for_one_that_it_did_not_know() {
    let (one, mut other) = two_clean();
    let life = other.me();
    other.begin_anew(true, vec![location(0)]);
    let candidate = other.candidate();
    let admitted = Entry::Admitted {
        members: vec![one.me(), candidate.clone()],
        lost: Vec::new(),
        missing: Vec::new(),
        expired: vec![life],
        floor: 0,
    };
    let outside = Entry::Outside(vec![location(9)]);
    other.entered(&location(0), candidate.incarnation, outside);
    for entry in [Entry::Expired, admitted] {
        other.entered(&location(9), candidate.incarnation, entry);
        assert!(!other.has_to_drop());
        assert_eq!(other.state(), State::Outside);
    }
    // The one that it knew may name another one.
    let refer = Entry::Refer(location(9));
    other.entered(&location(0), candidate.incarnation, refer);
    other.entered(&location(9), candidate.incarnation, Entry::Expired);
    assert!(other.has_to_drop());
}

#[test]
fn must_come_back_with_nothing_when_it_was_joining() {
    let (mut one, mut other) = (first(2), node(1, 2));
    join(&mut other, &mut one);
    assert_eq!(other.state(), State::Joining);
    other.begin_anew(false, vec![location(0)]);
    assert!(other.has_to_drop());
    // A question to come in was on its way already.
    let entry = Entry::Admitted {
        members: vec![one.me(), other.candidate()],
        lost: Vec::new(),
        missing: Vec::new(),
        expired: Vec::new(),
        floor: 0,
    };
    other.take_actions();
    other.entered(&location(0), other.incarnation, entry);
    assert_eq!(other.state(), State::Outside);
    other.tick(TICK);
    assert_eq!(other.take_actions(), []);
}

#[test]
fn must_miss_those_that_it_knew_if_it_comes_back_to_nobody() {
    let (mut one, _) = two_full(1);
    one.note_safety();
    one.begin_anew(true, vec![location(1)]);
    let outside = Entry::Outside(Vec::new());
    one.entered(&location(1), one.incarnation, outside);
    assert_eq!(one.state(), State::Full);
    one.tick(TICK);
    assert_eq!(one.alarm(), [location(1)]);
}

#[test]
fn must_drop_nothing_for_a_stranger_that_says_that_it_has_lost_it() {
    let (mut one, _) = two_clean();
    let stranger = location(9);
    let asked = one.question(TICK, &stranger);
    let reply = Reply {
        me: Member {
            location: stranger.clone(),
            state: State::Full,
            incarnation: 4,
        },
        you: Standing::Lost(one.incarnation),
        granted: Vec::new(),
        digest: 0,
        side: Some(Side {
            confirmed: 1000,
            first: stranger,
            slept: false,
            expired: true,
        }),
        members: None,
        missing: None,
        floor: 0,
        clean: false,
    };
    one.answered(TICK, &asked, &reply);
    assert_eq!(one.candidate().state, State::Returning);
    one.entered(&location(9), one.incarnation, Entry::Expired);
    assert!(!one.has_to_drop());
    one.entered(&location(1), one.incarnation, Entry::Expired);
    assert!(one.has_to_drop());
}

#[test]
fn must_know_members_and_those_that_left() {
    let (mut one, other) = two_clean();
    let caller = Caller {
        me: other.me(),
        token: one.token_for(&location(1)),
    };
    assert!(one.is_known(&caller));
    let forged = Caller {
        token: 1,
        ..caller.clone()
    };
    assert!(!one.is_known(&forged));
    let stranger = Caller {
        me: Member {
            location: location(9),
            ..other.me()
        },
        token: one.token_for(&location(9)),
    };
    assert!(!one.is_known(&stranger));
    one.lose(&location(1), true);
    assert!(one.is_known(&caller));
    let later = Caller {
        me: Member {
            incarnation: 3,
            ..other.me()
        },
        ..caller
    };
    assert!(!one.is_known(&later));
}

#[test]
fn must_look_for_its_network_as_long_as_at_first_when_it_was_joining() {
    let (mut one, mut other) = (first(2), node(1, 2));
    join(&mut other, &mut one);
    let mut now = Duration::ZERO;
    for _ in 0..100 {
        now += TICK;
        ask(&mut other, &mut one, now);
        other.tick(now);
    }
    other.begin_anew(false, vec![location(0)]);
    other.dropped();
    other.take_actions();
    other.tick(now + TICK);
    let actions = other.take_actions();
    assert_eq!(actions, [Action::Enter(location(0))]);
}

/// What a node has may come from a life that was a member before the one that it knew last.
#[test]
fn must_come_back_with_nothing_if_a_life_is_given_up_that_it_was_with_once() {
    let (mut one, other) = two_full(2);
    let first = other.me();
    let mut again = node(1, 2);
    again.draw_incarnation(true);
    let second = again.me();
    one.lose(&first.location, false);
    one.take_in(Member {
        state: State::Returning,
        ..second
    });
    one.begin_anew(true, vec![location(3)]);
    let members = vec![one.candidate()];
    let admitted = |expired| Entry::Admitted {
        members: members.clone(),
        lost: Vec::new(),
        missing: Vec::new(),
        expired,
        floor: 0,
    };
    one.entered(&location(3), one.incarnation, admitted(vec![first]));
    assert_eq!(one.state(), State::Outside);
    assert!(one.has_to_drop());
}
