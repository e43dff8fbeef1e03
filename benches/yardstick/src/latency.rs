//! A histogram of durations: fixed memory, quantiles within 1 % of the true value.

use std::time::Duration;

/// Each power of two is cut into this many equal steps.
const STEPS: u64 = 128;

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Histogram {
            counts: vec![0; 64 * STEPS as usize],
            total: 0,
        }
    }

    pub fn record(&mut self, latency: Duration) {
        self.counts[slot(latency.as_nanos() as u64)] += 1;
        self.total += 1;
    }

    /// The duration in nanoseconds that `share` (0 to 1) of those recorded do not exceed; 0 when there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return floor(slot as u64);
            }
        }
        0
    }
}

fn slot(nanoseconds: u64) -> usize {
    if nanoseconds < STEPS {
        return nanoseconds as usize;
    }
    let octave = nanoseconds.ilog2() - STEPS.ilog2();
    (u64::from(octave) * STEPS + (nanoseconds >> octave)) as usize
}

/// The smallest duration in a slot.
fn floor(slot: u64) -> u64 {
    if slot < 2 * STEPS {
        return slot;
    }
    let octave = slot / STEPS - 1;
    (slot - octave * STEPS) << octave
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_floors_agree() {
        for nanoseconds in [
            0,
            1,
            127,
            128,
            129,
            255,
            256,
            257,
            1000,
            123_456_789,
            u64::MAX / 2,
        ] {
            let floor = floor(slot(nanoseconds) as u64);
            assert!(floor <= nanoseconds, "{nanoseconds}: {floor}");
            assert!(
                nanoseconds - floor <= nanoseconds / STEPS,
                "{nanoseconds}: {floor}"
            );
        }
    }

    #[test]
    fn quantiles_of_a_hundred() {
        let mut histogram = Histogram::new();
        for nanoseconds in 1..=100 {
            histogram.record(Duration::from_nanos(nanoseconds));
        }
        assert_eq!(histogram.quantile(0.5), 50);
        assert_eq!(histogram.quantile(0.99), 99);
        assert_eq!(histogram.quantile(1.0), 100);
        assert_eq!(Histogram::new().quantile(0.5), 0);
    }
}
