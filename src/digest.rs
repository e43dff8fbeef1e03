//! A hash that is the same on every node, fast, and good enough where nobody gains by a collision.

/// The multiplier of the Fx hash (rustc-hash 1.1).
const K: u64 = 0x517c_c1b7_2722_0a95;

/// The Fx hash of the bytes, eight at a time, with a final [`mix`].
pub fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(K);
    let (words, rest) = bytes.as_chunks::<8>();
    let start = (bytes.len() as u64 + 1).wrapping_mul(K);
    let hash = words
        .iter()
        .fold(start, |hash, word| step(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(step(hash, u64::from_le_bytes(last)))
}

/// The final step of splitmix64 (Steele, Lea and Flood, 2014).
pub fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn must_tell_short_strings_apart() {
        let all = (0..=255_u8).flat_map(|a| {
            let more = (0..=255).map(move |b| vec![a, b]);
            [vec![a], vec![a, 0, 0]].into_iter().chain(more)
        });
        let all: BTreeSet<_> = all.collect();
        let digests: BTreeSet<_> = all.iter().map(|bytes| digest(bytes)).collect();
        assert_eq!(all.len(), digests.len());
    }
}
