//! What was lost together, and who says so for how long.

use super::*;

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
    let newcomer = Member {
        location: location(2),
        state: State::Full,
        incarnation: 2,
    };
    one.take_in(newcomer);
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

/// A network of two, whose third and fourth members were lost together.
fn two_that_lost_two() -> (Membership, Membership, Vec<Member>) {
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
    let life = |incarnation| Member {
        location: location(3),
        state: State::Full,
        incarnation,
    };
    let both = [location(2), location(3)];
    one.take_in(life(6));
    assert_eq!(one.alarm(), both);
    one.refused(&location(3), 6);
    assert_eq!(one.alarm(), both);
    one.take_in(life(7));
    assert_eq!(one.alarm(), both);
    one.hear_left(&[Member {
        state: State::Left,
        ..life(6)
    }]);
    assert_eq!(one.alarm(), both, "that was not the one that is missing");
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

#[test]
fn must_not_hear_again_of_a_loss_that_was_accepted() {
    let (mut one, mut other, _) = two_that_lost_two();
    one.accept_loss();
    for time in [2, 3] {
        ask(&mut one, &mut other, TICK * time);
        assert_eq!(one.alarm(), []);
        assert!(!other.alarm().is_empty());
        one.accept_loss(); // Of nothing more.
    }
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
