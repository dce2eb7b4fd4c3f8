//! The engine: `handle(now, event, &mut commands)`, nothing else changes its state.
//!
//! Where to look: `api` has what goes in and out, `prepared` a job with its tree, `said` what workers say, `books` all
//! jobs, `table` one job's books, `ready` what is ready of it, `extra` what a task that had trouble has, `index` where
//! ids stand, `names` makers and machines, `jobs` what users do to jobs, `workers` the workers, `takers` their indexes,
//! `serves` whose tasks a worker proves, `presence` their coming and going, `adoption` what they bring back, `machines`
//! how their machines behaved, `tenants` whose jobs there are, `shares` how much of the machines each has, `leases` who
//! has what, `assign` who gets what, `queues` what waits at busy workers, `hold` what is kept free for large tasks,
//! `seen` what is shown, `results` and `retries` how a lease ends, `evidence` what is looked at before it is believed
//! and `checks` what waits for it, `stragglers` what takes too long, `ends` what is known of processes that died,
//! `views` what can be seen, `demand`, `soon` and `estimate` what is needed and how long, `risk` which jobs can make
//! their deadlines, `report` and `past` what is left of a job, `record`, `snapshot`, `rebuild` and `replay` what a
//! restart reads.

mod adoption;
mod api;
mod assign;
mod books;
mod checks;
mod clock;
mod codec;
mod config;
mod demand;
mod ends;
mod estimate;
mod evidence;
mod extra;
mod hold;
mod index;
mod jobs;
mod lanes;
mod leases;
mod machines;
mod names;
mod past;
mod prepared;
mod presence;
mod queues;
mod ready;
mod rebuild;
mod record;
mod replay;
mod report;
mod results;
mod retries;
mod risk;
mod said;
mod seen;
mod serves;
mod shares;
mod snapshot;
mod soon;
mod stragglers;
mod table;
mod takers;
mod tenants;
mod views;
mod workers;

pub use api::*;
pub use codec::BadBytes;
pub use config::Config;
pub use demand::Demand;
pub(crate) use extra::Extra;
pub(crate) use leases::{Lease, Leases};
pub use prepared::PreparedJob;
pub use said::*;
pub use seen::*;
pub use serves::{Serves, WorkerSpec};
pub(crate) use table::{At, Job};
pub(crate) use takers::Takers;
pub(crate) use workers::{Worker, Workers, fits};

use self::books::{Copies, Jobs};
use self::names::{Maker, Makers, Nodes};
use crate::circuit::KindSet;
use crate::durations::Durations;
use crate::ids::TaskId;
use crate::profile::Needs;
use crate::system::ProofSystem;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// The most bytes kept of what somebody says about a failure: one line.
const MOST_TEXT: usize = 240;

/// The most bytes of a worker's name, as in Kubernetes.
const MOST_NAME: usize = 253;

/// A text of at most so many bytes; what is too long ends in an ellipsis.
fn bounded(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub('…'.len_utf8())));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

/// The state machine that decides who proves what.
///
/// It reads no clock and has no randomness: the same events at the same times give the same
/// commands.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    /// What makes the proofs of jobs that lease.
    pub(crate) system: ProofSystem,
    pub(crate) now: Millis,
    pub(crate) clock: clock::Clock,
    /// Classes of machine that tasks need, ascending.
    pub(crate) classes: Vec<Needs>,
    pub(crate) jobs: Jobs,
    pub(crate) tenants: tenants::Tenants,
    places: index::Places,
    pub(crate) workers: Workers,
    pub(crate) leases: Leases,
    makers: Makers,
    nodes: Nodes,
    /// Snapshots taken.
    snapshots: Cell<u32>,
    /// So many names are worth a look at which of them are needed.
    many_names: usize,
    durations: Durations,
    /// What was learned under other proof systems, by name.
    other_durations: BTreeMap<String, Durations>,
    next_fence: u64,
    fences_to: u64,
    /// The first fence that this engine gives out; those below are of engines before it.
    first_fence: u64,
    out: Vec<Command>,
    demand: demand::Known,
    /// A job came to an end in this step.
    job_ended: bool,
    /// Tasks that wait for their backoff to pass.
    delayed: BinaryHeap<Reverse<(Millis, At)>>,
    /// When silent workers lose their leases: checked against when they were last heard.
    expiries: BinaryHeap<Reverse<(Millis, u32, Session)>>,
    machines: machines::Machines,
    checks: checks::Checks,
    /// Leases queued at workers, by class: (since, slot, fence), oldest first; may be stale.
    queued: Vec<lanes::Lanes<(Millis, u32, u64)>>,
    /// Leases that run, by kind and the machine's cores, oldest first; may be stale.
    watched: BTreeMap<(u8, u16), stragglers::Watched>,
    /// Leases that run too long and have no backup copy: (since, fence, slot).
    pub(crate) slow: BTreeSet<(Millis, u64, u32)>,
    hedges: stragglers::Hedges,
    ends: ends::Ends,
    held: hold::Held,
    /// The highest number that a job had.
    last_job: u32,
    /// When the jobs' chances were looked at.
    risks_checked: Option<Millis>,
    /// When a lease queued now may be given to an idle worker.
    steal_at: Option<Millis>,
    /// Kinds of which was said that no worker takes them or fits, by namespace and class.
    unfit: BTreeMap<(u32, u8), KindSet>,
}

impl Engine {
    /// An engine with empty books.
    pub fn new(config: Config) -> Self {
        let mut classes: Vec<_> = config.classes.iter().chain(&config.profile.needs).copied().collect();
        classes.sort_unstable();
        classes.dedup();
        let most = classes.iter().map(|class| class.cores).max().unwrap_or(1);
        let first_fence = config.first_fence.0.max(1);
        let mut engine = Self {
            now: 0,
            clock: clock::Clock::default(),
            jobs: Jobs::default(),
            tenants: tenants::Tenants::new(most),
            places: index::Places::default(),
            workers: Workers::default(),
            leases: Leases::default(),
            makers: Makers::default(),
            nodes: Nodes::default(),
            snapshots: Cell::new(0),
            many_names: 0,
            durations: Durations::new(&config.profile),
            other_durations: BTreeMap::new(),
            system: config.profile.system(),
            next_fence: first_fence,
            fences_to: first_fence,
            first_fence,
            out: vec![],
            demand: demand::Known::default(),
            job_ended: false,
            delayed: BinaryHeap::new(),
            expiries: BinaryHeap::new(),
            machines: machines::Machines::default(),
            checks: checks::Checks::default(),
            queued: classes.iter().map(|_| lanes::Lanes::default()).collect(),
            watched: BTreeMap::new(),
            slow: BTreeSet::new(),
            hedges: stragglers::Hedges::default(),
            ends: ends::Ends::default(),
            held: hold::Held::default(),
            last_job: 0,
            risks_checked: None,
            steal_at: None,
            unfit: BTreeMap::new(),
            classes,
            config,
        };
        engine.remember_shares();
        engine
    }

    /// Takes in what happened and appends what has to be done to `out`. Time never runs backwards: after an earlier
    /// `now` than the last it goes on from where it was, as after a restart on a machine whose clock shows another time.
    /// Deadlines are by the clock that is handed in, or by [`Event::Wall`].
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Vec<Command>) {
        self.now = self.clock.advance(self.now, now);
        self.note_era();
        match event {
            Event::Submit(job) => self.submit(*job),
            Event::Order { job, policy } => self.order(job, policy),
            Event::Cancel(job) => self.cancel(job),
            Event::Revive(job) => self.revive(job),
            Event::ReviveWith(tree) => self.revive_with(*tree),
            Event::Forget(job) => self.forget(job),
            Event::Suspend(job, suspended) => self.change(job, |spec| spec.suspended = suspended),
            Event::Deadline(job, deadline) => self.change(job, |spec| spec.deadline = deadline),
            Event::Priority(job, priority) => self.change(job, |spec| spec.priority = priority),
            Event::Wall(wall) => self.set_wall(wall),
            Event::Shares(shares) => self.set_shares(shares),
            Event::Known(proofs) => self.known(&proofs),
            Event::Joined { session, worker, held } => self.joined(session, &worker, &held),
            Event::JoinedToLeave { session, worker, held } => {
                self.joined(session, &worker, &held);
                self.draining(session);
            }
            Event::Left(session, gone) => self.left(session, gone),
            Event::OutOfMemory { worker, incident } => self.out_of_memory(&worker, &incident),
            Event::Draining(session) => self.draining(session),
            Event::Drain(session) => self.drain(session),
            Event::Heartbeat(session, fences) => self.heartbeat(session, &fences),
            Event::Completed(session, done) => self.completed(session, &done),
            Event::Failed { session, task, fence, reason, text } => {
                self.failed(session, &task, fence, reason, bounded(text, MOST_TEXT));
            }
            Event::Undelivered(session, fence) => self.undelivered(session, fence),
            Event::RootChecked(job, result) => {
                self.root_checked(job, result.map_err(|text| bounded(text, MOST_TEXT)));
            }
            Event::ProofChecked { task, finding } => self.proof_checked(&task, finding),
            Event::Tick => self.tick(),
        }
        self.doubt_barred();
        if std::mem::take(&mut self.job_ended) {
            self.drop_old_trees();
        }
        self.dispatch();
        self.ask_for_checks();
        self.places.sweep();
        self.forget_names();
        out.append(&mut self.out);
    }

    fn tick(&mut self) {
        self.end_checks();
        self.end_backoffs();
        self.end_rests();
        self.expire();
        self.check_running();
        self.check_deadlines();
        self.check_risks();
        self.check_unfit();
        self.hold_machines();
        self.ask_for_roots();
        self.remember_shares();
    }

    /// When [`Event::Tick`] is needed next, by the clock that is handed in; earlier ones do no harm.
    pub fn next_deadline(&self) -> Option<Millis> {
        let backoff = self.delayed.peek().map(|Reverse((until, _))| *until);
        let expiry = self.expiries.peek().map(|Reverse((at, ..))| *at);
        let rest = self.machines.next_rest();
        let jobs = self.jobs.iter().filter(|(_, job)| job.state == JobState::Proving);
        let deadline = jobs.filter_map(|(_, job)| job.spec.deadline).min();
        let deadline = deadline.map(|deadline| self.clock.of_wall(deadline));
        let check = self.checks.next_deadline();
        let all = [backoff, expiry, rest, deadline, check, self.steal_at, self.next_slow()];
        all.into_iter().flatten().min().map(|at| self.clock.to_hand(at))
    }

    pub(crate) fn id(&self, at: At) -> TaskId {
        self.jobs[at.job].tree.ids[at.node as usize]
    }

    /// Every place where the task's id stands, itself included.
    pub(crate) fn copies(&self, at: At) -> Copies {
        if self.jobs[at.job].is_shared(at.node) {
            Copies::Many(self.places(&self.id(at)))
        } else {
            Copies::One([at])
        }
    }

    /// Every place where this id stands in jobs that have their trees, by job and node.
    pub(crate) fn places(&self, id: &TaskId) -> Vec<At> {
        let mut places = self.places.find(id, |at| self.id(at) == *id);
        places.sort_unstable_by_key(|at| (self.jobs[at.job].spec.id, at.node));
        places
    }

    /// The places of the task's id where it is not done. A copy whose parent is done may be done
    /// while others are open: it is not needed any more.
    pub(crate) fn open_copies(&self, at: At) -> Copies {
        match self.copies(at) {
            Copies::Many(mut all) => {
                all.retain(|copy| !self.jobs[copy.job].is_done(copy.node));
                Copies::Many(all)
            }
            Copies::One([at]) if self.jobs[at.job].is_done(at.node) => Copies::Many(vec![]),
            one => one,
        }
    }

    /// Moves a task that is not done to another state wherever it stands. Where children are open it
    /// waits for them, unless it failed for good.
    pub(crate) fn set_open(&mut self, at: At, state: TaskState) {
        for copy in self.open_copies(at).as_slice() {
            let job = &mut self.jobs[copy.job];
            let waits = job.pending(copy.node) > 0 && state != TaskState::Failed;
            job.set_state(copy.node, if waits { TaskState::Waiting } else { state });
        }
    }

    fn node_number(&mut self, name: &str) -> u32 {
        self.nodes.number(name)
    }

    fn maker_name(&self, maker: u32) -> Option<&str> {
        self.makers.get(maker as usize).map(|m| m.name.as_str())
    }

    /// The number of a worker's name. A new one, or a change, is written to the journal, and one that was written
    /// before the last snapshot, which has it only if it was named then.
    fn maker_number(&mut self, name: &str, node: Option<&str>, cores: u16) -> u32 {
        let known = self.makers.number(name);
        let number = known.unwrap_or(self.makers.next());
        let before = self.makers[number as usize].clone();
        let (node, cores) = match (node, known) {
            (None, Some(_)) => (before.node, before.cores),
            // A worker of which no machine is known is one itself.
            (node, _) => (self.node_number(node.filter(|node| !node.is_empty()).unwrap_or(name)), cores),
        };
        let written = self.snapshots.get();
        let maker = Maker { name: name.to_owned(), node, cores, written, ..before.clone() };
        if maker != before {
            let node = self.nodes[node as usize].clone();
            let record = Record::Maker { number, name: maker.name.clone(), node, cores };
            self.makers.set(number, maker);
            self.out.push(Command::Persist(record));
        }
        number
    }
}
