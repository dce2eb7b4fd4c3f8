//! Why ready proofs are not being made.

use arborist_core::circuit::{Kind, KindSet};
use arborist_core::engine::Counts;
use arborist_core::profile::{Needs, Profile};

/// Ready proofs that no connected worker can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    /// For people: how many of what wait, for what, and where to look.
    pub message: String,
    /// Nothing else goes on either.
    pub all: bool,
}

/// A shape of workers, and the kinds of proof they take.
pub(super) type Shape = (Needs, KindSet);

/// Which ready proofs of a namespace's job fit none of the workers that serve it and take them; `None` when all have one,
/// or none is ready.
pub(super) fn unfit(
    namespace: &str,
    counts: &[Counts; 5],
    profile: &Profile,
    workers: &[Shape],
) -> Option<Unfit> {
    let large = |needs: Needs| {
        move |(has, _): &&Shape| has.cores >= needs.cores && has.memory_mib >= needs.memory_mib
    };
    let fits =
        |kind: Kind| workers.iter().filter(large(profile.needs(kind))).any(|(_, kinds)| kinds.contains(kind));
    let ready = || Kind::ALL.into_iter().filter(|kind| counts[kind.index()].ready > 0);
    let first = ready().find(|kind| !fits(*kind))?;
    let needs = profile.needs(first);
    // several kinds that wait for the same shape of machine are one thing to say
    let waiting: Vec<String> = ready()
        .filter(|kind| profile.needs(*kind) == needs && !fits(*kind))
        .map(|kind| format!("{} {kind}", counts[kind.index()].ready))
        .collect();
    let many = waiting.len() > 1 || counts[first.index()].ready > 1;
    let message = format!(
        "{} {} no worker with {} cores and {}{} is connected for namespace {namespace}; see kubectl get pp",
        waiting.join(" and "),
        if many { "proofs wait:" } else { "proof waits:" },
        needs.cores,
        memory(needs.memory_mib),
        match workers.iter().any(|shape| large(needs)(&shape)) {
            true if many => " that takes them",
            true => " that takes it",
            false => "",
        }
    );
    let runs = counts.iter().any(|kind| kind.running > 0);
    let all = !runs && ready().all(|kind| !fits(kind));
    Some(Unfit { message, all })
}

fn memory(mib: u32) -> String {
    if mib.is_multiple_of(1024) { format!("{} GiB", mib / 1024) } else { format!("{mib} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Needs = Needs { cores: 32, memory_mib: 64 << 10 };
    const SMALL: Needs = Needs { cores: 8, memory_mib: 16 << 10 };

    fn counts(ready: [u32; 5], running: u32) -> [Counts; 5] {
        let mut counts = ready.map(|ready| Counts { total: 10, ready, ..Counts::default() });
        counts[4].running = running;
        counts
    }

    #[test]
    fn what_waits_and_for_what_is_said() {
        let profile = Profile::rfp();
        let shapes = |workers: &[Needs]| workers.iter().map(|has| (*has, KindSet::ALL)).collect::<Vec<_>>();
        let found = |ready, running, workers: &[Needs]| {
            unfit("a", &counts(ready, running), &profile, &shapes(workers))
        };
        let said = |message: &str, all| Some(Unfit { message: message.into(), all });
        assert_eq!(found([0; 5], 0, &[]), None);
        assert_eq!(found([3, 0, 2, 0, 0], 0, &[LARGE]), None, "a large worker takes small proofs");
        let vm = "3 vm proofs wait: no worker with 32 cores and 64 GiB is connected for namespace a; see kubectl get pp";
        assert_eq!(found([3, 0, 0, 0, 0], 0, &[]), said(vm, true));
        assert_eq!(found([3, 0, 0, 0, 0], 1, &[SMALL]), said(vm, false), "something runs");
        assert_eq!(found([3, 0, 1, 0, 0], 0, &[SMALL]), said(vm, false), "a base can start");
        let small = "1 base proof waits: no worker with 8 cores and 16 GiB is connected for namespace a; see kubectl get pp";
        assert_eq!(found([0, 0, 1, 0, 0], 0, &[]), said(small, true));
        let both = "2 kernel and 1 base proofs wait: no worker with 8 cores and 16 GiB is connected for namespace a; see kubectl get pp";
        assert_eq!(found([0, 2, 1, 0, 0], 0, &[]), said(both, true));
    }

    #[test]
    fn workers_of_other_kinds_are_none() {
        let profile = Profile::rfp();
        let shapes =
            [(LARGE, "vm"), (SMALL, "kernel,merge")].map(|(has, kinds)| (has, kinds.parse().unwrap()));
        let found = |ready| unfit("a", &counts(ready, 0), &profile, &shapes);
        let said = |message: &str, all| Some(Unfit { message: message.into(), all });
        assert_eq!(found([3, 1, 0, 2, 0]), None);
        let base = "1 base proof waits: no worker with 8 cores and 16 GiB that takes it is connected for namespace a; see kubectl get pp";
        assert_eq!(found([0, 0, 1, 0, 0]), said(base, true));
        let both = "4 base and 1 root proofs wait: no worker with 8 cores and 16 GiB that takes them is connected for namespace a; \
                    see kubectl get pp";
        assert_eq!(found([0, 2, 4, 0, 1]), said(both, false));
    }
}
