//! The third step: which pods are to be made, and which may go. Pure.
//!
//! | policy | which pods | when |
//! |---|---|---|
//! | over | never run again, and are not being deleted | at once |
//! | done | their worker was told to leave and holds nothing | at once |
//! | outdated, empty | of an older template, and nothing runs in them | at once |
//! | surplus, empty | nothing runs in them, and there are more than were wanted at any time of the last scale-down delay: no node first, newest first | at once |
//! | surplus, idle | more than are wanted now, idle for the scale-down delay: older template first, longest idle first | once drained |
//! | outdated, idle | of an older template, a quarter of the pool at a time | once drained |
//!
//! A pod whose node is not heard is made up for, and stays until the cluster gives its node up: together with those there
//! are at most twice as many pods as are wanted, however many nodes fall silent one after the other.
//!
//! A pod whose worker holds a lease is in none of them. No worker is drained while pods can't be deleted: it would do
//! nothing until they can.

use super::census::{Census, Member, Standing};
use crate::kubernetes::pods::PodRecord;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// What is to be done about a pool's pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// So many pods are to be made.
    pub(super) create: u32,
    /// Pods asked for and not sent yet are too many: stop.
    pub(super) stop_creating: bool,
    /// To be deleted: nothing runs there.
    pub(super) delete: Vec<Arc<PodRecord>>,
    /// To be deleted if they hold no lease when the engine is told to drain them.
    pub(super) retire: Vec<Arc<PodRecord>>,
}

/// What is decided from.
pub(super) struct Input<'a> {
    pub(super) census: &'a Census,
    /// Pods wanted now.
    pub(super) wanted: u32,
    /// The most that were wanted at any time of the last scale-down delay.
    pub(super) lately: u32,
    pub(super) delay: Duration,
    /// Hash of the present template; `None` while there is none.
    pub(super) template: Option<&'a str>,
    /// Pods that were deleted already, by uid: the watch has not told yet.
    pub(super) deleted: &'a HashSet<Box<str>>,
    /// So many may be made now: fewer while the API server refuses them.
    pub(super) allowed: u32,
    /// The last deletion failed: it is tried with one pod at a time until one succeeds.
    pub(super) delete_failed: bool,
}

/// What is to be done.
pub(super) fn steps(input: &Input) -> Steps {
    let mut steps = Steps::default();
    let fresh = |member: &&Member| !input.deleted.contains(&member.pod.uid);
    let members: Vec<&Member> = input.census.members.iter().filter(fresh).collect();
    let outdated = |member: &Member| is_outdated(member, input.template);
    let mut have = input.census.have().saturating_sub(count(already_counted(input)));
    for member in &members {
        match member.standing {
            Standing::Over if !member.pod.deleting => steps.delete.push(member.pod.clone()),
            Standing::Draining { done: true } => steps.retire.push(member.pod.clone()),
            _ if member.is_empty() && outdated(member) => {
                steps.delete.push(member.pod.clone());
                have -= 1;
            }
            _ => {}
        }
    }
    have -= surplus_empty(input, &members, have, &mut steps);
    have -= surplus_idle(input, &members, have, &mut steps);
    replace_idle(input, &members, have, &mut steps);
    if input.delete_failed {
        // those that are drained already come first
        steps.retire.truncate(usize::from(input.deleted.is_empty()));
    }
    let bearable = input.wanted.saturating_mul(2).saturating_sub(have + input.census.counts.lost);
    steps.create = input.wanted.saturating_sub(have).min(bearable).min(input.allowed);
    steps.stop_creating = have > input.wanted && input.census.expected > 0;
    steps
}

/// Pods deleted already that the census still counts.
fn already_counted(input: &Input) -> usize {
    let counted = |member: &&Member| {
        let standing = member.standing;
        (standing.is_present() || standing.is_absent()) && input.deleted.contains(&member.pod.uid)
    };
    input.census.members.iter().filter(counted).count()
}

/// Whether a pod was made from an older template.
fn is_outdated(member: &Member, template: Option<&str>) -> bool {
    template.is_some_and(|hash| *member.pod.template != *hash)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Pods without a worker go when they were too many all the time of the delay: a job that is over for a second does not
/// cost those that start.
fn surplus_empty(input: &Input, members: &[&Member], have: u32, steps: &mut Steps) -> u32 {
    let surplus = have.saturating_sub(input.lately.max(input.wanted)) as usize;
    if surplus == 0 {
        return 0;
    }
    // those of an older template go anyway
    let empty = |member: &&&Member| member.is_empty() && !is_outdated(member, input.template);
    let mut absent: Vec<&&Member> = members.iter().filter(empty).collect();
    absent.sort_by_key(|member| {
        let stage = match member.standing {
            Standing::Stuck(_) => 0,
            Standing::Pending => 1,
            _ => 2,
        };
        (stage, Reverse(member.pod.created), member.pod.worker().to_owned())
    });
    let gone = absent.into_iter().take(surplus).map(|member| member.pod.clone());
    let before = steps.delete.len();
    steps.delete.extend(gone);
    count(steps.delete.len() - before)
}

/// Idle pods go when they have been idle for the delay and there are more pods than are wanted.
fn surplus_idle(input: &Input, members: &[&Member], have: u32, steps: &mut Steps) -> u32 {
    let surplus = have.saturating_sub(input.wanted) as usize;
    let idle = idle(members, |_, since| since >= input.delay, input.template);
    let before = steps.retire.len();
    steps.retire.extend(idle.into_iter().take(surplus).map(|member| member.pod.clone()));
    count(steps.retire.len() - before)
}

/// Pods of an older template go when they are idle, a quarter of the pool at a time, starting ones included.
fn replace_idle(input: &Input, members: &[&Member], have: u32, steps: &mut Steps) {
    let starting = input.wanted.saturating_sub(input.census.counts.present().min(have)) as usize;
    let at_once = (input.wanted as usize / 4).max(1).saturating_sub(starting);
    let retired: HashSet<&str> = steps.retire.iter().map(|pod| pod.worker()).collect();
    let old =
        |member: &Member, _| is_outdated(member, input.template) && !retired.contains(member.pod.worker());
    let replaced: Vec<_> = idle(members, old, input.template).into_iter().take(at_once).collect();
    steps.retire.extend(replaced.into_iter().map(|member| member.pod.clone()));
}

/// Idle pods that may go, in the order in which they do.
fn idle<'a>(
    members: &[&'a Member],
    may_go: impl Fn(&Member, Duration) -> bool,
    template: Option<&str>,
) -> Vec<&'a Member> {
    let since = |member: &Member| match member.standing {
        Standing::Idle(since) => Some(since),
        _ => None,
    };
    let mut idle: Vec<&Member> =
        members.iter().copied().filter(|member| since(member).is_some_and(|s| may_go(member, s))).collect();
    idle.sort_by_key(|member| {
        (!is_outdated(member, template), Reverse(since(member)), member.pod.worker().to_owned())
    });
    idle
}
