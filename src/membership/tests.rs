//! The rules that one node keeps, each shown with the fewest nodes. What follows from them together is
//! shown by `tests/model.rs` and the simulation.

mod accepted;
mod bounds;
mod clean;
mod lies;
mod loss;

use super::*;

const TICK: Duration = Duration::from_millis(500);

fn location(number: u16) -> Location {
    Location::new("127.0.0.1", 9900 + number).unwrap()
}

fn node(number: u16, copies: usize) -> Membership {
    let rules = Rules { copies, tick: TICK };
    let secret = u64::from(number);
    let random = Random::new(secret);
    Membership::new(location(number), rules, random, secret, Duration::ZERO)
}

fn full(number: u16, incarnation: i64) -> Member {
    Member {
        location: location(number),
        state: State::Full,
        incarnation,
    }
}

/// A member of a network lets it in there.
fn enter(one: &mut Membership, from: u16, members: Vec<Member>) {
    let entry = Entry::Admitted {
        members,
        lost: Vec::new(),
        missing: Vec::new(),
        expired: Vec::new(),
        floor: 0,
    };
    one.entered(&location(from), one.incarnation, entry);
}

/// A network of one.
fn first(copies: usize) -> Membership {
    let mut node = node(0, copies);
    node.start(&[], true);
    node
}

/// One asks another, which answers at once.
fn ask(one: &mut Membership, other: &mut Membership, now: Duration) {
    let asked = one.question(now, &other.location.clone());
    let reply = other.answer(now, &asked.question);
    one.answered(now, &asked, &reply);
}

/// Has a node let in by the gatekeeper of a network; its announcement is heard by that one alone.
fn join(newcomer: &mut Membership, gatekeeper: &mut Membership) {
    newcomer.start(std::slice::from_ref(&gatekeeper.location), false);
    let candidate = newcomer.candidate();
    assert!(gatekeeper.enter(&candidate).is_err(), "it is to be reached");
    gatekeeper.expect(&candidate, false);
    ask(gatekeeper, newcomer, Duration::ZERO);
    let entry = gatekeeper.admit(&candidate);
    let from = gatekeeper.location.clone();
    newcomer.entered(&from, candidate.incarnation, entry);
    ask(newcomer, gatekeeper, Duration::ZERO);
}

/// Has it be full, as far as the other one is concerned.
fn fill(newcomer: &mut Membership, other: &mut Membership) {
    let shared = newcomer.shared_with_life(&other.me()).unwrap();
    newcomer.done(&other.me(), shared, None);
    ask(newcomer, other, Duration::ZERO);
}

fn two_full(copies: usize) -> (Membership, Membership) {
    let (mut one, mut other) = (first(copies), node(1, copies));
    join(&mut other, &mut one);
    fill(&mut other, &mut one);
    assert_eq!((one.count_full(), other.count_full()), (2, 2));
    (one, other)
}

fn asks(node: &mut Membership, number: u16) -> bool {
    node.take_actions().contains(&Action::Ask(location(number)))
}

#[test]
fn must_let_in_only_what_has_been_reached() {
    let (mut one, mut other) = (first(2), node(1, 2));
    other.start(&[location(0)], false);
    let candidate = other.candidate();
    assert_eq!(one.admit(&candidate), Entry::Later(String::new()));
    assert!(one.view().get(&location(1)).is_none());
    join(&mut other, &mut one);
    assert_eq!(one.view().get(&location(1)), Some(&other.me()));
    assert_eq!(other.state(), State::Joining);
}

#[test]
fn must_not_forget_a_candidate_for_names_that_are_made_up() {
    let (mut one, mut other) = (first(2), node(1, 2));
    other.start(&[location(0)], false);
    let candidate = other.candidate();
    one.expect(&candidate, false);
    ask(&mut one, &mut other, Duration::ZERO);
    for number in 0..1000 {
        let made_up = Member {
            location: location(100 + number),
            ..candidate.clone()
        };
        one.expect(&made_up, false);
    }
    assert_eq!(one.named.len(), NAMED_MAX);
    assert!(one.has_reached(&candidate));
}

#[test]
fn must_have_no_more_coming_in_than_full() {
    let (mut one, mut other) = (first(2), node(1, 2));
    join(&mut other, &mut one);
    let mut third = node(2, 2);
    third.start(&[location(0)], false);
    assert_eq!(
        one.enter(&third.candidate()),
        Ok(Entry::Later(String::new()))
    );
    fill(&mut other, &mut one);
    assert!(one.enter(&third.candidate()).is_err());
}

#[test]
fn must_not_let_a_lost_life_come_back() {
    let (mut one, mut other) = two_full(2);
    let same_life = Member {
        state: State::Joining,
        ..other.me()
    };
    one.refused(&location(1), same_life.incarnation);
    ask(&mut other, &mut one, TICK);
    assert!(one.view().get(&location(1)).is_none());
    assert_eq!(one.enter(&same_life), Ok(Entry::Lost));
}

/// As a full one it would have to wait for that member as well, and others could not serve meanwhile.
#[test]
fn must_not_become_full_while_a_full_member_is_silent() {
    let ((mut one, other), mut third) = (two_full(2), node(2, 2));
    join(&mut third, &mut one);
    for now in (1..=3).map(|tick| tick * TICK) {
        third.silent(&location(1), TICK);
        third.tick(now);
    }
    for full in [&one, &other] {
        let shared = third.shared_with_life(&full.me()).unwrap();
        third.done(&full.me(), shared, None);
    }
    assert_eq!(third.state(), State::Joining);
    third.refused(&location(1), other.me().incarnation);
    assert_eq!(third.state(), State::Full);
    assert!(!third.has_taken_over());
    ask(&mut third, &mut one, 3 * TICK);
    assert!(third.has_taken_over());
}

/// Which side of a cut comes back is decided by those that stand behind each. A node asks them all if it doesn't know
/// itself, not time and again if only the other one doesn't.
#[test]
fn must_ask_those_behind_it_only_if_it_does_not_know_its_side() {
    let ((mut one, mut other), mut third) = (two_full(2), node(2, 2));
    join(&mut third, &mut one);
    third.done(&one.me(), third.shared_with_life(&one.me()).unwrap(), None);
    third.done(
        &other.me(),
        third.shared_with_life(&other.me()).unwrap(),
        None,
    );
    ask(&mut third, &mut one, Duration::ZERO);
    one.refused(&location(2), third.me().incarnation);
    third.refused(&location(0), one.me().incarnation);
    let now = 10 * TICK;
    one.doubted.clear();
    ask(&mut one, &mut third, now);
    assert_eq!(one.doubted, [location(1), location(2)].into());
    ask(&mut one, &mut other, now);
    one.doubted.clear();
    ask(&mut one, &mut third, now);
    assert_eq!(one.doubted, [location(2)].into());
}

#[test]
fn must_not_take_an_answer_of_an_earlier_life() {
    let (mut one, other) = two_full(2);
    let refused = Member {
        incarnation: other.me().incarnation + 2,
        ..other.me()
    };
    one.refused(&location(1), refused.incarnation);
    assert_eq!(one.view().get(&location(1)), Some(&other.me()));
}

#[test]
fn must_only_ask_a_node_that_others_name() {
    let (mut one, mut other) = two_full(2);
    let stranger = Member {
        location: location(7),
        state: State::Full,
        incarnation: 8,
    };
    other.take_in(stranger);
    one.take_actions();
    ask(&mut one, &mut other, TICK);
    // Heard that the views differ; then with the list.
    ask(&mut one, &mut other, TICK);
    assert!(one.view().get(&location(7)).is_none());
    assert!(asks(&mut one, 7));
}

#[test]
fn must_ask_for_few_lists_in_a_tick() {
    let mut one = first(2);
    for number in 1..=20 {
        one.take_in(Member {
            location: location(number),
            state: State::Full,
            incarnation: 8,
        });
    }
    for tick in 1..=3 {
        one.tick(TICK * tick);
        let wants = |number| {
            one.question(TICK * tick, &location(number))
                .question
                .wants_members
        };
        assert_eq!(
            (1..=20).map(wants).filter(|wants| *wants).count(),
            LISTS_MAX
        );
    }
}

#[test]
fn must_ask_those_that_a_member_has_lost_but_not_any_number() {
    let (mut one, mut other) = two_full(2);
    for number in 2..=40 {
        one.take_in(Member {
            location: location(number),
            state: State::Full,
            incarnation: 8,
        });
    }
    let mut asked = other.question(TICK, &location(0));
    asked.question.lost = (2..=40).map(location).collect();
    one.asking.clear();
    one.take_actions();
    one.answer(TICK, &asked.question);
    let asks = one.take_actions().into_iter();
    let asks = asks.filter(|action| matches!(action, Action::Ask(_)));
    assert_eq!(asks.count(), NEWS_MAX);
}

/// A hash of keys whose primary, by the view of that node, is the node itself.
fn own_hash(node: &Membership) -> (u32, u64) {
    let me = node.view.place(&node.location).unwrap();
    let copies = node.rules.copies;
    let is_own = |hash: &u32| node.view.list(*hash, copies).next() == Some(me);
    let hash = (0..1000).map(|n| n * 4_000_000).find(is_own).unwrap();
    (hash, node.view.list_digest(node.view.list(hash, copies)))
}

#[test]
fn must_decide_with_a_lease_and_as_long_as_it_lasts() {
    let (mut one, mut other) = two_full(1);
    let (hash, digest) = own_hash(&one);
    assert!(!one.may_decide(TICK, hash, digest, None));
    ask(&mut one, &mut other, TICK);
    one.tick(TICK * 4);
    assert!(one.may_decide(TICK * 4, hash, digest, None));
    one.tick(TICK * 5);
    assert!(!one.may_decide(TICK * 5, hash, digest, None));
}

/// Each of the two has a member that the other has lost, in turn.
#[test]
fn must_decide_where_the_granter_has_the_same_list_and_nowhere_else() {
    let third = Member {
        location: location(2),
        state: State::Full,
        incarnation: 8,
    };
    for loses in [0, 1] {
        let (mut one, mut other) = two_full(1);
        one.take_in(third.clone());
        other.take_in(third.clone());
        [&mut one, &mut other][loses].refused(&third.location, third.incarnation);
        ask(&mut one, &mut other, TICK);
        let me = one.view.place(&one.location).unwrap();
        let hashes = (0..4000).map(|number: u32| number * 1_073_000);
        let own = hashes.filter(|hash| one.view.list(*hash, 1).next() == Some(me));
        let mut decides = [0, 0];
        for hash in own {
            let digest = |node: &Membership, copies| {
                let list = node.view.list(hash, copies);
                node.view.list_digest(list)
            };
            let same = digest(&one, 2) == digest(&other, 2);
            let may = one.may_decide(TICK, hash, digest(&one, 1), None);
            // One that is granted by the third has asked nobody.
            assert_eq!(
                may,
                same && one.granter(&one.far(hash)).unwrap().0 == &location(1)
            );
            decides[usize::from(may)] += 1;
        }
        assert!(decides.iter().all(|count| *count > 200), "{decides:?}");
    }
}

#[test]
fn must_not_decide_by_a_list_that_is_over() {
    let (mut one, mut other) = two_full(1);
    let (hash, digest) = own_hash(&one);
    ask(&mut one, &mut other, TICK);
    assert!(one.may_decide(TICK, hash, digest, None));
    assert!(!one.may_decide(TICK, hash, digest ^ 1, None));
}

#[test]
fn must_take_a_lease_from_one_that_is_leaving() {
    let (mut one, mut other) = two_full(1);
    let (hash, _) = own_hash(&one);
    other.leave();
    ask(&mut one, &mut other, TICK);
    let digest = one.view.list_digest(one.view.list(hash, 1));
    assert_eq!(one.view().get(&location(1)).unwrap().state, State::Leaving);
    assert!(one.may_decide(TICK, hash, digest, None));
}

/// In a large network a node seldom asks most of the others.
#[test]
fn must_seem_settled_by_old_answers_as_long_as_none_is_awaited() {
    let (mut one, mut other) = two_full(2);
    ask(&mut one, &mut other, TICK);
    one.peers.get_mut(&location(1)).unwrap().synced = true;
    one.note_safety();
    assert!(one.is_settled(TICK * 2) && one.seems_settled());
    assert!(!one.is_settled(TICK * 100) && one.seems_settled());
    let asked = one.question(TICK * 100, &location(1));
    one.unanswered(TICK * 101, &asked);
    assert!(!one.seems_settled());
}

#[test]
fn must_keep_one_that_is_silent_while_it_may_hold_a_lease() {
    let (mut one, mut other) = two_full(1);
    ask(&mut other, &mut one, TICK);
    let asked = one.question(TICK, &location(1));
    one.unanswered(TICK * 2, &asked);
    for tick in 2..=SILENCE_TICKS {
        one.tick(TICK * tick);
        assert!(one.view().get(&location(1)).is_some(), "tick {tick}");
    }
    one.tick(TICK * (SILENCE_TICKS + 1));
    one.tick(TICK * (SILENCE_TICKS + 2));
    assert!(one.view().get(&location(1)).is_none());
}

/// Ticks and answers don't come in step: a question that is waited for at one tick would be put again two ticks later.
#[test]
fn must_ask_the_silent_again_once_it_has_waited() {
    let (mut one, _) = two_full(1);
    one.silent(&location(1), TICK);
    let asked = one.question(TICK, &location(1));
    one.take_actions();
    one.unanswered(TICK + TICK / 2, &asked);
    assert!(!asks(&mut one, 1), "an error that comes early");
    one.unanswered(TICK * 2, &asked);
    assert!(asks(&mut one, 1));
}

#[test]
fn must_end_when_those_that_were_to_hand_over_have_gone() {
    let (mut one, mut other) = (first(2), node(1, 2));
    join(&mut other, &mut one);
    other.take_actions();
    other.refused(&location(0), one.me().incarnation);
    assert_eq!(other.state(), State::Left);
    let ends = |action: &Action| matches!(action, Action::End(_));
    assert!(other.take_actions().iter().any(ends));
}

#[test]
fn must_not_be_settled_while_the_only_other_one_is_coming_in() {
    let (mut one, mut other) = (first(1), node(1, 1));
    join(&mut other, &mut one);
    one.leave();
    ask(&mut one, &mut other, Duration::ZERO);
    one.synced(&location(1), true);
    assert!(!one.is_settled(Duration::ZERO));
    fill(&mut other, &mut one);
    ask(&mut one, &mut other, Duration::ZERO);
    one.synced(&location(1), true);
    assert!(one.is_settled(Duration::ZERO));
}

/// Others may lack what one of them has given to the primary, and a comparison that began before says nothing of it.
#[test]
fn must_compare_again_after_it_took_in_what_it_answers_with() {
    let (mut one, other) = two_full(2);
    let with = location(1);
    let view = one.view().clone();
    let is_primary = |hash: &u32| view.list(*hash, 2).next() == view.place(&location(0));
    let mut hashes = (0..u32::MAX).step_by(1 << 20);
    let (own, theirs) = (
        hashes.clone().find(is_primary),
        hashes.find(|hash| !is_primary(hash)),
    );
    let (own, theirs) = (own.unwrap(), theirs.unwrap());
    one.synced(&with, true);
    let before = one.shared_with_life(&other.me()).unwrap();
    one.compared(&with, before);
    one.doubt_others(own, Some(&with));
    one.doubt_others(theirs, Some(&location(2)));
    assert!(one.is_synced(&with) && one.has_compared(&with, before));
    one.doubt_others(own, Some(&location(2)));
    let now = one.shared_with_life(&other.me()).unwrap();
    assert!(!one.is_synced(&with) && !one.has_compared(&with, now));
    one.done(&other.me(), before, None);
    assert!(!one.is_synced(&with));
    one.done(&other.me(), now, None);
    assert!(one.is_synced(&with));
}

/// A question in a node's name, and what anybody may have learnt of that node; with a token that anybody may have.
fn forged(of: &Membership, to: &Membership, state: State) -> Question {
    let mut asker = node(7, 2);
    let mut question = asker.question(TICK, &to.location).question;
    question.caller.me = Member { state, ..of.me() };
    question.caller.token = of.token_of(&of.location).max(1);
    let Member {
        state, incarnation, ..
    } = to.me();
    question.you = Standing::Member(state, incarnation);
    question.wants_lease = true;
    question
}

#[test]
fn must_only_ask_a_node_in_whose_name_somebody_calls() {
    let (mut one, mut other) = two_full(2);
    let goodbye = forged(&other, &one, State::Left);
    one.take_actions();
    one.answer(TICK, &goodbye);
    assert_eq!(one.view().get(&location(1)), Some(&other.me()));
    assert!(asks(&mut one, 1));
    let wants_lease = forged(&other, &one, State::Full);
    assert!(!one.ties[&location(1)].grant.is_empty());
    assert!(one.answer(TICK, &wants_lease).granted.is_empty());
    assert_eq!(one.shared_with(&goodbye.caller), None);
    assert_eq!(one.shared_with(&wants_lease.caller), None);
    // The node itself is believed.
    assert!(one.shared_with(&other.caller(&location(0))).is_some());
    assert_ne!(one.peers[&location(1)].granted, Some(TICK));
    let asked = other.question(TICK, &location(0));
    assert!(!one.answer(TICK, &asked.question).granted.is_empty());
    other.leave();
    other.go();
    ask(&mut other, &mut one, TICK);
    assert!(one.view().get(&location(1)).is_none());
}

#[test]
fn must_keep_the_token_that_the_node_itself_gave() {
    let (mut one, other) = two_full(2);
    let token = one.token_of(&location(1));
    assert_eq!(token, other.token_for(&location(0)));
    let mut question = forged(&other, &one, State::Full);
    question.token = token + 1;
    one.answer(TICK, &question);
    assert_eq!(one.token_of(&location(1)), token);
    // Of one that this node has not asked yet the last one counts: should somebody have called in its name, the
    // next question that it puts itself mends it.
    let stranger = node(5, 2);
    for token in [3, 4] {
        let mut question = forged(&other, &one, State::Joining);
        question.caller.me.location = stranger.location.clone();
        question.token = token;
        one.answer(TICK, &question);
        assert_eq!(one.token_of(&stranger.location), token);
    }
}

#[test]
fn must_keep_few_tokens_of_strangers() {
    let (mut one, other) = two_full(2);
    let token = one.token_of(&location(1));
    for number in 0..3 * token::TOKENS_MAX {
        let mut question = forged(&other, &one, State::Full);
        let name = format!("10.0.{}.{}", number / 256, number % 256);
        question.caller.me.location = Location::new(&name, 9900).unwrap();
        question.token = 1;
        one.answer(TICK, &question);
        assert!(one.tokens.len() <= token::TOKENS_MAX + 1);
    }
    assert_eq!(one.token_of(&location(1)), token);
}
