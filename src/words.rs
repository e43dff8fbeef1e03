//! Words of the lines that people read.

/// A number of things: `1 key`, `3 keys`.
pub fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_count_one_as_one() {
        let keys = [0, 1, 2].map(|count| counted(count, "key", "keys"));
        assert_eq!(keys, ["0 keys", "1 key", "2 keys"]);
    }
}
