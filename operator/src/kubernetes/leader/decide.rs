//! What an election decides, without clock or network: may we lead, go on, or must we stop?

use std::time::Duration;

/// The times of an election; all follow from how long a Lease lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A leader that has not renewed for so long loses its place.
    pub lease: Duration,
}

impl Timing {
    /// The leader renews so often.
    pub fn renew_every(self) -> Duration {
        self.lease / 3
    }

    /// A standby looks so often, and a failed renewal is tried again after so long. Less than a second with the
    /// usual eight: a Lease that is given up is taken within that time.
    pub fn look_every(self) -> Duration {
        self.lease / 10
    }

    /// An answer is waited for so long.
    pub fn patience(self) -> Duration {
        self.lease / 5
    }

    /// The leader writes for so long after the start of its last renewal. The rest of the Lease is for requests
    /// under way.
    pub fn writes_for(self) -> Duration {
        self.lease * 4 / 5
    }
}

/// Who this process is in the election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pod: String,
    name: String,
}

impl Identity {
    /// `POD_xxxxxxxx`: a process that starts anew in the same pod is another one. A pod's name has no `_`.
    pub fn new(pod: &str, random: u32) -> Self {
        Self { pod: pod.to_owned(), name: format!("{pod}_{random:08x}") }
    }

    /// As it stands in the Lease.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the holder was an earlier process of this pod. It is dead: the kubelet starts a container only after
    /// the last one ended.
    fn succeeds(&self, holder: &str) -> bool {
        holder != self.name && holder.rsplit_once('_').is_some_and(|(pod, _)| pod == self.pod)
    }
}

/// What the Lease says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Who leads.
    pub holder: Option<String>,
    /// How long a renewal of the holder's lasts.
    pub lasts: Duration,
    /// Changes with each write.
    pub version: String,
}

/// What a standby remembers of its looks. Times are of the process's own clock: those in the Lease are of another
/// machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    version: String,
    /// Since when the Lease has been seen unchanged, without a gap.
    since: Duration,
    /// The last look that was answered.
    looked: Duration,
}

impl Watched {
    /// What is remembered after an answered look at `now`. After a gap in the answers the time counts anew: when
    /// the API server was away, the leader could not renew either, and gets its chance first.
    pub fn after(before: Option<&Self>, record: &Record, now: Duration, timing: Timing) -> Self {
        let same = before.filter(|before| {
            before.version == record.version && now.saturating_sub(before.looked) <= timing.lease / 2
        });
        Self { version: record.version.clone(), since: same.map_or(now, |before| before.since), looked: now }
    }
}

/// Whether a standby may take the Lease now.
pub fn may_take(record: Option<&Record>, watched: &Watched, us: &Identity, now: Duration) -> bool {
    let Some(record) = record else { return true };
    match record.holder.as_deref() {
        None | Some("") => true,
        Some(holder) if holder == us.name() || us.succeeds(holder) => true,
        Some(_) => now.saturating_sub(watched.since) > record.lasts,
    }
}

/// What a leader learned from its last try to renew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is renewed.
    Ours,
    /// Somebody deleted or emptied it, and it could not be taken back yet.
    Nobodys,
    /// Another one leads.
    Others(String),
    /// No answer, or a refusal that says nothing of the holder.
    Unknown,
}

/// What a leader is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// Everything.
    Lead,
    /// Serve the workers, write nothing to the API server: another may lead by now. If it does, it has taken the
    /// journal, and this one is fenced; as long as it is not, proving goes on.
    Pause,
    /// End the process.
    Stop(Stopped),
}

/// Why a leader is none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Another one holds the Lease.
    #[error("the Lease is {0}'s now")]
    Lost(String),
    /// Another one has the journal.
    #[error("another operator has taken over the journal")]
    Fenced,
}

/// The policy of a leader, whose last successful renewal began `since_renewal` ago.
pub fn course(seen: &Seen, since_renewal: Duration, fenced: bool, timing: Timing) -> Course {
    match seen {
        _ if fenced => Course::Stop(Stopped::Fenced),
        Seen::Others(holder) => Course::Stop(Stopped::Lost(holder.clone())),
        Seen::Ours | Seen::Nobodys | Seen::Unknown if since_renewal < timing.writes_for() => Course::Lead,
        Seen::Ours | Seen::Nobodys | Seen::Unknown => Course::Pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing { lease: Duration::from_secs(10) };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn record(holder: &str, version: &str) -> Record {
        Record {
            holder: (!holder.is_empty()).then(|| holder.to_owned()),
            lasts: s(10),
            version: version.into(),
        }
    }

    #[test]
    fn a_leader_leads_pauses_or_stops() {
        let other = || Seen::Others("b_1".into());
        let lost = || Course::Stop(Stopped::Lost("b_1".into()));
        let fenced = || Course::Stop(Stopped::Fenced);
        let cases = [
            ("renewed", Seen::Ours, 0, false, Course::Lead),
            ("renewed by an answer that took too long", Seen::Ours, 8, false, Course::Pause),
            ("one renewal failed", Seen::Unknown, 4, false, Course::Lead),
            ("the API server is away", Seen::Unknown, 8, false, Course::Pause),
            ("the API server is away for an hour", Seen::Unknown, 3600, false, Course::Pause),
            ("the Lease was deleted just now", Seen::Nobodys, 3, false, Course::Lead),
            ("the Lease was deleted and can't be made", Seen::Nobodys, 9, false, Course::Pause),
            ("another took it", other(), 0, false, lost()),
            ("another took it while the API server was away", other(), 30, false, lost()),
            ("fenced though renewed", Seen::Ours, 0, true, fenced()),
            ("fenced while the API server is away", Seen::Unknown, 30, true, fenced()),
            ("fenced and lost", other(), 0, true, fenced()),
        ];
        for (case, seen, since, is_fenced, wanted) in cases {
            assert_eq!(course(&seen, s(since), is_fenced, TIMING), wanted, "{case}");
        }
    }

    #[test]
    fn a_standby_takes_what_is_free_expired_or_its_predecessors() {
        let us = Identity::new("a", 7);
        let seen = |record: &Record| Watched::after(None, record, s(100), TIMING);
        let cases = [
            ("nobody's", record("", "1"), 100, true),
            ("another's, just seen", record("b_00000001", "1"), 100, false),
            ("another's, seen for its whole time", record("b_00000001", "1"), 110, false),
            ("another's, seen for longer", record("b_00000001", "1"), 111, true),
            ("an earlier process of this pod", record("a_00000001", "1"), 100, true),
            ("our own: the answer to taking it was lost", record("a_00000007", "1"), 100, true),
            ("a pod whose name begins like ours", record("a-2_00000001", "1"), 100, false),
            ("of another program's making", record("a", "1"), 100, false),
        ];
        for (case, record, now, wanted) in cases {
            assert_eq!(may_take(Some(&record), &seen(&record), &us, s(now)), wanted, "{case}");
        }
        let none = Record::default();
        assert!(may_take(None, &seen(&none), &us, s(100)), "there is none");
        let short = Record { lasts: s(1), ..record("b_00000001", "1") };
        assert!(may_take(Some(&short), &seen(&short), &us, s(102)), "as long as its holder said");
    }

    #[test]
    fn the_time_of_a_standby_counts_anew_after_each_renewal_and_each_gap() {
        // looks (when, version), and since when it is seen unchanged after the last
        type Looks = &'static [(u64, &'static str)];
        let cases: [(&str, Looks, u64); 5] = [
            ("unchanged", &[(1, "1"), (2, "1"), (3, "1")], 1),
            ("renewed", &[(1, "1"), (2, "1"), (3, "2"), (4, "2")], 3),
            ("one answer missing", &[(1, "1"), (2, "1"), (4, "1")], 1),
            ("a long gap", &[(1, "1"), (2, "1"), (30, "1"), (31, "1")], 30),
            ("first look", &[(9, "1")], 9),
        ];
        for (case, looks, since) in cases {
            let mut watched = None;
            for (at, version) in looks {
                watched = Some(Watched::after(watched.as_ref(), &record("b_1", version), s(*at), TIMING));
            }
            assert_eq!(watched.map(|w| w.since), Some(s(since)), "{case}");
        }
    }

    #[test]
    fn a_leader_stops_writing_before_a_standby_may_start() {
        for lease in [3, 10, 60] {
            let timing = Timing { lease: s(lease) };
            assert!(timing.writes_for() < timing.lease);
            // one renewal may fail, with all the patience there is, and the next one still comes in time
            assert!(timing.renew_every() + timing.patience() + timing.look_every() < timing.writes_for());
        }
    }
}
