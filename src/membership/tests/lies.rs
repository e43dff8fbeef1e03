//! What others may say that is not so.

use super::*;

/// One that others let in with these members, and itself.
fn let_in(mut members: Vec<Member>) -> Membership {
    let mut newcomer = node(0, 2);
    newcomer.start(&[location(1)], false);
    members.push(newcomer.candidate());
    enter(&mut newcomer, 1, members);
    assert_eq!(newcomer.state(), State::Joining);
    newcomer
}

/// Whatever answers at its name, or refuses there: a newcomer may have given that name as well.
#[test]
fn must_stay_in_its_own_view() {
    let (mut one, mut other) = two_full(2);
    let asked = one.question(TICK, &location(0));
    let mut reply = other.answer(TICK, &asked.question);
    reply.me = Member {
        incarnation: one.incarnation + 2,
        ..one.me()
    };
    one.answered(TICK, &asked, &reply);
    one.unasked(&asked);
    assert_eq!(one.view().get(&location(0)), Some(&one.me()));
    reply.me.state = State::Leaving;
    one.answered(TICK, &asked, &reply);
    assert_eq!(one.view().get(&location(0)), Some(&one.me()));
    reply.me = other.me();
    one.answered(TICK, &asked, &reply);
    assert_eq!(one.view().get(&location(0)), Some(&one.me()));
    assert_eq!(one.lost().count(), 0);
}

/// As one of ours and as an original: it would be a peer for ever that no answer makes a member.
#[test]
fn must_take_a_name_for_one_node() {
    let members = vec![full(1, 8), full(2, 8), Member::original(location(2))];
    for turned in [false, true] {
        let mut members = members.clone();
        if turned {
            members.reverse();
        }
        let_in(members).must_be_bounded();
    }
}

/// One of ours has taken its place: the newcomer would wait for ever to get its keys from it.
#[test]
fn must_not_wait_for_an_original_in_whose_place_another_node_is() {
    let mut newcomer = let_in(vec![full(1, 8), Member::original(location(2))]);
    assert_eq!(newcomer.unmet_originals().count(), 1);
    let asked = newcomer.question(TICK, &location(2));
    let mut reply = node(2, 2).answer(TICK, &asked.question);
    reply.me = full(2, 8);
    newcomer.answered(TICK, &asked, &reply);
    assert_eq!(newcomer.unmet_originals().count(), 0);
}

/// One that looks for its network does so for as long as it takes.
#[test]
fn must_bound_whom_it_trusts_as_others_refer_to_them() {
    let (mut one, _) = two_full(2);
    one.begin_anew(true, vec![location(1)]);
    let incarnation = one.incarnation;
    for number in 0..MEMBERS_MAX + 5 {
        let name = format!("h{number}");
        let entry = Entry::Refer(Location::new(&name, 1).unwrap());
        one.entered(&location(1), incarnation, entry);
        one.take_actions();
    }
    let Life::Outside(search) = &one.life else {
        panic!("it is in a network");
    };
    assert_eq!(search.trusted.len(), MEMBERS_MAX);
}
