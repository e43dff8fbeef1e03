//! What others may say that is not so.

use super::*;

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
    reply.me = other.me();
    one.answered(TICK, &asked, &reply);
    assert_eq!(one.view().get(&location(0)), Some(&one.me()));
    assert_eq!(one.lost().count(), 0);
}
