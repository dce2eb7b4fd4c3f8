//! What a pod's spec lets its worker use.

use arborist_core::profile::Needs;
use serde::Deserialize;

/// Bytes of a MiB.
const MIB: u128 = 1 << 20;

/// A container's resources as the API server sends them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Resources {
    limits: Quantities,
    requests: Quantities,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Quantities {
    cpu: Option<String>,
    memory: Option<String>,
}

impl Resources {
    /// Whole cores and MiB: the limits, where there are none the requests. What is bounded by neither is as much as
    /// can be named; `None` when nothing is bounded.
    pub(super) fn capacity(&self) -> Option<Needs> {
        let bound = |of: fn(&Quantities) -> &Option<String>| {
            let text = of(&self.limits).as_ref().or(of(&self.requests).as_ref())?;
            parse(text)
        };
        let (cores, bytes) = (bound(|q| &q.cpu), bound(|q| &q.memory));
        if cores.is_none() && bytes.is_none() {
            return None;
        }
        Some(Needs {
            cores: cores.map_or(u16::MAX, |cores| u16::try_from(cores).unwrap_or(u16::MAX)),
            memory_mib: bytes.map_or(u32::MAX, |bytes| u32::try_from(bytes / MIB).unwrap_or(u32::MAX)),
        })
    }
}

/// A quantity as the API server writes it, in whole units, rounded down: a whole number with a suffix or an exponent.
fn parse(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let number: u128 = digits.parse::<u64>().ok()?.into();
    let (times, by) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?.parse::<i8>().ok().filter(|p| p.abs() <= 18)?;
            let ten = 10_u128.pow(power.unsigned_abs().into());
            if power < 0 { (1, ten) } else { (ten, 1) }
        }
    };
    Some(number * times / by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn quantities_are_read_as_the_api_server_writes_them() {
        for (text, wanted) in [
            ("32", Some(32)),
            ("0", Some(0)),
            ("500m", Some(0)),
            ("7500m", Some(7)),
            ("1k", Some(1_000)),
            ("64Gi", Some(64 << 30)),
            ("1536Mi", Some(1536 << 20)),
            ("68719476736", Some(64 << 30)),
            ("16G", Some(16_000_000_000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("12e6", Some(12_000_000)),
            ("12E3", Some(12_000)),
            ("4500e-3", Some(4)),
            ("", None),
            ("Gi", None),
            ("-1", None),
            ("1.5", None),
            ("3 cores", None),
            ("1e99", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn limits_bound_a_worker_and_requests_where_there_are_none() {
        let needs = |cores, memory_mib| Some(Needs { cores, memory_mib });
        let cases: [(Value, Option<Needs>); 8] = [
            (json!({}), None),
            (json!({"limits": {}, "requests": {"ephemeral-storage": "1Gi"}}), None),
            (json!({"limits": {"cpu": "32", "memory": "64Gi"}}), needs(32, 64 << 10)),
            (json!({"requests": {"cpu": "8", "memory": "16Gi"}}), needs(8, 16 << 10)),
            (json!({"limits": {"cpu": "4"}, "requests": {"cpu": "2", "memory": "1G"}}), needs(4, 953)),
            (json!({"limits": {"memory": "1Gi"}}), needs(u16::MAX, 1 << 10)),
            (json!({"limits": {"cpu": "900m", "memory": "512Ki"}}), needs(0, 0)),
            (json!({"limits": {"cpu": "70k", "memory": "8Ei"}}), needs(u16::MAX, u32::MAX)),
        ];
        for (resources, wanted) in cases {
            let read: Resources = serde_json::from_value(resources.clone()).unwrap();
            assert_eq!(read.capacity(), wanted, "{resources}");
        }
    }
}
