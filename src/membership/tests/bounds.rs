//! Whatever grows because of others has a bound.

use super::*;
use crate::membership::clean::{EXPIRED_MAX, PAST_MAX};
use crate::membership::token::TOKENS_MAX;

impl Membership {
    /// Whatever others have said.
    pub(crate) fn must_be_bounded(&self) {
        let mut lengths = vec![
            ("left", self.left.len(), LEFT_MAX),
            ("lost", self.lost.len(), LOST_MAX),
            ("past", self.past.len(), PAST_MAX),
            ("expired", self.expired.len(), EXPIRED_MAX),
            ("given up", self.given_up.len(), LOST_MAX),
            ("alarm", self.alarm.len(), ALARM_MAX),
            ("missing", self.missing.len(), MEMBERS_MAX),
            ("replaced", self.replaced.len(), ALARM_MAX + MEMBERS_MAX),
            ("since", self.since.members().len(), MEMBERS_MAX),
            ("named", self.named.len(), NAMED_MAX),
            ("news", self.news.len(), NEWS_MAX),
            ("view", self.view.members().len(), MEMBERS_MAX),
            ("tokens", self.tokens.len(), self.peers.len() + TOKENS_MAX),
        ];
        for peer in self.peers.values() {
            lengths.push(("ranges", peer.lease.1.len(), RANGES_MAX));
        }
        for (name, length, most) in lengths {
            assert!(length <= most, "{name}: {length}");
        }
        let ours: Vec<_> = self.others().map(|member| &member.location).collect();
        let peers: Vec<_> = self.peers.keys().collect();
        assert_eq!(ours, peers, "members of ours, and peers");
    }
}

/// Far more than any of the bounds.
const MANY: u16 = 3000;

fn life(number: u16, state: State) -> Member {
    Member {
        location: location(2 + number),
        state,
        incarnation: 8,
    }
}

/// What there is a bound on: a name, what makes it grow, how long it is, and the bound.
type Bounded = (
    &'static str,
    fn(&mut Membership, u16),
    fn(&Membership) -> usize,
    usize,
);

#[test]
fn must_bound_what_it_remembers_of_others() {
    let all: [Bounded; 7] = [
        (
            "left",
            |node, number| node.hear_left(&[life(number, State::Left)]),
            |node| node.left.len(),
            LEFT_MAX,
        ),
        (
            "lost",
            |node, number| node.remember_lost(location(2 + number), 8),
            |node| node.lost.len(),
            LOST_MAX,
        ),
        (
            "past",
            |node, number| {
                node.take_in(life(number, State::Joining));
                node.refused(&location(2 + number), 8);
            },
            |node| node.past.len(),
            PAST_MAX,
        ),
        (
            "expired",
            |node, number| node.note_expired(life(number, State::Left)),
            |node| node.expired.len(),
            EXPIRED_MAX,
        ),
        (
            "given up",
            |node, number| {
                node.missing.insert(location(2 + number), 8);
                node.accept_loss();
            },
            |node| node.given_up.len(),
            LOST_MAX,
        ),
        (
            "alarm",
            |node, number| node.hear_missing(&[life(number, State::Left)]),
            |node| node.alarm.len(),
            ALARM_MAX,
        ),
        (
            "named",
            |node, number| node.name(&life(number, State::Full), true),
            |node| node.named.len(),
            NAMED_MAX,
        ),
    ];
    for (name, grow, length, most) in all {
        let (mut one, _) = two_full(1);
        for number in 0..MANY {
            grow(&mut one, number);
            let length = length(&one);
            assert!(length <= most, "{name}: {length}");
        }
        assert_eq!(length(&one), most, "{name}");
    }
}

#[test]
fn must_look_into_few_differences_at_a_time() {
    let (mut one, _) = two_full(1);
    let members: Vec<_> = (0..MANY).map(|number| life(number, State::Full)).collect();
    let originals = members.iter().map(|m| Member::original(m.location.clone()));
    for list in [members.clone(), originals.collect()] {
        one.take_actions();
        one.learn(&list);
        let actions = one.take_actions().into_iter();
        let about = actions.filter(|action| matches!(action, Action::Ask(_) | Action::Meet(_)));
        assert_eq!(about.count(), DIFFERENCES_MAX);
    }
}

/// In a question, as lost, and in an answer, as a member in another life.
#[test]
fn must_ask_a_member_once_however_often_it_is_named() {
    const TIMES: usize = 500_000;
    let (mut one, mut other) = two_full(2);
    let third = life(0, State::Full);
    one.take_in(third.clone());
    let asks_of = |node: &mut Membership| {
        let actions = node.take_actions().into_iter();
        actions
            .filter(|action| *action == Action::Ask(third.location.clone()))
            .count()
    };
    let mut asked = other.question(TICK, &location(0));
    asked.question.lost = vec![third.location.clone(); TIMES];
    one.asking.clear();
    one.take_actions();
    one.answer(TICK, &asked.question);
    assert_eq!(asks_of(&mut one), 1);
    one.asking.clear();
    let asked = one.question(TICK, &location(1));
    let mut reply = other.answer(TICK, &asked.question);
    let another = Member {
        incarnation: third.incarnation + 2,
        ..third.clone()
    };
    reply.members = Some(vec![another; TIMES]);
    one.answered(TICK, &asked, &reply);
    assert_eq!(asks_of(&mut one), 1);
}

fn so_many(count: usize) -> Vec<Member> {
    let name =
        |number: usize| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    let members = (0..count).map(|number| Member {
        location: Location::new(&name(number), 9900).unwrap(),
        state: State::Full,
        incarnation: 8,
    });
    members.collect()
}

/// Backwards, which would be the slowest order to take them in one by one.
#[test]
fn must_not_come_into_a_network_of_more_members_than_there_may_be() {
    for (count, state) in [
        (MEMBERS_MAX, State::Outside),
        (MEMBERS_MAX - 1, State::Joining),
    ] {
        let mut newcomer = node(1, 2);
        newcomer.start(&[location(0)], false);
        let mut members = so_many(count);
        members.push(newcomer.candidate());
        members.reverse();
        enter(&mut newcomer, 0, members);
        assert_eq!(newcomer.state(), state, "{count}");
    }
}

#[test]
fn must_have_no_more_members_than_there_may_be() {
    let (mut one, _) = two_full(2);
    let mut view = View::default();
    let mut members = so_many(MEMBERS_MAX - 1);
    members.push(one.me());
    members.sort_by(|one, other| one.location.cmp(&other.location));
    members.into_iter().for_each(|member| view.insert(member));
    one.view = Arc::new(view);
    one.add_original(location(1));
    one.take_in(life(2, State::Joining));
    assert_eq!(one.view().members().len(), MEMBERS_MAX);
    // Nor are more remembered that became full, if they are lost again and again.
    one.since = one.view.clone();
    let goes = one.others().next().cloned().unwrap();
    one.lose(&goes.location, false);
    one.take_in(life(3, State::Full));
    assert_eq!(one.view().members().len(), MEMBERS_MAX);
    assert_eq!(one.since.members().len(), MEMBERS_MAX);
}

/// If there are many, it remembers those behind its own name: each node other ones.
#[test]
fn must_remember_those_that_it_knew_when_it_comes_back() {
    let (mut one, _) = two_full(1);
    for number in 2..LOST_MAX as u16 {
        one.take_in(full(number, 8));
    }
    let mut others: Vec<_> = (2..LOST_MAX as u16).map(location).collect();
    others.sort_unstable();
    let own = others.partition_point(|other| *other < one.location);
    let mut behind: Vec<_> = others.iter().cycle().skip(own).take(LOST_MAX / 2).collect();
    behind.sort_unstable();
    for comes_back_empty in [false, true] {
        one.come_back(&[full(1, 8)], true);
        if comes_back_empty {
            one.entered(&location(1), one.incarnation, Entry::Expired);
            one.dropped();
        }
        let mut me = one.me();
        me.state = State::Returning;
        enter(&mut one, 1, vec![full(1, 8), me]);
        assert!(one.lost().eq(behind.iter().copied()));
    }
}
