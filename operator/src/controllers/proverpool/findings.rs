//! What a pool's conditions say. Pure.

use super::census::Trouble;
use super::dereference::Seen;
use super::validate::ValidPool;
use crate::api::conditions::{Finding, MAX_LONG_MESSAGE, MAX_MESSAGE, Status, cut, pool, reason};
use crate::kubernetes::pods::{PodRecord, Scheduling};
use arborist_core::plan::{Bound, Why};

/// The most bytes of other people's words in a message: the rest says what they are about.
const MAX_QUOTE: usize = 120;
/// … and of the scheduler's: it says of every group of nodes why not, the own ones often last.
const MAX_SCHEDULER: usize = 300;

/// One finding for each condition.
pub(super) fn findings(valid: &ValidPool, seen: &Seen) -> Vec<Finding> {
    vec![ready(valid, seen), scaling(seen), starved(seen), limited(valid, seen)]
}

/// What keeps pods from coming up: the API server's refusal, their nodes', or what troubles most of those that are stuck.
enum Obstacle {
    Refused(String),
    Rejected(String),
    Stuck(Trouble, String),
}

impl Obstacle {
    fn of(valid: &ValidPool, seen: &Seen) -> Option<Self> {
        let (wanted, counts) = (seen.planned.wanted.pods, &seen.census.counts);
        let (there, present) = (counts.there(), counts.present());
        if let Some(message) = seen.refusal.as_ref().filter(|_| there < wanted) {
            let says = cut(message, MAX_QUOTE);
            return Some(Self::Refused(format!(
                "{there} of {wanted} pods are there; the API server says: {says}"
            )));
        }
        // by workers, not pods: one that is there may be refused in a second
        if let Some(message) = seen.rejection.as_ref().filter(|_| present < wanted) {
            let says = cut(message, MAX_QUOTE);
            return Some(Self::Rejected(format!(
                "{present} of {wanted} workers; pods fail before their worker runs: {says}"
            )));
        }
        counts.trouble.map(|trouble| Self::Stuck(trouble, trouble_text(valid, seen, trouble)))
    }

    fn finding(self, type_: &'static str, status: Status) -> Finding {
        match self {
            Self::Refused(message) => Finding::new(type_, status, reason::POD_CREATION_FAILED, message),
            Self::Rejected(message) => Finding::new(type_, status, reason::POD_REJECTED, message),
            Self::Stuck(trouble, message) => Finding::new(type_, status, trouble.reason(), message),
        }
    }
}

fn trouble_text(valid: &ValidPool, seen: &Seen, trouble: Trouble) -> String {
    let pod = seen.census.example(trouble);
    let stuck = seen.census.counts.stuck;
    let pods = if stuck == 1 { "1 pod".to_owned() } else { format!("{stuck} pods") };
    let name = pod.map_or("", PodRecord::name);
    let waiting = pod.and_then(|pod| pod.waiting.as_deref());
    let words = waiting.map_or("", |waiting| &*waiting.message);
    match trouble {
        Trouble::Image => {
            // first: the message is cut at its end, and the image's name is what is looked for
            let image = waiting.map_or("", |waiting| &*waiting.image);
            format!("{pods}: image {image} can't be pulled: {words}")
        }
        Trouble::Config => format!("{pods}, such as {name}: {words}"),
        Trouble::OutOfMemory => format!(
            "{pods}, such as {name}: killed again and again for using more than {}",
            valid.template.resources.memory
        ),
        Trouble::CrashLoop => {
            let code = pod.and_then(|pod| pod.ended.as_ref()).map_or(0, |ended| ended.exit_code);
            format!("{pods}, such as {name}: ends again and again, last with exit code {code}: see its log")
        }
        Trouble::Unschedulable => {
            let scheduler = match pod.map(|pod| &pod.scheduling) {
                Some(Scheduling::Unschedulable(text)) => &**text,
                _ => "",
            };
            let (waited, words) = (seen.grace.as_secs(), cut(scheduler, MAX_SCHEDULER));
            format!("{pods}, such as {name}, without a node for {waited} s: {words}")
        }
        Trouble::Mute => {
            format!("{pods}, such as {name}: its worker does not log in: see its log and events")
        }
    }
}

fn ready(valid: &ValidPool, seen: &Seen) -> Finding {
    let (present, wanted) = (seen.census.counts.present(), seen.planned.wanted.pods);
    let is = |status, reason, message: String| Finding::new(pool::READY, status, reason, message);
    if let Some(why) = &seen.invalid {
        return is(Status::False, reason::INVALID_SPEC, why.to_string());
    }
    // with some workers at work the pool does what it is for; CapacityLimited says what is missing
    if present == 0
        && let Some(obstacle) = Obstacle::of(valid, seen)
    {
        return obstacle.finding(pool::READY, Status::False);
    }
    if let (Some(message), true) = (&seen.refusal, seen.census.counts.there() < wanted) {
        return is(Status::False, reason::POD_CREATION_FAILED, cut(message, MAX_MESSAGE));
    }
    if wanted == 0 {
        return is(Status::True, reason::NO_WORK, "nothing to prove".into());
    }
    if present == 0 {
        let coming = seen.census.coming();
        let message = format!("{coming} of {wanted} pods are starting{}", unheard(seen));
        return is(Status::False, reason::STARTING, message);
    }
    is(Status::True, reason::AS_WANTED, format!("{present} workers for {wanted} wanted"))
}

/// Names the pods that are lost, if there are any.
fn unheard(seen: &Seen) -> String {
    match seen.census.counts.lost {
        0 => String::new(),
        lost => format!(", {lost} on nodes that are not heard"),
    }
}

fn scaling(seen: &Seen) -> Finding {
    let counts = &seen.census.counts;
    let (wanted, present) = (seen.planned.wanted.pods, counts.present());
    let is = |status, reason, message: String| Finding::new(pool::SCALING, status, reason, message);
    if present < wanted {
        let coming = seen.census.coming();
        let message = format!("{present} of {wanted} workers, {coming} starting{}", unheard(seen));
        return is(Status::True, reason::SCALING_UP, message);
    }
    if counts.there() > wanted || counts.draining > 0 {
        let message = format!("{} pods for {wanted} wanted, {} leaving", counts.there(), counts.draining);
        return is(Status::True, reason::SCALING_DOWN, message);
    }
    match wanted {
        0 => is(Status::False, reason::NO_WORK, "no pods are wanted".into()),
        _ => is(Status::False, reason::AS_WANTED, format!("{wanted} pods, as wanted")),
    }
}

fn starved(seen: &Seen) -> Finding {
    let is = |status, reason, message| Finding::new(pool::STARVED, status, reason, message);
    let Some(starved) = seen.planned.wanted.starved else {
        return is(Status::False, reason::ENOUGH_CAPACITY, String::new());
    };
    let reason = match starved.why {
        Why::TooSmall { .. } | Why::NotTaken => reason::NO_FITTING_POOL,
        Why::Limited | Why::NoneAllowed => reason::ALL_POOLS_LIMITED,
    };
    is(Status::True, reason, starved.to_string())
}

fn limited(valid: &ValidPool, seen: &Seen) -> Finding {
    let wanted = &seen.planned.wanted;
    let is = |status, reason, message: String| Finding::new(pool::CAPACITY_LIMITED, status, reason, message);
    if let Some(obstacle) = Obstacle::of(valid, seen) {
        // here alone in full length: a status has no room for it twice
        return Finding { room: MAX_LONG_MESSAGE, ..obstacle.finding(pool::CAPACITY_LIMITED, Status::True) };
    }
    match wanted.because.bound {
        Bound::Maximum { pods, denied } if !seen.limited => {
            let message = format!("{denied} more pods could be used, spec.scaling.max is {pods}");
            is(Status::True, reason::AT_MAXIMUM, message)
        }
        Bound::Budget { pods, denied } if !seen.limited => {
            let message =
                format!("{denied} more pods could be used, spec.scaling.budgetPerHour pays for {pods}");
            is(Status::True, reason::AT_MAXIMUM, message)
        }
        Bound::Quota { pods, denied } if !seen.limited => {
            let message = format!(
                "{denied} more pods could be used; the operator's quota for the pools of this namespace is {pods}"
            );
            is(Status::True, reason::AT_MAXIMUM, message)
        }
        // nothing is stuck at present, but a short while ago there was: pods come one after the other
        Bound::Probing { denied, .. } => {
            let message = format!("{denied} more pods could be used; nodes had no room a short while ago");
            is(Status::True, reason::UNSCHEDULABLE, message)
        }
        _ => is(Status::False, reason::ENOUGH_CAPACITY, String::new()),
    }
}
