//! When a certificate authority gives way to the next, without a clock.
//!
//! A worker must trust the next authority before the first server certificate of it: so the next one is published
//! first, and signs only once every worker must have heard of it.

use jiff::{SignedDuration, Timestamp};

/// How long a new authority is valid, in days.
pub const VALID_DAYS: u16 = 365;
/// Between publishing an authority everywhere and signing with it. A kubelet brings a changed ConfigMap to its pods
/// within two minutes or so; the rest is for nodes that are away.
pub const SETTLE: SignedDuration = SignedDuration::from_hours(1);
/// It is looked again after so long at most.
const LOOK: SignedDuration = SignedDuration::from_hours(1);

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub from: Timestamp,
    /// Its last second.
    pub until: Timestamp,
}

impl Validity {
    /// After two thirds of its time the next authority is made.
    fn replace_at(self) -> Timestamp {
        self.from + self.until.duration_since(self.from) * 2 / 3
    }

    /// In the last twelfth of its time, a month, the next one signs even if some namespace can't be told: workers of all
    /// others would be lost with this one.
    fn insist_at(self) -> Timestamp {
        self.until - self.until.duration_since(self.from) / 12
    }
}

/// The authorities there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorities {
    /// The one that signs.
    pub current: Validity,
    /// When the next one was made and published, if there is one.
    pub next: Option<Timestamp>,
    /// The end of the one before, as long as workers are told to trust it.
    pub previous: Option<Timestamp>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the next authority and let workers trust it.
    Publish,
    /// Sign with the next one.
    Switch,
    /// Let workers trust the previous one no more.
    Forget,
    /// Nothing before then.
    Wait(Timestamp),
}

/// The next step. `spread_since`: since when every namespace has had the present certificates, if it has.
pub fn rotation(now: Timestamp, authorities: &Authorities, spread_since: Option<Timestamp>) -> Step {
    let later = now + LOOK;
    if let Some(published) = authorities.next {
        let insist = authorities.current.insist_at().max(published + SETTLE);
        let at = spread_since.map_or(insist, |spread| insist.min(published.max(spread) + SETTLE));
        return if now >= at { Step::Switch } else { Step::Wait(at.min(later)) };
    }
    if authorities.previous.is_some_and(|end| now > end) {
        return Step::Forget;
    }
    let at = authorities.current.replace_at();
    if now >= at { Step::Publish } else { Step::Wait(at.min(later)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many hours into the life of an authority that lasts 300 hours.
    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    #[test]
    fn the_next_authority_is_published_spread_and_settled_before_it_signs() {
        let current = Validity { from: at(0), until: at(300) };
        type Case = (&'static str, i64, Option<i64>, Option<i64>, Option<i64>, Step);
        let cases: [Case; 17] = [
            ("new", 0, None, None, Some(0), Step::Wait(at(1))),
            ("soon time", 199, None, None, Some(0), Step::Wait(at(200))),
            ("time", 200, None, None, Some(0), Step::Publish),
            ("time, though some namespace lags behind", 200, None, None, None, Step::Publish),
            ("over for long", 999, None, None, Some(0), Step::Publish),
            ("just published", 200, Some(200), None, Some(200), Step::Wait(at(201))),
            ("published, one namespace is missing", 230, Some(200), None, None, Step::Wait(at(231))),
            ("published, one namespace had it late", 230, Some(200), None, Some(230), Step::Wait(at(231))),
            (
                "one namespace is missing, the end is a month away",
                274,
                Some(200),
                None,
                None,
                Step::Wait(at(275)),
            ),
            ("one namespace is missing, the end is near", 275, Some(200), None, None, Step::Switch),
            ("one namespace loses it all the time", 275, Some(200), None, Some(275), Step::Switch),
            ("published late", 290, Some(290), None, None, Step::Wait(at(291))),
            ("published late, settled", 291, Some(290), None, None, Step::Switch),
            ("published everywhere", 201, Some(200), None, Some(200), Step::Switch),
            ("no namespace has pools", 201, Some(200), None, Some(-9999), Step::Switch),
            ("the one before is still good", 20, None, Some(20), Some(0), Step::Wait(at(21))),
            ("the one before is over", 21, None, Some(20), Some(0), Step::Forget),
        ];
        for (case, now, next, previous, spread, wanted) in cases {
            let authorities = Authorities { current, next: next.map(at), previous: previous.map(at) };
            assert_eq!(rotation(at(now), &authorities, spread.map(at)), wanted, "{case}");
        }
    }

    #[test]
    fn a_year_goes_by_without_a_moment_of_distrust() {
        // workers trust what they were told an hour ago; the operator looks when it is told to
        let mut now = at(0);
        let mut authorities =
            Authorities { current: Validity { from: now, until: at(24 * 365) }, next: None, previous: None };
        let mut steps = vec![];
        for _ in 0..20_000 {
            match rotation(now, &authorities, Some(authorities.next.unwrap_or(Timestamp::UNIX_EPOCH))) {
                Step::Wait(until) => {
                    assert!(until > now && until <= now + LOOK);
                    now = until;
                    continue;
                }
                Step::Publish => authorities.next = Some(now),
                Step::Switch => {
                    assert!(now >= authorities.next.unwrap() + SETTLE);
                    assert!(now < authorities.current.until);
                    authorities.previous = Some(authorities.current.until);
                    authorities.current =
                        Validity { from: now, until: now + SignedDuration::from_hours(24 * 365) };
                    authorities.next = None;
                }
                Step::Forget => authorities.previous = None,
            }
            steps.push(rotation(now, &authorities, None));
        }
        assert!(now > at(24 * 365 * 2), "two years went by");
        assert!(steps.len() >= 6, "{steps:?}");
    }
}
