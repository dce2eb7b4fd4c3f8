//! Quantities as users write them.

use std::time::Duration;

/// A quantity that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: allowed is {allowed}")]
pub struct BadQuantity {
    text: String,
    allowed: &'static str,
}

fn bad(text: &str, allowed: &'static str) -> BadQuantity {
    BadQuantity { text: text.chars().take(64).collect(), allowed }
}

/// Whole cores, e.g. `32`.
///
/// # Errors
/// Not a whole number from 1 to 1024.
pub fn parse_cores(text: &str) -> Result<u16, BadQuantity> {
    let cores = text.parse().ok().filter(|cores| (1..=1024).contains(cores));
    cores.ok_or_else(|| bad(text, "a whole number of cores from 1 to 1024"))
}

/// Memory with a binary unit, e.g. `64Gi`, in MiB.
///
/// # Errors
/// Not a whole number of Mi, Gi or Ti, or more than 4 TiB.
pub fn parse_memory_mib(text: &str) -> Result<u32, BadQuantity> {
    let allowed = "a whole number with Mi, Gi or Ti, at most 4Ti";
    let (number, factor) = [("Mi", 1_u64), ("Gi", 1 << 10), ("Ti", 1 << 20)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .ok_or_else(|| bad(text, allowed))?;
    let mib = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .filter(|mib| (1..=4 << 20).contains(mib));
    mib.and_then(|mib| u32::try_from(mib).ok()).ok_or_else(|| bad(text, allowed))
}

/// Bytes with a binary unit, e.g. `100Gi`.
///
/// # Errors
/// Not a whole number of at most 7 digits with Ki, Mi, Gi or Ti.
pub fn parse_bytes(text: &str) -> Result<u64, BadQuantity> {
    let allowed = "a whole number with Ki, Mi, Gi or Ti, e.g. 100Gi, at most 7 digits";
    let (number, factor) = [("Ki", 1_u64 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .filter(|(number, _)| (1..=7).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| bad(text, allowed))?;
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bytes.ok_or_else(|| bad(text, allowed))
}

/// A duration, e.g. `90s`, `10m`, `2h`.
///
/// # Errors
/// Not a whole number of s, m or h.
pub fn parse_duration(text: &str) -> Result<Duration, BadQuantity> {
    let allowed = "a whole number with s, m or h, e.g. 90s, at most 7 digits";
    let (number, factor) = [("s", 1), ("m", 60), ("h", 3600)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .ok_or_else(|| bad(text, allowed))?;
    let seconds = number.parse::<u64>().ok().filter(|_| number.len() <= 7);
    seconds.map(|n| Duration::from_secs(n * factor)).ok_or_else(|| bad(text, allowed))
}

/// A price, e.g. `1.53`, in millionths.
///
/// # Errors
/// Not a decimal number with at most 6 digits on each side of the point.
pub fn parse_price_micros(text: &str) -> Result<u64, BadQuantity> {
    let allowed = "a decimal number such as 1.53, at most 6 digits on each side of the point";
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let good = |digits: &str| (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !good(whole) || !good(part) {
        return Err(bad(text, allowed));
    }
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| bad(text, allowed));
    Ok(number(whole)? * 1_000_000 + number(&format!("{part:0<6}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_or_refused() {
        assert_eq!(parse_cores("32"), Ok(32));
        for text in ["0", "1025", "1.5", "500m", "", "-1"] {
            assert!(parse_cores(text).is_err(), "{text}");
        }
        assert_eq!(parse_memory_mib("64Gi"), Ok(65_536));
        assert_eq!(parse_memory_mib("512Mi"), Ok(512));
        for text in ["64", "64G", "0Gi", "5Ti", "1.5Gi", "99999999999999999999Gi"] {
            assert!(parse_memory_mib(text).is_err(), "{text}");
        }
        assert_eq!(parse_bytes("100Gi"), Ok(100 << 30));
        assert_eq!(parse_bytes("0Ki"), Ok(0));
        assert_eq!(parse_bytes("9999999Ti"), Ok(9_999_999 << 40));
        for text in ["", "100", "Gi", "100G", "1.5Gi", "-1Gi", "+1Gi", "10000000Ti"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        for text in ["90", "s", "1d", "-1s", "99999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_price_micros("1.53"), Ok(1_530_000));
        assert_eq!(parse_price_micros("12"), Ok(12_000_000));
        for text in ["", ".5", "1.", "1.1234567", "1e3", "1,5", "1234567"] {
            assert!(parse_price_micros(text).is_err(), "{text}");
        }
    }
}
