//! What is looked at before it is believed: results for leases that their worker does not hold, proofs that a
//! worker says it found, complaints about the proofs of others. The shell looks; the engine says at what, and
//! what comes of it. What can't be looked at is for a second machine to say.

use super::checks::{AT_ONCE, Complaint, MOST, MOST_OF_ONE, MOST_OF_TASK, MOST_SPOTS, PATIENCE, Subject};
use super::results::bounded_times;
use super::table::{At, NO_MAKER, Proven};
use super::{Command, Depth, Done, Engine, Finding, KnownProof, Millis, Notice, Reason, TaskState};
use crate::ids::TaskId;
use crate::tree::NodeId;

impl Engine {
    pub(crate) fn machine_of(&self, maker: u32) -> u32 {
        self.makers.get(maker as usize).map_or(NO_MAKER, |made| made.node)
    }

    /// A result for a lease that is not the worker's, or not any more: it is as good as any if the task is
    /// open and the proof is there.
    pub(crate) fn claim(&mut self, worker: u32, done: &Done) {
        self.workers[worker].lost.retain(|lost| lost.fence != done.fence.0);
        let (maker, node) = (self.workers[worker].maker, self.workers[worker].node);
        let full = self.checks.claims >= MOST
            || self.checks.claims_of.get(&node).is_some_and(|n| *n >= MOST_OF_ONE)
            || self.checks.subjects.get(&done.task).is_some_and(|s| s.claims.len() >= MOST_OF_TASK);
        if full || self.open_place(&done.task).is_none() || !self.look_at(done.task, Some(node)) {
            return self.tell_late(maker, done, false);
        }
        let subject = self.checks.subjects.entry(done.task).or_default();
        subject.claims.push((maker, *done));
        self.checks.claims += 1;
        *self.checks.claims_of.entry(node).or_default() += 1;
    }

    fn tell_late(&mut self, maker: u32, done: &Done, counted: bool) {
        let worker = self.maker_name(maker).unwrap_or_default().to_owned();
        self.out.push(Command::Notice(Notice::LateResult { task: done.task, worker, counted }));
    }

    /// A worker holds a lease and says that the proof was there: that counts, and is looked at.
    pub(crate) fn vouch(&mut self, task: TaskId, maker: u32) {
        if self.checks.vouched.len() < MOST && self.look_at(task, None) {
            self.checks.vouched.insert(task, maker);
        }
    }

    /// A worker reported a proof that it made: some are looked for at once.
    pub(crate) fn look_for(&mut self, task: TaskId) {
        if self.config.spot_checks > 0 && self.checks.spots.len() < MOST_SPOTS {
            self.checks.spots.push_back(task);
        }
    }

    /// A proof is open again: what was said of it is of no more interest.
    pub(crate) fn forget_words(&mut self, task: &TaskId) {
        self.checks.vouched.remove(task);
        self.checks.accused.remove(task);
    }

    /// Who answers for a counted proof: its maker, or who said it was there.
    pub(crate) fn answerable(&self, at: At) -> u32 {
        let maker = self.jobs[at.job].proven(at.node).maker;
        let vouched = || self.checks.vouched.get(&self.id(at)).copied();
        if maker == NO_MAKER { vouched().unwrap_or(NO_MAKER) } else { maker }
    }

    /// Has a proof looked at closely that a machine claims, or that others wait for (`None`); false if there is too
    /// much to look at.
    fn look_at(&mut self, task: TaskId, claimed: Option<u32>) -> bool {
        let full = self.checks.subjects.len() >= MOST;
        let subject = match self.checks.subjects.get_mut(&task) {
            Some(subject) => subject,
            None if full => return false,
            None => self.checks.subjects.entry(task).or_default(),
        };
        let is_new = subject.depth.is_none();
        if is_new {
            subject.depth = Some(Depth::Proof);
        }
        match claimed {
            Some(node) if is_new => self.checks.waiting.claimed.entry(node).or_default().push_back(task),
            None if is_new || !subject.claims.is_empty() => self.checks.waiting.first.push_back(task),
            _ => {}
        }
        true
    }

    /// Asks the shell to look, as far as it is not busy with it.
    pub(crate) fn ask_for_checks(&mut self) {
        while self.checks.under_way < AT_ONCE {
            let Some(task) = self.checks.waiting.pop().or_else(|| self.next_spot()) else { return };
            let Some((job, node)) = self.find(&task) else {
                self.drop_subject(&task);
                continue;
            };
            let subject = self.checks.subjects.get_mut(&task).filter(|subject| subject.asked.is_none());
            let Some(subject) = subject else { continue };
            subject.asked = Some(self.now);
            let depth = subject.depth.unwrap_or(Depth::Proof);
            self.checks.asked.push_back((self.now, task));
            self.checks.under_way += 1;
            self.out.push(Command::CheckProof { job, node, task, depth });
        }
    }

    /// The next reported proof to be looked for, when it is time.
    fn next_spot(&mut self) -> Option<TaskId> {
        if self.checks.next_spot > self.now {
            return None;
        }
        let task = self.checks.spots.pop_front()?;
        self.checks.next_spot = self.now + (1_000 / Millis::from(self.config.spot_checks.max(1))).max(1);
        if self.checks.subjects.contains_key(&task) || self.checks.subjects.len() >= MOST {
            return None;
        }
        let subject = Subject { depth: Some(Depth::Presence), ..Subject::default() };
        self.checks.subjects.insert(task, subject);
        Some(task)
    }

    fn drop_subject(&mut self, task: &TaskId) -> Option<Subject> {
        let subject = self.checks.subjects.remove(task)?;
        if subject.asked.is_some() {
            self.checks.under_way = self.checks.under_way.saturating_sub(1);
        }
        let makers = &self.makers;
        let node_of = |maker: u32| makers.get(maker as usize).map_or(NO_MAKER, |made| made.node);
        self.checks.forget_claims(&subject, node_of);
        Some(subject)
    }

    /// What was not answered in time can't be known.
    pub(crate) fn end_checks(&mut self) {
        while let Some(&(at, task)) = self.checks.asked.front()
            && at + PATIENCE <= self.now
        {
            self.checks.asked.pop_front();
            if self.checks.subjects.get(&task).is_some_and(|subject| subject.asked == Some(at)) {
                self.proof_checked(&task, Finding::Unknown("no answer".to_owned()));
            }
        }
    }

    /// The operator has looked at a proof.
    pub(crate) fn proof_checked(&mut self, task: &TaskId, finding: Finding) {
        let asked = self.checks.subjects.get(task).is_some_and(|subject| subject.asked.is_some());
        let subject = if asked { self.drop_subject(task) } else { None };
        while self.checks.asked.front().is_some_and(|(at, task)| {
            self.checks.subjects.get(task).is_none_or(|subject| subject.asked != Some(*at))
        }) {
            self.checks.asked.pop_front();
        }
        let Some(subject) = subject else {
            // Nothing was asked, or it took too long: what is there is there all the same.
            if let Finding::Valid(proof) | Finding::Present(proof) = finding {
                self.known(&[proof]);
            }
            return;
        };
        match finding {
            Finding::Valid(proof) => self.is_there(&subject, &proof, true),
            Finding::Present(proof) => self.is_there(&subject, &proof, false),
            Finding::Exists => self.exists(task, subject),
            Finding::Bad(text) => self.is_not_there(task, &subject, Some(&text)),
            Finding::Missing => self.is_not_there(task, &subject, None),
            Finding::Unknown(_) => self.is_not_known(task, &subject),
        }
    }

    /// Something is there. Who came with a result or a complaint meanwhile wants to know more.
    fn exists(&mut self, task: &TaskId, subject: Subject) {
        self.mark_seen(task);
        if subject.complaints.is_empty() && subject.claims.is_empty() {
            return;
        }
        for (maker, _) in &subject.claims {
            self.checks.claims += 1;
            let node = self.machine_of(*maker);
            *self.checks.claims_of.entry(node).or_default() += 1;
        }
        let again = Subject { asked: None, depth: Some(Depth::Proof), ..subject };
        self.checks.subjects.insert(*task, again);
        self.checks.waiting.first.push_back(*task);
    }

    /// A proof was seen in the store, wherever it is counted.
    pub(crate) fn mark_seen(&mut self, task: &TaskId) {
        for at in self.places(task) {
            let job = &mut self.jobs[at.job];
            let done = job.is_done(at.node);
            job.set_seen(at.node, done);
        }
    }

    /// The proof is there, and valid as far as that can be said here.
    fn is_there(&mut self, subject: &Subject, proof: &KnownProof, valid: bool) {
        let task = &proof.task;
        let doubted = subject.complaints.iter().any(|c| c.reason == Reason::BadChild(*task) && c.of == *task);
        self.checks.vouched.remove(task);
        if valid {
            self.checks.accused.remove(task);
        }
        let open = self.open_place(task);
        if open.is_some() && doubted && !valid {
            // Garbage or not: another machine may say.
            return self.is_not_known(task, subject);
        }
        let own = subject
            .claims
            .iter()
            .find(|(maker, done)| !done.found && self.maker_name(*maker) == Some(proof.worker.as_str()));
        match open.zip(own.copied()) {
            Some((at, (maker, done))) => self.count_late(at, maker, proof, &done),
            None => self.known(std::slice::from_ref(proof)),
        }
        self.mark_seen(task);
        for (maker, done) in &subject.claims {
            self.tell_late(*maker, done, open.is_some());
        }
        for complaint in &subject.complaints {
            match complaint.reason {
                Reason::BadChild(_) if !valid => self.second_word(task, complaint),
                _ => self.was_wrong(proof, complaint),
            }
        }
    }

    fn count_late(&mut self, at: At, maker: u32, proof: &KnownProof, done: &Done) {
        let cores = self.makers.get(maker as usize).map_or(0, |made| made.cores);
        let kind = self.jobs[at.job].kind(at.node);
        let said = Done { millis: proof.millis, cpu_millis: proof.cpu_millis, ..*done };
        let done = bounded_times(&said, self.limit(kind, cores), cores);
        self.durations.learn(kind, cores, done.millis);
        self.machine_proved(self.machine_of(maker));
        self.take_back_all(at, super::leases::Tell::Finished);
        let proven = Proven {
            maker,
            millis: done.millis,
            cpu_millis: done.cpu_millis,
            proof_bytes: proof.proof_bytes,
            found: false,
            at: self.now,
        };
        self.finish(at, &proven);
    }

    /// A complaint was unfounded: who made it pays.
    fn was_wrong(&mut self, proof: &KnownProof, complaint: &Complaint) {
        self.release(&complaint.of);
        let counted = self.counted(&proof.task);
        let same = counted.is_some_and(|at| self.jobs[at.job].proven(at.node).at == complaint.made);
        if !same && complaint.of != proof.task {
            // The one complained of is gone; this is another.
            return;
        }
        if matches!(complaint.reason, Reason::MissingChild(_)) {
            let made = counted.map(|at| self.jobs[at.job].proven(at.node).maker);
            // Another has put it, perhaps just now.
            if made.and_then(|maker| self.maker_name(maker)) != Some(proof.worker.as_str()) {
                return;
            }
        }
        self.charge_worker(complaint.maker, None);
    }

    /// What lies there is no proof of the task, or nothing does (`bad` is `None`).
    fn is_not_there(&mut self, task: &TaskId, subject: &Subject, bad: Option<&str>) {
        for (maker, done) in &subject.claims {
            self.tell_late(*maker, done, false);
            self.count_own(self.machine_of(*maker));
        }
        self.checks.accused.remove(task);
        let counted = self.counted(task).filter(|at| {
            let made = self.jobs[at.job].proven(at.node).at;
            subject.asked.is_some_and(|asked| made <= asked)
        });
        match (counted, bad) {
            // It is open again, and what is said of the next proof is of another.
            (Some(at), Some(text)) => _ = self.reopen(at, text, None),
            (Some(at), None) => self.reopen_missing(at, None),
            (None, Some(text)) if self.open_place(task).is_some() => {
                let (task, text) = (*task, text.to_owned());
                self.out.push(Command::Quarantine { task, worker: None, text });
            }
            (None, _) => {}
        }
        for complaint in &subject.complaints {
            if complaint.of == *task {
                // Its own key was free: it failed for nothing, unless another has moved away what lay there.
                self.count_soft(self.machine_of(complaint.maker));
            }
            self.release(&complaint.of);
        }
    }

    /// It can't be looked at here.
    fn is_not_known(&mut self, task: &TaskId, subject: &Subject) {
        for (maker, done) in &subject.claims {
            self.tell_late(*maker, done, false);
        }
        subject.complaints.iter().for_each(|complaint| self.second_word(task, complaint));
    }

    /// A place where a proof is counted, and what was made from it is not.
    fn counted(&self, task: &TaskId) -> Option<At> {
        self.places(task).into_iter().find(|at| self.is_unsealed(*at))
    }

    /// A worker complains about a proof that it needs, or about what lies at its own task's key (`about` is
    /// `at` then). Nothing comes of it before it is looked at; its task waits, and goes elsewhere first.
    pub(crate) fn complain(
        &mut self,
        (at, about): (At, At),
        reason: Reason,
        maker: u32,
        text: String,
        goes_on: bool,
    ) {
        let (of, task) = (self.id(at), self.id(about));
        let stands = about == at || self.is_unsealed(about);
        if stands && self.look_at(task, None) {
            let made = if about == at { 0 } else { self.jobs[about.job].proven(about.node).at };
            let complaints = &mut self.checks.subjects.entry(task).or_default().complaints;
            if complaints.iter().all(|c| (c.maker, c.of) != (maker, of)) {
                complaints.push(Complaint { maker, reason, of, made, text });
            }
        }
        if goes_on {
            return;
        }
        self.spare(at, self.machine_of(maker));
        if stands {
            self.delay_until(at, self.now + PATIENCE);
        } else {
            self.set_open(at, TaskState::Ready);
        }
    }

    /// A task that waited for a look is ready again.
    fn release(&mut self, task: &TaskId) {
        if let Some(at) = self.open_place(task)
            && self.jobs[at.job].state_of(at.node) == TaskState::Delayed
        {
            self.set_open(at, TaskState::Ready);
        }
    }

    /// A complaint that can't be looked at counts when a second machine has it too, or there is none.
    fn second_word(&mut self, task: &TaskId, complaint: &Complaint) {
        let node = self.machine_of(complaint.maker);
        let own_key = complaint.of == *task;
        let about = if own_key { self.open_place(task) } else { self.counted(task) };
        let same = |at: &At| own_key || self.jobs[at.job].proven(at.node).at == complaint.made;
        let Some(about) = about.filter(same) else { return self.release(&complaint.of) };
        if self.checks.accused.len() < MOST || self.checks.accused.contains_key(task) {
            let accusers = self.checks.accused.entry(*task).or_default();
            if accusers.iter().all(|(other, _)| *other != node) {
                accusers.push((node, complaint.maker));
            }
        }
        let nodes: Vec<u32> =
            self.checks.accused.get(task).into_iter().flatten().map(|(node, _)| *node).collect();
        let place = self.open_place(&complaint.of);
        let alone = place.is_none_or(|at| !self.another_could(at, &nodes));
        if nodes.len() < 2 && !alone {
            return self.release(&complaint.of);
        }
        self.checks.accused.remove(task);
        match complaint.reason {
            Reason::BadChild(_) if own_key => {
                let (task, text) = (*task, complaint.text.clone());
                self.out.push(Command::Quarantine { task, worker: None, text });
            }
            Reason::BadChild(_) => _ = self.reopen(about, &complaint.text, Some(&nodes)),
            _ => self.reopen_missing(about, Some(&nodes)),
        }
        match place {
            // The only one there is: it might go on like this for ever.
            Some(at) if nodes.len() < 2 && !own_key => {
                let text = complaint.text.clone();
                self.charge_and_settle(at, complaint.reason, complaint.maker, text, false);
            }
            _ => self.release(&complaint.of),
        }
    }

    /// A machine made a proof from others: those who complained about them were wrong. Not if it made these
    /// itself.
    pub(crate) fn refute(&mut self, at: At, node: u32) {
        if self.checks.accused.is_empty() {
            return;
        }
        let children = self.jobs[at.job].shape().children(NodeId(at.node));
        for child in children.as_slice() {
            let child = At { job: at.job, node: child.0 };
            let maker = self.answerable(child);
            if self.machine_of(maker) == node {
                continue;
            }
            let accusers = self.checks.accused.remove(&self.id(child)).unwrap_or_default();
            for (_, accuser) in accusers.into_iter().filter(|(other, _)| *other != node) {
                self.charge_worker(accuser, Some(node));
            }
        }
    }
}
