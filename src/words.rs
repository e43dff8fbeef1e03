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

/// A number as people read it: `67,108,864`.
pub fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// A time in microseconds since 1970 as a date and time of day, UTC: `2001-09-09T01:46:40Z`.
pub fn utc(micros: i64) -> String {
    date(micros.div_euclid(1_000_000)) + "Z"
}

/// The same with milliseconds: `2001-09-09T01:46:40.125Z`.
pub fn utc_millis(micros: i64) -> String {
    let millis = micros.rem_euclid(1_000_000) / 1000;
    format!("{}.{millis:03}Z", date(micros.div_euclid(1_000_000)))
}

fn date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // Years that begin in March have their leap day at the end; 400 of them have always the same number of days.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + i64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_count_one_as_one() {
        let keys = [0, 1, 2].map(|count| counted(count, "key", "keys"));
        assert_eq!(keys, ["0 keys", "1 key", "2 keys"]);
    }

    /// What `date -u -d @SECONDS +%FT%TZ` says.
    #[test]
    fn must_tell_the_date() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * 1_000_000), date);
            let millis = date.replace('Z', ".007Z");
            assert_eq!(utc_millis(seconds * 1_000_000 + 7_999), millis);
        }
        // Somebody's clock.
        assert!(
            [i64::MIN, i64::MAX]
                .map(utc)
                .iter()
                .all(|date| date.ends_with('Z'))
        );
    }

    #[test]
    fn must_part_numbers_by_commas() {
        let texts = [0, 999, 1_000, 67_108_864].map(with_commas);
        assert_eq!(texts, ["0", "999", "1,000", "67,108,864"]);
    }
}
