//! How long a peer's answer is waited for: as long as bytes move.

use std::time::{Duration, Instant};

/// How many bytes that move put a deadline off by a second: a peer is silent if no byte moves for as long as the
/// limit, and not because the link is slow.
const BYTES_BUY: u32 = 64 << 10;

/// How long answers are waited for.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub began: Instant,
    pub deadline: Instant,
    /// The longest time that may pass without a byte that moves.
    pub limit: Duration,
    /// Whether the limit begins anew with each answer that has come.
    pub anew: bool,
}

impl Patience {
    pub fn new(limit: Duration) -> Self {
        let began = Instant::now();
        Patience {
            began,
            deadline: began + limit,
            limit,
            anew: false,
        }
    }

    pub fn renew(&mut self) {
        if self.anew {
            self.deadline = Instant::now() + self.limit;
        }
    }

    /// For bytes that have moved. The next ones may take no longer than one limit.
    pub fn buy(&mut self, bytes: usize) {
        self.extend(Duration::from_secs(bytes as u64) / BYTES_BUY);
    }

    /// The deadline is so much later, but the next bytes may take no longer than one limit.
    pub fn extend(&mut self, time: Duration) {
        let most = Instant::now() + self.limit;
        self.deadline = self.deadline.max((self.deadline + time).min(most));
    }
}
