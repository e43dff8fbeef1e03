//! Is every key safe now? A node's own answer.

use crate::location::Location;
use crate::membership::{Member, State};
use crate::net::CallError;
use crate::thrift::{Write, wire};

use super::calls::{no_sender, read_result, write_member};

/// The answer to `status`: is everything where it should be?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The node that answers.
    pub me: Member,
    /// Copies that are kept of each key.
    pub replicas: usize,
    /// Members of its view, itself and originals included.
    pub members: usize,
    /// Of them, those that are full and ours.
    pub full: usize,
    /// Of its view: equal for equal views.
    pub digest: u64,
    /// Items that lie here, deleted ones included.
    pub items: usize,
    /// Items that lie here and should lie elsewhere.
    pub unconfirmed: usize,
    /// Every other replica has what this node should have, by answers of late.
    pub settled: bool,
    /// Members that were lost together: keys may be missing.
    pub missing: Vec<Location>,
}

impl Status {
    /// Appends the result of `status`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let small = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        out.write_field(wire::STRUCT, 0);
        write_member(out, 1, &self.me);
        out.write_i32_field(2, small(self.replicas));
        out.write_i32_field(3, small(self.members));
        out.write_i64_field(4, self.digest.cast_signed());
        out.write_i64_field(5, number(self.items));
        out.write_i64_field(6, number(self.unconfirmed));
        out.write_bool_field(7, self.settled);
        out.write_i32_field(8, small(self.full));
        out.write_field(wire::LIST, 9);
        Location::write_list(out, self.missing.iter());
        out.write_stop();
        out.write_stop();
    }

    /// # Errors
    /// It is no result of `status`: [`CallError::Broken`].
    pub fn read(result: &[u8]) -> Result<Self, CallError> {
        read_result(result, "status", wire::STRUCT, |reader| {
            let (mut me, mut digest, mut settled) = (None, 0, false);
            let (mut replicas, mut members, mut full) = (0, 0, 0);
            let (mut items, mut unconfirmed, mut missing) = (0, 0, Vec::new());
            reader.each_field(|id, kind, reader| {
                match (id, kind) {
                    (1, wire::STRUCT) => me = Member::read(reader)?,
                    (2, wire::I32) => replicas = usize::try_from(reader.i32()?).unwrap_or(0),
                    (3, wire::I32) => members = usize::try_from(reader.i32()?).unwrap_or(0),
                    (4, wire::I64) => digest = reader.i64()?.cast_unsigned(),
                    (5, wire::I64) => items = usize::try_from(reader.i64()?).unwrap_or(0),
                    (6, wire::I64) => unconfirmed = usize::try_from(reader.i64()?).unwrap_or(0),
                    (7, wire::BOOL) => settled = reader.bool()?,
                    (8, wire::I32) => full = usize::try_from(reader.i32()?).unwrap_or(0),
                    (9, wire::LIST) => missing = Location::read_list(reader)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(me.map(|me| Status {
                me,
                replicas,
                members,
                full,
                digest,
                items,
                unconfirmed,
                settled,
                missing,
            }))
        })?
        .ok_or_else(|| no_sender("status"))
    }

    /// As far as this node can tell, every key is with all its replicas.
    pub fn is_safe(&self) -> bool {
        let state = self.me.state == State::Full && self.full >= self.replicas;
        state && self.settled && self.unconfirmed == 0 && self.missing.is_empty()
    }
}
