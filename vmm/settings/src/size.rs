//! Sizes as people write them.

/// Units from large to small, with their factors.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Bytes of a size like `4MiB`; `None` without a unit, for zero, or for more than 64 bits hold.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let (number, factor) =
        UNITS.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number.trim_end(), *factor)))?;
    // `u64::from_str` would also take a plus sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        for (text, size) in [("4MiB", 4 << 20), ("64 KiB", 64 << 10), ("1GiB", 1 << 30), ("0016KiB", 16 << 10)] {
            assert_eq!(parse(text), Some(size), "{text}");
        }
        for text in ["", "4", "MiB", "4MB", "-4MiB", "+4MiB", "0KiB", "1.5MiB", "99999999999999999GiB", "4 M iB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
