//! Finds the end of a value without taking it apart, and goes on where it stopped when more bytes
//! have come: a message that trickles in costs its length once, not once for each byte.

use super::{Error, Limits, wire};

pub(super) const MESSAGE_BYTES: &str = "bytes in a message";
pub(super) const STRING_BYTES: &str = "bytes in a string";
pub(super) const ELEMENTS: &str = "elements in a container";

/// What the scanner stands in; the innermost is last.
#[derive(Debug, Clone, Copy)]
enum Frame {
    Fields,
    Elements { kind: u8, left: usize },
    Entries { kinds: [u8; 2], left: usize },
}

/// A walk over one value. `position` may point past the bytes that are there: at the end of a
/// string, say, of which only the length has come.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    pub position: usize,
    stack: Vec<Frame>,
    /// Rounds of the loop so far, by which a test sees that they grow with the bytes alone.
    #[cfg(test)]
    pub steps: usize,
}

impl Scanner {
    /// Starts over, before a value of type `kind` at `position`.
    pub fn start(&mut self, position: usize, kind: u8) {
        self.position = position;
        self.stack.clear();
        let is_struct = kind == wire::STRUCT;
        let left = usize::from(!is_struct);
        self.stack.push(Frame::Elements { kind, left });
        if is_struct {
            // It has no head that would have to be there first.
            self.stack.push(Frame::Fields);
        }
    }

    /// Goes on over `bytes`, which start where those of the calls before started. True: the value
    /// ends at `position`. False: more bytes are needed.
    pub fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, Error> {
        loop {
            #[cfg(test)]
            {
                self.steps += 1;
            }
            if self.position > limits.message_bytes_max {
                return Err(Error::TooLarge {
                    what: MESSAGE_BYTES,
                    size: self.position,
                    limit: limits.message_bytes_max,
                });
            }
            if self.position > bytes.len() {
                return Ok(false);
            }
            let rest = &bytes[self.position..];
            let Some(frame) = self.stack.last_mut() else {
                return Ok(true);
            };
            let kind = match frame {
                Frame::Fields => match rest {
                    [] => return Ok(false),
                    [wire::STOP, ..] => {
                        self.position += 1;
                        self.stack.pop();
                        continue;
                    }
                    [kind, _, _, after @ ..] => {
                        let kind = *kind;
                        if !self.value(kind, after, 3, limits)? {
                            return Ok(false);
                        }
                        continue;
                    }
                    [kind, ..] => {
                        least_size(*kind)?;
                        return Ok(false);
                    }
                },
                Frame::Elements { left: 0, .. } | Frame::Entries { left: 0, .. } => {
                    self.stack.pop();
                    if self.stack.is_empty() {
                        return Ok(true);
                    }
                    continue;
                }
                Frame::Elements { kind, left } => {
                    let kind = *kind;
                    if let Some(size) = fixed_size(kind) {
                        // Saturating, as nothing else bounds the limit that somebody sets.
                        self.position = self.position.saturating_add(size.saturating_mul(*left));
                        self.stack.pop();
                        continue;
                    }
                    kind
                }
                Frame::Entries { kinds, left } => kinds[*left % 2],
            };
            let depth = self.stack.len() - 1;
            if !self.value(kind, rest, 0, limits)? {
                return Ok(false);
            }
            // The value's own frame may lie on top by now: count in the one that it is part of.
            match &mut self.stack[depth] {
                Frame::Elements { left, .. } | Frame::Entries { left, .. } => *left -= 1,
                Frame::Fields => {}
            }
        }
    }

    /// Steps over a value of type `kind` whose bytes begin with `rest`, or into it if it holds
    /// others; `before` bytes in front of it are stepped over as well. False: its head isn't all
    /// there, and nothing has changed.
    #[inline]
    fn value(
        &mut self,
        kind: u8,
        rest: &[u8],
        before: usize,
        limits: &Limits,
    ) -> Result<bool, Error> {
        let step = match kind {
            wire::STRING => {
                let Some(length) = count(rest, 0, usize::MAX, STRING_BYTES)? else {
                    return Ok(false);
                };
                let step = 4 + length;
                // One that fits into the message is stepped over, so that its reader can answer.
                if length > limits.string_bytes_max
                    && self.position + before + step > limits.message_bytes_max
                {
                    return Err(Error::TooLarge {
                        what: STRING_BYTES,
                        size: length,
                        limit: limits.string_bytes_max,
                    });
                }
                step
            }
            wire::STRUCT => {
                self.push(Frame::Fields, limits)?;
                0
            }
            wire::LIST | wire::SET => {
                let Some(left) = count(rest, 1, limits.elements_max, ELEMENTS)? else {
                    return Ok(false);
                };
                let kind = rest[0];
                self.push(Frame::Elements { kind, left }, limits)?;
                5
            }
            wire::MAP => {
                let Some(entries) = count(rest, 2, limits.elements_max, ELEMENTS)? else {
                    return Ok(false);
                };
                // Counted down from an even number: keys come at even counts, values at odd ones.
                let kinds = [rest[0], rest[1]];
                let left = 2 * entries;
                self.push(Frame::Entries { kinds, left }, limits)?;
                6
            }
            _ => fixed_size(kind).ok_or(Error::UnknownType(kind))?,
        };
        self.position += before + step;
        Ok(true)
    }

    fn push(&mut self, frame: Frame, limits: &Limits) -> Result<(), Error> {
        if self.stack.len() > limits.depth_max {
            return Err(Error::TooLarge {
                what: "levels of nesting",
                size: self.stack.len(),
                limit: limits.depth_max,
            });
        }
        self.stack.push(frame);
        Ok(())
    }
}

/// The i32 at `offset` of `rest`, as a length of at most `max`; `None` if it isn't all there.
pub(super) fn count(
    rest: &[u8],
    offset: usize,
    max: usize,
    what: &'static str,
) -> Result<Option<usize>, Error> {
    let Some(bytes) = rest.get(offset..offset + 4) else {
        return Ok(None);
    };
    let count = i32::from_be_bytes(bytes.try_into().expect("BUG: four bytes"));
    within(count, max, what).map(Some)
}

/// A length or count that has been read, held against its limit.
pub(super) fn within(count: i32, max: usize, what: &'static str) -> Result<usize, Error> {
    let count = usize::try_from(count).map_err(|_| Error::Negative)?;
    if count > max {
        return Err(Error::TooLarge {
            what,
            size: count,
            limit: max,
        });
    }
    Ok(count)
}

/// Bytes of a value whose type says them all.
pub(super) fn fixed_size(kind: u8) -> Option<usize> {
    match kind {
        wire::BOOL | wire::BYTE => Some(1),
        wire::I16 => Some(2),
        wire::I32 => Some(4),
        wire::I64 | wire::DOUBLE => Some(8),
        wire::UUID => Some(16),
        _ => None,
    }
}

/// The fewest bytes that a value of type `kind` takes.
pub(super) fn least_size(kind: u8) -> Result<usize, Error> {
    match kind {
        wire::STRING => Ok(4),
        wire::STRUCT => Ok(1),
        wire::LIST | wire::SET => Ok(5),
        wire::MAP => Ok(6),
        _ => fixed_size(kind).ok_or(Error::UnknownType(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        message_bytes_max: 100,
        string_bytes_max: 10,
        elements_max: 5,
        depth_max: 3,
    };

    fn too_large<T>(size: usize, what: &'static str, limit: usize) -> Result<T, Error> {
        Err(Error::TooLarge { what, size, limit })
    }

    fn too_deep<T>() -> Result<T, Error> {
        too_large(4, "levels of nesting", 3)
    }

    /// Where a value of type `kind` ends; `None` if it doesn't.
    fn end(kind: u8, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let mut scanner = Scanner::default();
        scanner.start(0, kind);
        Ok(scanner.advance(bytes, &LIMITS)?.then_some(scanner.position))
    }

    #[test]
    fn must_enforce_the_limit_of_nesting() {
        // Lists of one list each, `levels` of them, the innermost empty.
        let lists = |levels: usize| {
            let mut bytes = [wire::LIST, 0, 0, 0, 1].repeat(levels);
            bytes[5 * levels - 1] = 0;
            bytes
        };
        assert_eq!(end(wire::LIST, &lists(3)), Ok(Some(15)));
        assert_eq!(end(wire::LIST, &lists(4)), too_deep());
        let structs = |levels: usize| {
            let fields = [wire::STRUCT, 0, 1].repeat(levels - 1);
            [fields, vec![wire::STOP; levels]].concat()
        };
        assert_eq!(end(wire::STRUCT, &structs(3)), Ok(Some(9)));
        assert_eq!(end(wire::STRUCT, &structs(4)), too_deep());
        let maps = |levels: usize| {
            let mut bytes = [wire::BOOL, wire::MAP, 0, 0, 0, 1, 1].repeat(levels);
            bytes.truncate(7 * levels - 1);
            bytes[7 * levels - 2] = 0;
            bytes
        };
        assert_eq!(end(wire::MAP, &maps(3)), Ok(Some(20)));
        assert_eq!(end(wire::MAP, &maps(4)), too_deep());
    }

    #[test]
    fn must_enforce_the_limit_of_nesting_without_the_bytes_of_a_stack_overflow() {
        let limits = Limits {
            message_bytes_max: 1 << 20,
            ..LIMITS
        };
        let mut scanner = Scanner::default();
        scanner.start(0, wire::STRUCT);
        let deep = [wire::STRUCT, 0, 1].repeat(100_000);
        assert_eq!(scanner.advance(&deep, &limits), too_deep());
        assert!(scanner.steps < 10);
    }

    #[test]
    fn must_enforce_the_limit_of_elements() {
        for kind in [wire::LIST, wire::SET] {
            assert_eq!(
                end(kind, &[wire::BOOL, 0, 0, 0, 5, 1, 1, 1, 1, 1]),
                Ok(Some(10))
            );
            let six = end(kind, &[wire::BOOL, 0, 0, 0, 6]);
            assert_eq!(six, too_large(6, ELEMENTS, 5));
            let negative = end(kind, &[wire::BOOL, 0x80, 0, 0, 0]);
            assert_eq!(negative, Err(Error::Negative));
        }
        let five = [&[wire::BOOL, wire::BYTE, 0, 0, 0, 5], &[1; 10][..]].concat();
        assert_eq!(end(wire::MAP, &five), Ok(Some(16)));
        let six = end(wire::MAP, &[wire::BOOL, wire::BYTE, 0, 0, 0, 6]);
        assert_eq!(six, too_large(6, ELEMENTS, 5));
        let negative = end(wire::MAP, &[wire::BOOL, wire::BYTE, 255, 255, 255, 255]);
        assert_eq!(negative, Err(Error::Negative));
    }

    #[test]
    fn must_enforce_the_limit_of_strings() {
        let string = |length: u8| [&[0, 0, 0, length], &[b'x'; 11][..]].concat();
        assert_eq!(end(wire::STRING, &string(10)), Ok(Some(14)));
        // A longer one is its reader's to refuse, while the message has room for it.
        assert_eq!(end(wire::STRING, &string(11)), Ok(Some(15)));
        assert_eq!(end(wire::STRING, &[0, 0, 0, 96]), Ok(None));
        // Said by the length alone, before a byte of the string has come.
        let large = |size| too_large(size, STRING_BYTES, 10);
        assert_eq!(end(wire::STRING, &[0, 0, 0, 97]), large(97));
        let most = [0x7f, 0xff, 0xff, 0xff];
        assert_eq!(end(wire::STRING, &most), large(0x7fff_ffff));
        assert_eq!(
            end(wire::STRING, &[0xff, 0xff, 0xff, 0xff]),
            Err(Error::Negative)
        );
    }

    #[test]
    fn must_enforce_the_limit_of_the_whole_before_it_has_come() {
        // Five structs of two longest strings each, of which the last does not fit any more.
        let mut bytes = vec![wire::STRUCT, 0, 0, 0, 5];
        for _ in 0..3 {
            for id in [1, 2] {
                bytes.extend([wire::STRING, 0, id, 0, 0, 0, 10]);
                bytes.extend([b'x'; 10]);
            }
            bytes.push(wire::STOP);
        }
        assert_eq!(bytes.len(), 110);
        let limit = end(wire::LIST, &bytes[..100]);
        assert_eq!(limit, too_large(109, MESSAGE_BYTES, 100));
        assert_eq!(end(wire::LIST, &bytes[..90]), Ok(None));
        let elements = Limits {
            elements_max: usize::MAX,
            ..LIMITS
        };
        let mut scanner = Scanner::default();
        scanner.start(usize::MAX / 2, wire::LIST);
        scanner.position = 0;
        let doubles = scanner.advance(&[wire::DOUBLE, 0x7f, 255, 255, 255], &elements);
        let size = 8 * 0x7fff_ffff + 5;
        assert_eq!(doubles, too_large(size, MESSAGE_BYTES, 100));
    }

    #[test]
    fn must_enforce_known_types() {
        for kind in [wire::STOP, 1, 5, 7, 9, 17, 255] {
            let unknown = Err(Error::UnknownType(kind));
            assert_eq!(end(wire::LIST, &[kind, 0, 0, 0, 1]), unknown);
            assert_eq!(end(wire::MAP, &[kind, wire::BOOL, 0, 0, 0, 1]), unknown);
            assert_eq!(end(wire::MAP, &[wire::BOOL, kind, 0, 0, 0, 1, 1]), unknown);
            // The type of no elements says nothing.
            assert_eq!(end(wire::LIST, &[kind, 0, 0, 0, 0]), Ok(Some(5)));
            assert_eq!(end(wire::MAP, &[kind, kind, 0, 0, 0, 0]), Ok(Some(6)));
        }
        for length in 1..=3 {
            let unknown = end(wire::STRUCT, &[9, 0, 1][..length]);
            assert_eq!(unknown, Err(Error::UnknownType(9)), "by its type alone");
        }
        assert_eq!(end(7, &[]), Err(Error::UnknownType(7)));
    }

    #[test]
    fn must_take_one_step_a_value_however_the_bytes_come() {
        // A list of structs of one byte: as many values as bytes.
        let count = 200_000_u32;
        let mut bytes = [&[wire::STRUCT], &count.to_be_bytes()[..]].concat();
        bytes.extend(vec![wire::STOP; count as usize]);
        let limits = Limits {
            message_bytes_max: 1 << 20,
            elements_max: 1 << 20,
            ..LIMITS
        };
        for step in [1, 7, bytes.len()] {
            let mut scanner = Scanner::default();
            scanner.start(0, wire::LIST);
            let mut there = 0;
            let mut calls = 0;
            while !scanner.advance(&bytes[..there], &limits).unwrap() {
                there = (there + step).min(bytes.len());
                calls += 1;
            }
            assert_eq!((there, scanner.position), (bytes.len(), bytes.len()));
            // Into a struct and out of it, and one round for each call that comes to nothing.
            let most = 2 * count as usize + calls + 10;
            assert!(scanner.steps <= most, "{} steps of {step}", scanner.steps);
        }
    }
}
