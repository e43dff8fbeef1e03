//! What is accepted as lost, and what is lost after that.

use super::loss::{begin_alone, one_beside, one_that_lost_two, sync, two_that_lost_two};
use super::*;

/// One of those that had a range has been given up; the other one had the only copies since.
#[test]
fn must_note_a_loss_together_with_one_that_was_given_up() {
    let (mut one, _) = two_full(2);
    let life = |number| Member {
        location: location(number),
        state: State::Full,
        incarnation: 2,
    };
    (2..8).for_each(|number| one.take_in(life(number)));
    (1..8).for_each(|number| one.synced(&location(number), true));
    one.refused(&location(2), 2);
    let mut lost = vec![location(2)];
    let next = |one: &Membership, gone: &[Location]| {
        let members = one.safe.members();
        let list = one.safe.lists(2).find(|list| {
            let names: Vec<_> = list.iter().map(|place| &members[*place].location).collect();
            let gone = names.iter().filter(|name| gone.contains(name)).count();
            gone == 1 && names.iter().all(|name| **name > location(1))
        });
        let list = list.expect("more ranges than two are lost");
        let mut names = list
            .into_iter()
            .map(|place| members[place].location.clone());
        names.find(|name| !gone.contains(name)).unwrap()
    };
    let second = next(&one, &lost);
    one.refused(&second, 2);
    lost.push(second);
    lost.sort();
    assert_eq!(one.alarm(), lost);
    one.accept_loss();
    assert_eq!(one.alarm(), []);
    let third = next(&one, &lost);
    one.refused(&third, 2);
    lost.push(third.clone());
    lost.sort();
    assert_eq!(one.alarm(), lost);
    one.accept_loss();
    assert_eq!(one.alarm(), []);
    let left: Vec<_> = one.others().map(|member| member.location.clone()).collect();
    for location in &left {
        one.synced(location, true);
    }
    one.note_safety();
    assert!(one.missing.is_empty(), "its loss is no news any more");
    // Another life in its place is missing like any other.
    let again = Member {
        incarnation: 4,
        location: third.clone(),
        ..life(0)
    };
    one.take_in(again);
    one.refused(&third, 4);
    assert_eq!(one.missing.get(&third), Some(&4));
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

/// However many they are, and whichever life the alarm means.
#[test]
fn must_accept_the_loss_of_all_that_are_missing() {
    const LOST: u16 = LOST_MAX as u16 + 40;
    let (mut one, _) = two_full(2);
    (2..2 + LOST).for_each(|number| one.take_in(full(number, 2)));
    sync(&mut one);
    (2..2 + LOST).for_each(|number| one.refused(&location(number), 2));
    assert!(!one.alarm().is_empty());
    one.accept_loss();
    assert_eq!(one.alarm(), []);

    let (mut one, ..) = two_that_lost_two();
    one.synced(&location(1), true);
    (2..4).for_each(|number| one.take_in(full(number, 4)));
    (2..4).for_each(|number| one.refused(&location(number), 4));
    one.accept_loss();
    assert_eq!(one.alarm(), []);
}

/// A node that was given up has come back after all, with all that the others lack.
#[test]
fn must_end_an_alarm_for_one_that_was_given_up_and_returns() {
    let mut one = one_beside(2..5);
    (2..4).for_each(|number| one.refused(&location(number), 2));
    one.accept_loss();
    one.refused(&location(4), 2);
    assert_eq!(one.alarm(), [2, 3, 4].map(location));
    (2..4).for_each(|number| one.take_in(full(number, 3)));
    assert_eq!(one.alarm(), []);
}

/// As they are there again, in that same life: another side has gone on with them.
#[test]
fn must_note_the_loss_of_members_that_were_given_up_once() {
    let mut one = one_that_lost_two();
    one.accept_loss();
    one.begin_anew(true, vec![location(1)]);
    let members = vec![full(2, 2), full(3, 2), one.candidate()];
    enter(&mut one, 1, members);
    one.change_life(Life::Full);
    (2..4).for_each(|number| one.synced(&location(number), true));
    (2..4).for_each(|number| one.refused(&location(number), 2));
    assert_eq!(one.alarm(), [2, 3].map(location));
}

/// What was accepted is missing no more, once a node in its place is full.
#[test]
fn must_not_note_the_loss_of_one_after_both_were_restored() {
    let mut one = one_that_lost_two();
    (2..4).for_each(|number| one.take_in(full(number, 4)));
    one.accept_loss();
    one.refused(&location(2), 4);
    assert_eq!(one.alarm(), []);
}

/// One that is restored has nothing of what it had together with one that was not given up.
#[test]
fn must_note_a_new_loss_though_what_was_given_up_is_restored() {
    let mut one = one_beside(2..5);
    (2..4).for_each(|number| one.refused(&location(number), 2));
    one.accept_loss();
    one.take_in(Member {
        state: State::Joining,
        ..full(2, 4)
    });
    one.refused(&location(4), 2);
    assert_eq!(one.alarm(), [2, 3, 4].map(location));
    let restored = full(2, 4);
    one.change_view(|view| view.insert(restored.clone()));
    one.note_return(&restored);
    one.take_in(full(3, 3));
    assert_eq!(one.alarm(), [2, 4].map(location));
}

#[test]
fn must_note_what_was_lost_outside_though_earlier_losses_were_accepted() {
    let mut one = one_that_lost_two();
    (2..4).for_each(|number| one.take_in(full(number, 4)));
    one.accept_loss();
    assert_eq!(one.alarm(), []);
    one.lose(&location(1), true);
    begin_alone(&mut one, 4);
    assert_eq!(one.alarm(), [2, 3].map(location));
}

/// However many losses were accepted.
#[test]
fn must_tell_of_a_new_loss_first() {
    let (mut one, _) = two_full(2);
    const MANY: u16 = ALARM_MAX as u16 + 20;
    (2..3 + MANY).for_each(|number| one.take_in(full(number, 2)));
    sync(&mut one);
    (2..2 + MANY).for_each(|number| one.refused(&location(number), 2));
    one.accept_loss();
    let last = location(2 + MANY);
    one.refused(&last, 2);
    assert_eq!(one.alarm.len(), ALARM_MAX);
    assert!(one.alarm.contains_key(&last));
}
