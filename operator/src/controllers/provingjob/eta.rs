//! When a job will be done, shown without flicker.

use super::deadline::left;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// A change of the estimate below this is not worth a write.
const FLICKER: Duration = Duration::from_secs(5);

/// The estimate to show, in whole seconds: the one shown so far unless it is off by more than 5 s and a twentieth of
/// what is left. Without that every look would be another write.
pub(super) fn shown(
    before: Option<Timestamp>,
    now: Timestamp,
    exact: Option<Timestamp>,
) -> Option<Timestamp> {
    let exact = exact?;
    let flicker = FLICKER.max(left(exact, now) / 20);
    if let Some(before) = before
        && before > now
        && left(before, exact).max(left(exact, before)) <= flicker
    {
        return Some(before);
    }
    Timestamp::from_second(exact.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_not_shown() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let secs = |n| Some(at(n));
        for (before, exact, expected) in [
            (None, None, None),
            (Some(at(50)), None, None),
            (None, secs(100), Some(at(100))),
            (Some(at(96)), secs(100), Some(at(96))),
            (Some(at(104)), secs(100), Some(at(104))),
            (Some(at(90)), secs(100), Some(at(100))),
            (Some(at(960)), secs(1000), Some(at(960))),
            (Some(at(900)), secs(1000), Some(at(1000))),
            (Some(at(-1)), secs(2), Some(at(2))),
        ] {
            assert_eq!(shown(before, at(0), exact), expected, "{before:?} {exact:?}");
        }
    }
}
