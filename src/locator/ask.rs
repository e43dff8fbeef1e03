//! Calling members: the questions that membership wants put, and whatever else they are called for. What an answer,
//! a refusal or silence says of them goes back to membership.

use std::time::Duration;

use crate::location::Location;
use crate::membership::{Action, Asked, Member};
use crate::net::{Answer, CallError, Event, Level, Request};

use super::calls::{read_answer, request_of};
use super::{ANSWER_TICKS, ENTER_TICKS, Inner, Locator, SILENT_MAX};

impl Locator {
    /// Puts the questions that are due: to nodes that were silent when asked last, or to the others.
    pub fn ask(&self, silent: bool) {
        let due = {
            let mut inner = self.lock();
            let Inner {
                to_ask,
                silent: those,
                ..
            } = &mut *inner;
            let is_due = |action: &mut Action| match action {
                Action::Ask(to) | Action::Enter(to) => those.contains(to) == silent,
                _ => false,
            };
            to_ask.extract_if(.., is_due).collect::<Vec<_>>()
        };
        self.put_questions(due);
    }

    pub(super) fn put_questions(&self, due: Vec<Action>) {
        let (mut calls, mut asked) = (Vec::new(), Vec::new());
        let mut ticks = ANSWER_TICKS;
        for action in due {
            let (to, request, question) = match action {
                Action::Ask(to) => {
                    let question = self.with(|membership, now| membership.question(now, &to));
                    (to, request_of("ask", &question.question), Some(question))
                }
                Action::Enter(to) => {
                    ticks = ENTER_TICKS;
                    (to, self.enter_request(), None)
                }
                _ => continue,
            };
            calls.push((to, request));
            asked.push(question);
        }
        if calls.is_empty() {
            return;
        }
        let incarnation = self.me().incarnation;
        let network = &self.environment.network;
        network.call_each(&calls, self.ticks(ticks), &mut |event| {
            let Event::Answer(place, answer) = event else {
                return;
            };
            let to = &calls[place].0;
            self.note_silence(to, &answer);
            match &asked[place] {
                Some(asked) => self.take_reply(asked, answer),
                None => self.take_entry(to, incarnation, answer),
            }
        });
    }

    fn note_silence(&self, location: &Location, answer: &Answer) {
        let silent = matches!(answer, Err(CallError::Silent | CallError::Broken(_)));
        let silent = silent || matches!(answer, Err(CallError::Local(_)));
        let mut inner = self.lock();
        if !silent {
            inner.silent.remove(location);
        } else if inner.silent.len() < SILENT_MAX {
            inner.silent.insert(location.clone());
        }
    }

    pub(super) fn take_reply(&self, asked: &Asked, answer: Answer) {
        match answer.and_then(|result| read_answer(&result, "ask")) {
            Ok(reply) => self.with(|membership, now| membership.answered(now, asked, &reply)),
            Err(CallError::Refused) => self.with(|membership, _| membership.unasked(asked)),
            Err(error) => {
                if let CallError::Local(cause) = &error {
                    self.log(Level::Error, cause);
                }
                self.with(|membership, now| membership.unanswered(now, asked));
            }
        }
    }

    /// Calls members that stand in this list. What a refusal or silence says of one is noted.
    pub fn call_members(
        &self,
        calls: &[(Member, Request)],
        limit: Duration,
    ) -> Vec<Result<Vec<u8>, CallError>> {
        if calls.is_empty() {
            return Vec::new();
        }
        let made = self.with(|_, now| now);
        let to = calls.iter();
        let to: Vec<_> = to
            .map(|(member, request)| (member.location.clone(), request.clone()))
            .collect();
        let answers = self.environment.network.call_all(&to, limit);
        for ((member, request), answer) in calls.iter().zip(&answers) {
            self.note_outcome(member, request, made, answer);
        }
        answers
    }

    /// The same, but hands out the answers as they come; see [`Network::call_each`](crate::net::Network::call_each).
    pub fn call_each_member(
        &self,
        calls: &[(Member, Request)],
        limit: Duration,
        take: &mut dyn FnMut(Event),
    ) {
        let made = self.with(|_, now| now);
        let to = calls.iter();
        let to: Vec<_> = to
            .map(|(member, request)| (member.location.clone(), request.clone()))
            .collect();
        let network = &self.environment.network;
        network.call_each(&to, limit, &mut |event| {
            if let Event::Answer(place, answer) = &event {
                let (member, request) = &calls[*place];
                self.note_outcome(member, request, made, answer);
            }
            take(event);
        });
    }

    /// Calls a member, as it stands in the view.
    pub fn call_member(&self, to: &Location, request: &Request, limit: Duration) -> Answer {
        let member = self.view().get(to).cloned();
        let member = member.unwrap_or_else(|| Member::original(to.clone()));
        let mut answers = self.call_members(&[(member, request.clone())], limit);
        answers.pop().expect("BUG: an answer for each call")
    }

    /// Notes what a refusal or silence says of a member, as it stood in the view when it was called.
    pub fn note_outcome(
        &self,
        member: &Member,
        request: &Request,
        made: Duration,
        answer: &Answer,
    ) {
        match answer {
            // It was written, and has no answer.
            Ok(_) if request.oneway => {}
            Err(CallError::Refused) if member.is_ours() => self.with(|membership, _| {
                membership.refused(&member.location, member.incarnation);
            }),
            Err(CallError::Refused) => self.original_refuses(&member.location),
            answer if !member.is_ours() => self.note_original(&member.location, self.now(), answer),
            Err(CallError::Silent) if member.is_ours() => {
                self.with(|membership, _| membership.silent(&member.location, made));
            }
            _ => {}
        }
    }

    /// Puts the questions that tell of this node's state, and waits for the answers.
    pub(super) fn announce(&self) {
        let due = std::mem::take(&mut self.lock().to_ask);
        self.put_questions(due);
    }
}
