//! What was lost together, and which nodes say so for how long.

use super::*;

/// One of two that was equal with the other one and these.
pub(super) fn one_beside(numbers: std::ops::Range<u16>) -> Membership {
    let (mut one, _) = two_full(2);
    numbers.for_each(|number| one.take_in(full(number, 2)));
    sync(&mut one);
    one
}

pub(super) fn sync(one: &mut Membership) {
    let others: Vec<_> = one.others().map(|member| member.location.clone()).collect();
    others.iter().for_each(|other| one.synced(other, true));
}

/// It has lost both of these, as it was equal with them.
pub(super) fn one_that_lost_two() -> Membership {
    let mut one = one_beside(2..4);
    (2..4).for_each(|number| one.refused(&location(number), 2));
    one
}

#[test]
fn must_note_what_was_lost_together() {
    let (mut one, mut other) = two_full(1);
    one.synced(&location(1), true);
    assert_eq!(one.alarm(), []);
    // It begins to leave and is gone: what it had is, too.
    other.leave();
    ask(&mut one, &mut other, TICK);
    one.refused(&location(1), other.me().incarnation);
    assert_eq!(one.alarm(), [location(1)]);
    one.accept_loss();
    assert_eq!(one.alarm(), []);
}

/// What a node has handed to one that came in is lost with it, whatever the node itself had when all was safe.
#[test]
fn must_note_what_was_lost_with_one_that_came_in() {
    let (mut one, _) = two_full(2);
    one.synced(&location(1), true);
    one.take_in(full(2, 2));
    let known = one.view().get(&location(1)).unwrap().incarnation;
    one.refused(&location(1), known);
    assert_eq!(one.alarm(), []);
    one.refused(&location(2), 2);
    assert_eq!(one.alarm(), [location(1), location(2)]);
}

/// What it had is at those that are next, and lost with them.
#[test]
fn must_note_what_was_lost_after_one_has_left() {
    const COPIES: usize = 3;
    let member = |number| Member {
        location: location(number),
        state: State::Full,
        incarnation: 2,
    };
    let mut one = first(COPIES);
    (1..12).for_each(|number| one.take_in(member(number)));
    (1..12).for_each(|number| one.synced(&location(number), true));
    let before = one.view().clone();
    // Three that have a range together only once another one has left.
    let lists = |view: &View| -> BTreeSet<BTreeSet<Location>> {
        let names = |list: Vec<usize>| {
            list.into_iter()
                .map(|place| view.members()[place].location.clone())
        };
        view.lists(COPIES)
            .map(|list| names(list).collect())
            .collect()
    };
    let found = (1..12).find_map(|leaver| {
        let mut after = View::clone(&before);
        after.remove(&location(leaver));
        let mut new = lists(&after)
            .difference(&lists(&before))
            .cloned()
            .collect::<Vec<_>>();
        new.retain(|list| !list.contains(&location(0)));
        Some((leaver, new.pop()?))
    });
    let (leaver, together) = found.unwrap();
    let left = Member {
        state: State::Left,
        ..member(leaver)
    };
    one.hear_left(&[left]);
    for (lost, name) in together.iter().enumerate() {
        assert!(one.alarm().is_empty(), "{lost} are lost");
        one.refused(name, 2);
    }
    assert_eq!(one.alarm(), together.into_iter().collect::<Vec<_>>());
}

/// Lets one in beside four full members.
fn let_in_beside_four() -> Membership {
    let mut newcomer = node(0, 2);
    newcomer.start(&[location(1)], false);
    let candidate = newcomer.candidate();
    let mut members: Vec<_> = (1..5).map(|number| full(number, 2)).collect();
    members.push(candidate.clone());
    enter(&mut newcomer, 1, members);
    newcomer
}

fn is_done_with(newcomer: &mut Membership, numbers: std::ops::Range<u16>) {
    for other in numbers.map(|number| full(number, 2)) {
        let shared = newcomer.shared_with_life(&other).unwrap();
        newcomer.done(&other, shared, None);
    }
}

/// What was lost before it had compared with anybody is at those with which it compares then. They may have been equal
/// without it before the next one is lost.
#[test]
fn must_not_note_what_was_lost_before_it_had_anything() {
    let mut newcomer = let_in_beside_four();
    newcomer.refused(&location(1), 2);
    is_done_with(&mut newcomer, 2..5);
    assert_eq!(newcomer.state(), State::Full);
    newcomer.refused(&location(2), 2);
    assert_eq!(newcomer.alarm(), []);
    newcomer.refused(&location(3), 2);
    assert_eq!(newcomer.alarm(), [2, 3].map(location));
}

/// Beside originals it is full though nobody was left to give it anything.
#[test]
fn must_note_the_loss_of_all_of_ours_beside_an_original() {
    let mut newcomer = node(0, 1);
    newcomer.start(&[location(1)], false);
    let members = [
        full(1, 2),
        Member::original(location(2)),
        newcomer.candidate(),
    ];
    enter(&mut newcomer, 1, members.into());
    newcomer.unmet.clear();
    newcomer.refused(&location(1), 2);
    assert_eq!(newcomer.state(), State::Full);
    assert_eq!(newcomer.alarm(), [location(1)]);
}

/// Nor do originals keep what was lost before it had begun.
#[test]
fn must_note_all_that_was_lost_beside_an_original() {
    let mut newcomer = node(0, 2);
    newcomer.start(&[location(1)], false);
    let leaving = Member {
        state: State::Leaving,
        ..full(3, 2)
    };
    let mut members = vec![full(1, 2), full(2, 2), leaving.clone()];
    members.extend([Member::original(location(4)), newcomer.candidate()]);
    enter(&mut newcomer, 1, members);
    newcomer.refused(&location(1), 2);
    let shared = newcomer.shared_with_life(&leaving).unwrap();
    newcomer.done(&leaving, shared, None);
    newcomer.unmet.clear();
    newcomer.lose(&location(3), true);
    newcomer.refused(&location(2), 2);
    assert_eq!(newcomer.state(), State::Full);
    assert_eq!(newcomer.alarm(), [1, 2].map(location));
}

/// What one of two had when it compared with the other one, it may not have yet; and nobody else may be a replica of that.
#[test]
fn must_note_what_was_lost_before_it_was_full() {
    let mut newcomer = let_in_beside_four();
    is_done_with(&mut newcomer, 2..5);
    newcomer.refused(&location(1), 2);
    assert_eq!(newcomer.state(), State::Full);
    newcomer.synced(&location(4), true);
    (2..4).for_each(|number| newcomer.refused(&location(number), 2));
    assert_eq!(newcomer.alarm(), [1, 2, 3].map(location));
}

/// A network of two, whose third and fourth members were lost together.
pub(super) fn two_that_lost_two() -> (Membership, Membership, Vec<Member>) {
    let (mut one, mut other) = two_full(1);
    let lives = |numbers: [u16; 2]| {
        numbers.map(|number| Member {
            location: location(number),
            state: State::Left,
            incarnation: 2,
        })
    };
    let missing = lives([2, 3]);
    one.hear_missing(&missing);
    assert_eq!(one.alarm(), [location(2), location(3)]);
    ask(&mut other, &mut one, TICK);
    assert_eq!(other.alarm(), one.alarm());
    (one, other, missing.into())
}

#[test]
fn must_hand_an_alarm_on_until_one_returns() {
    let (mut one, mut other, missing) = two_that_lost_two();
    let returned = Member {
        location: location(3),
        state: State::Full,
        incarnation: 5,
    };
    one.take_in(returned);
    assert_eq!(one.alarm(), []);
    // The other one has not heard of it.
    ask(&mut one, &mut other, TICK * 2);
    assert_eq!(one.alarm(), []);
    let restarted = Member {
        location: location(3),
        state: State::Full,
        incarnation: 6,
    };
    other.take_in(restarted);
    assert_eq!(other.alarm().len(), missing.len(), "it had nothing");
}

/// One that has begun anew, with nothing, comes back with no more than it got since.
#[test]
fn must_not_end_an_alarm_for_one_that_was_restarted_and_returns() {
    let (mut one, ..) = two_that_lost_two();
    let both = [location(2), location(3)];
    one.take_in(full(3, 6));
    assert_eq!(one.alarm(), both);
    one.refused(&location(3), 6);
    assert_eq!(one.alarm(), both);
    one.take_in(full(3, 7));
    assert_eq!(one.alarm(), both);
    one.hear_left(&[Member {
        state: State::Left,
        ..full(3, 6)
    }]);
    assert_eq!(one.alarm(), both, "that was not the one that is missing");
}

/// One that comes in later hears of it as it is: the one that returned is no reason not to take up the alarm.
#[test]
fn must_hear_which_one_was_restarted_and_returned() {
    let (mut one, ..) = two_that_lost_two();
    one.take_in(full(3, 6));
    one.refused(&location(3), 6);
    one.take_in(full(3, 7));
    let both = [location(2), location(3)];
    assert_eq!(one.alarm(), both);
    let mut newcomer = node(4, 2);
    join(&mut newcomer, &mut one);
    assert_eq!(newcomer.alarm(), both);
    // Nor is it, as it is heard of again, if this one knows more of the other.
    newcomer.take_in(Member {
        location: location(2),
        state: State::Full,
        incarnation: 9,
    });
    assert_eq!(newcomer.alarm(), []);
    ask(&mut newcomer, &mut one, TICK);
    assert_eq!(newcomer.alarm(), []);
}

/// What was lost with it before is still to be looked for.
#[test]
fn must_not_forget_at_the_end_of_an_alarm_which_one_was_restarted() {
    let (mut one, _) = two_full(2);
    (2..6).for_each(|number| one.take_in(full(number, 2)));
    (1..6).for_each(|number| one.synced(&location(number), true));
    (2..6).for_each(|number| one.refused(&location(number), 2));
    let all: Vec<_> = (2..6).map(location).collect();
    assert_eq!(one.alarm(), all);
    one.take_in(full(2, 4));
    one.refused(&location(2), 4);
    one.take_in(full(2, 5));
    assert_eq!(one.alarm(), all, "it was restarted");
    // The others are still lost together with it.
    one.take_in(full(3, 3));
    assert_eq!(one.alarm(), [2, 4, 5].map(location));
    one.take_in(full(2, 7));
    assert_eq!(one.alarm(), [2, 4, 5].map(location));
}

/// It begins a network with its items: none of the others, of which there were fewer than so many, is there.
pub(super) fn begin_alone(one: &mut Membership, nodes: u16) {
    one.begin_anew(true, vec![location(1)]);
    let mut time = Duration::ZERO;
    while !one.state().holds_all() {
        (1..nodes).for_each(|number| one.entry_refused(&location(number)));
        time += TICK;
        one.tick(time);
    }
}

/// What it had is all that there is, and those that went without it may have had more.
#[test]
fn must_note_what_was_lost_while_it_was_outside() {
    let (mut one, _) = two_full(2);
    one.synced(&location(1), true);
    one.take_in(full(2, 2));
    begin_alone(&mut one, 3);
    assert_eq!(one.alarm(), [location(1), location(2)]);
    assert!(!one.alarm.is_empty(), "it is raised");
    // One of them comes back.
    one.take_in(Member {
        location: location(2),
        state: State::Full,
        incarnation: 5,
    });
    assert_eq!(one.alarm(), []);
}

#[test]
fn must_end_an_alarm_for_one_that_returned_and_leaves() {
    let (mut one, ..) = two_that_lost_two();
    one.take_in(Member {
        location: location(3),
        state: State::Leaving,
        incarnation: 5,
    });
    assert_eq!(one.alarm(), []);
}

/// Which number is greater says nothing of lives.
#[test]
fn must_not_miss_one_that_was_restarted_and_is_full() {
    for restarted in [4, 8] {
        let (mut one, _) = two_full(2);
        one.synced(&location(1), true);
        let life = |number, incarnation| Member {
            location: location(number),
            state: State::Full,
            incarnation,
        };
        one.take_in(life(2, 6));
        one.synced(&location(2), true);
        one.refused(&location(2), 6);
        one.take_in(life(2, restarted));
        one.take_in(life(3, 2));
        one.refused(&location(3), 2);
        assert_eq!(one.alarm(), [], "{restarted}");
        one.refused(&location(2), restarted);
        assert_eq!(one.alarm(), [location(2), location(3)]);
        // Raised at once: those that become full later are on other lists.
        assert!(!one.alarm.is_empty());
    }
}

/// That an earlier life was replaced says nothing of the one that is missing now.
#[test]
fn must_end_an_alarm_for_one_that_returns_though_it_was_restarted_before() {
    let mut one = one_that_lost_two();
    one.accept_loss();
    // One of them is restarted, and lost again with what it has now.
    one.take_in(full(2, 4));
    one.take_in(full(3, 4));
    (2..4).for_each(|number| one.refused(&location(number), 4));
    assert_eq!(one.alarm(), [2, 3].map(location));
    one.take_in(full(2, 5));
    assert_eq!(one.alarm(), []);
}

/// Those that have not heard its goodbye hear of it from those that have.
#[test]
fn must_end_an_alarm_for_one_that_returns_and_goes_at_once() {
    let (mut one, mut other, _) = two_that_lost_two();
    one.take_in(Member {
        state: State::Returning,
        ..full(3, 5)
    });
    assert_eq!(one.alarm(), [2, 3].map(location));
    one.lose(&location(3), true);
    assert_eq!(one.alarm(), []);
    // The other one still says so.
    ask(&mut one, &mut other, TICK * 2);
    assert_eq!(one.alarm(), []);
    other.hear_left(one.left());
    assert_eq!(other.alarm(), []);
}

/// One that was restarted, and has become full, has what there was: that is missing with it, if it is lost again.
#[test]
fn must_end_an_alarm_for_one_that_was_full_again_before_it_was_lost_and_returns() {
    let mut one = one_beside(2..4);
    one.refused(&location(2), 2);
    one.take_in(full(2, 4));
    one.refused(&location(2), 4);
    one.refused(&location(3), 2);
    assert_eq!(one.alarm(), [2, 3].map(location));
    one.take_in(full(2, 5));
    assert_eq!(one.alarm(), []);
}

/// A node that has heard of the goodbye is right, and those that say otherwise are told.
#[test]
fn must_not_hear_that_one_is_missing_that_has_left() {
    let (mut one, mut other, missing) = two_that_lost_two();
    one.hear_left(&missing[..1]);
    assert_eq!(one.alarm(), []);
    ask(&mut one, &mut other, TICK * 2);
    assert_eq!(one.alarm(), []);
}

/// One that looked for its network, and began it anew, still knows which of the others was restarted.
#[test]
fn must_remember_outside_which_one_was_restarted() {
    let mut one = one_that_lost_two();
    one.take_in(full(2, 4));
    assert_eq!(one.alarm(), [2, 3].map(location));
    begin_alone(&mut one, 4);
    one.take_in(full(1, 3));
    one.take_in(full(2, 5));
    assert_eq!(one.alarm(), [2, 3].map(location));
}

#[test]
fn must_bound_what_was_lost_together() {
    let (mut one, _) = two_full(1);
    let lost = |number: u16| Member {
        location: location(2 + number),
        state: State::Left,
        incarnation: 2,
    };
    one.hear_missing(&(0..3000).map(lost).collect::<Vec<_>>());
    assert_eq!(one.alarm().len(), ALARM_MAX);
}

/// What it had it has handed to those that it still had, which may be lost to this node as well.
#[test]
fn must_not_take_the_goodbye_of_one_that_has_lost_it() {
    let (mut one, mut other) = two_full(1);
    one.synced(&location(1), true);
    other.refused(&location(0), one.me().incarnation);
    other.leave();
    other.go();
    ask(&mut one, &mut other, TICK);
    assert!(one.view().get(&location(1)).is_none());
    assert_eq!(one.alarm(), [location(1)]);
}
