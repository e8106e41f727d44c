//! How a setting's text becomes a value: durations, sizes, numbers, switches.
//!
//! Every layer (file, environment, flags) ends in the same text form, so `8080`, `"8080"` and
//! `PORT=8080` are read by the same function and refused with the same words.

use std::time::Duration;

/// Parses a duration such as `500ms`, `10s`, `5m`, `2h` or `7d`. A bare number means seconds.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis_each: u64 = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis_each).map(Duration::from_millis)
}

/// Prints a duration in the largest unit that holds it without a remainder.
pub(crate) fn print_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, each) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ] {
        if millis >= each && millis.is_multiple_of(each) {
            return format!("{}{unit}", millis / each);
        }
    }
    if millis == 0 {
        "0s".to_owned()
    } else {
        format!("{millis}ms")
    }
}

/// Parses a size in bytes such as `4096`, `64KiB`, `1MiB` or `2GiB`.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let each: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(each)
}

/// Parses a switch: `true`/`false`, `yes`/`no`, `on`/`off`, `1`/`0`.
pub(crate) fn parse_switch(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("10"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7_200)));
        assert_eq!(parse_duration("7 d"), Some(Duration::from_secs(604_800)));
        for bad in [
            "",
            "s",
            "-1s",
            "1.5s",
            "10 sec",
            "99999999999999999999s",
            "999999999999999d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_bytes("1MiB"), Some(1_048_576));
        assert_eq!(parse_bytes("4096"), Some(4_096));
        for bad in ["", "1MB", "-1", "1.5GiB", "99999999999GiB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
        assert_eq!(parse_switch("ON"), Some(true));
        assert_eq!(parse_switch("2"), None);
    }

    proptest! {
        #[test]
        fn a_printed_duration_parses_to_itself(millis in 0_u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Some(duration));
        }
    }
}
