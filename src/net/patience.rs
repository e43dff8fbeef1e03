//! How long a peer's answer is waited for: as long as bytes move.

use std::time::{Duration, Instant};

/// Each byte that moves puts a limit off: silence is no byte for so long, not a slow link. In bytes a second.
const BYTES_BUY: u32 = 64 << 10;

/// How long answers are waited for.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub deadline: Instant,
    /// So long no byte may move.
    pub limit: Duration,
    /// With each answer that has come it begins anew.
    pub anew: bool,
}

impl Patience {
    pub fn new(limit: Duration) -> Self {
        Patience {
            deadline: Instant::now() + limit,
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
        let bought = self.deadline + Duration::from_secs(bytes as u64) / BYTES_BUY;
        let most = Instant::now() + self.limit;
        self.deadline = self.deadline.max(bought.min(most));
    }
}
