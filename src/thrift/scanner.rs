//! Finds the end of a value without taking it apart, and goes on where it stopped when more bytes
//! have come: a message that trickles in costs its length once, not once for each byte.

use super::{Error, Limits, wire};

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
}

impl Scanner {
    /// Starts over, before a value of type `kind` at `position`.
    pub fn start(&mut self, position: usize, kind: u8) {
        self.position = position;
        self.stack.clear();
        self.stack.push(Frame::Elements { kind, left: 1 });
    }

    /// Goes on over `bytes`, which start where those of the calls before started. True: the value
    /// ends at `position`. False: more bytes are needed.
    pub fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, Error> {
        loop {
            if self.position > limits.message_bytes_max {
                return Err(Error::TooLarge("message"));
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
                    _ => return Ok(false),
                },
                Frame::Elements { left: 0, .. } | Frame::Entries { left: 0, .. } => {
                    self.stack.pop();
                    continue;
                }
                Frame::Elements { kind, left } => {
                    let kind = *kind;
                    if let Some(size) = fixed_size(kind) {
                        // No overflow: `left` is within elements_max or what the bytes can hold.
                        self.position += size * *left;
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
    fn value(
        &mut self,
        kind: u8,
        rest: &[u8],
        before: usize,
        limits: &Limits,
    ) -> Result<bool, Error> {
        let step = match kind {
            wire::STRING => {
                let Some(length) = count(rest, 0, limits.string_bytes_max, "string")? else {
                    return Ok(false);
                };
                4 + length
            }
            wire::STRUCT => {
                self.push(Frame::Fields, limits)?;
                0
            }
            wire::LIST | wire::SET => {
                let Some(left) = count(rest, 1, limits.elements_max, "container")? else {
                    return Ok(false);
                };
                let kind = rest[0];
                if left > 0 {
                    check_kind(kind)?;
                }
                self.push(Frame::Elements { kind, left }, limits)?;
                5
            }
            wire::MAP => {
                let Some(entries) = count(rest, 2, limits.elements_max, "container")? else {
                    return Ok(false);
                };
                // Counted down from an even number: keys come at even counts, values at odd ones.
                let kinds = [rest[0], rest[1]];
                if entries > 0 {
                    check_kind(kinds[0])?;
                    check_kind(kinds[1])?;
                }
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
            return Err(Error::TooLarge("nesting"));
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
    let count = usize::try_from(count).map_err(|_| Error::Negative)?;
    if count > max {
        return Err(Error::TooLarge(what));
    }
    Ok(Some(count))
}

/// Bytes of a value whose type says them all.
pub(super) fn fixed_size(kind: u8) -> Option<usize> {
    match kind {
        wire::BOOL | wire::BYTE => Some(1),
        wire::I16 => Some(2),
        wire::I32 => Some(4),
        wire::I64 | wire::DOUBLE => Some(8),
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

fn check_kind(kind: u8) -> Result<(), Error> {
    least_size(kind).map(|_| ())
}
