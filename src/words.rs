//! Words of the lines that people read.

/// A number of things: `1 key`, `3 keys`.
pub fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// What a node says that has no room for so many bytes more.
pub fn no_room(lacking: usize, taken: usize, limit: usize) -> String {
    let [lacking, taken, limit] = [lacking, taken, limit].map(with_commas);
    format!("no room for {lacking} bytes more: {taken} of {limit} are taken")
}

fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_count_one_as_one() {
        let keys = [0, 1, 2].map(|count| counted(count, "key", "keys"));
        assert_eq!(keys, ["0 keys", "1 key", "2 keys"]);
    }

    #[test]
    fn must_part_numbers_by_commas() {
        let texts = [0, 999, 1_000, 67_108_864].map(with_commas);
        assert_eq!(texts, ["0", "999", "1,000", "67,108,864"]);
    }
}
