//! The fake backend: delays, sizes and faults by a seeded profile; proofs are those of
//! [`arborist_core::fake_proof`]. What happens to an attempt depends on the lease's seed, its task and
//! its fence alone, so a scenario can be repeated and a retry can fare better than the first try.

use super::{CheckError, Job, Made, Prover, Usage};
use arborist_core::backend::{Cancel, Proof, ProveError};
use arborist_core::circuit::{Circuit, Kind};
use arborist_core::fake_proof;
use arborist_core::profile::MINI_ROLLUP;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long the backend sleeps before it looks at the cancel flag again.
const NAP: Duration = Duration::from_millis(10);
/// The most memory that the fault `exhaust` takes, in bytes.
const EXHAUST: usize = 8 << 30;
const EXHAUST_STEP: usize = 64 << 20;

/// A number for each kind of proof. In JSON one number for all, or a map by kind; on the command line
/// `30` or `vm=30,merge=10`. Kinds left out are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Numbers")]
pub struct PerKind([u32; 5]);

impl PerKind {
    /// The same number for every kind.
    pub const fn all(number: u32) -> Self {
        Self([number; 5])
    }

    /// The number for a kind.
    pub const fn get(&self, kind: Kind) -> u32 {
        self.0[kind.index()]
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    All(u32),
    ByKind(BTreeMap<String, u32>),
}

impl TryFrom<Numbers> for PerKind {
    type Error = String;
    fn try_from(numbers: Numbers) -> Result<Self, String> {
        match numbers {
            Numbers::All(number) => Ok(Self::all(number)),
            Numbers::ByKind(map) => {
                let mut out = Self::default();
                for (name, number) in map {
                    let kind = Kind::ALL.into_iter().find(|k| k.name() == name);
                    let kind = kind.ok_or_else(|| {
                        format!("`{name}` is no kind of proof: expected vm, kernel, base, merge or root")
                    })?;
                    out.0[kind.index()] = number;
                }
                Ok(out)
            }
        }
    }
}

impl FromStr for PerKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::all(number));
        }
        let pairs: Result<BTreeMap<_, _>, _> = text.split(',').map(pair).collect();
        Numbers::ByKind(pairs?).try_into()
    }
}

fn pair(text: &str) -> Result<(String, u32), String> {
    let bad = || format!("`{text}` is not `name=number`");
    let (name, number) = text.split_once('=').ok_or_else(bad)?;
    Ok((name.trim().to_owned(), number.trim().parse().map_err(|_| bad())?))
}

/// How many of 1,000 attempts go wrong, and how. On the command line `error=5,slow=10`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// The backend fails.
    pub error: u32,
    /// It never ends.
    pub hang: u32,
    /// It says that it ran out of memory.
    pub oom: u32,
    /// It takes memory until the kernel kills the worker, or 8 GiB.
    pub exhaust: u32,
    /// Its proof does not verify.
    pub wrong: u32,
    /// Its proof is larger than allowed.
    pub oversize: u32,
    /// It takes `slow_factor` times as long.
    pub slow: u32,
    /// Of 1,000 tasks, how many fail whoever tries and however often.
    pub poison: u32,
}

impl FromStr for Faults {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for part in text.split(',') {
            let (name, number) = pair(part)?;
            let field = match name.as_str() {
                "error" => &mut faults.error,
                "hang" => &mut faults.hang,
                "oom" => &mut faults.oom,
                "exhaust" => &mut faults.exhaust,
                "wrong" => &mut faults.wrong,
                "oversize" => &mut faults.oversize,
                "slow" => &mut faults.slow,
                "poison" => &mut faults.poison,
                _ => {
                    return Err(format!(
                        "`{name}` is no fault: expected error, hang, oom, exhaust, wrong, oversize, slow or \
                         poison"
                    ));
                }
            };
            *field = number;
        }
        Ok(faults)
    }
}

/// How the fake backend behaves.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FakeProfile {
    /// Mean time of a proof in milliseconds.
    pub millis: PerKind,
    /// Spread of the times: standard deviation of their logarithm.
    pub sigma: f64,
    /// Size of a proof in bytes.
    pub proof_bytes: PerKind,
    /// The most bytes a proof may have.
    pub max_proof_bytes: usize,
    /// What goes wrong how often.
    pub faults: Faults,
    /// How many times longer a slow proof takes.
    pub slow_factor: f64,
    /// How many times longer everything takes: a slow machine.
    pub time_factor: f64,
}

impl Default for FakeProfile {
    fn default() -> Self {
        Self {
            millis: PerKind::all(0),
            sigma: 0.2,
            proof_bytes: PerKind::all(1_000),
            max_proof_bytes: 32_768,
            faults: Faults::default(),
            slow_factor: 8.0,
            time_factor: 1.0,
        }
    }
}

/// What becomes of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    Error,
    Hang,
    OutOfMemory,
    Exhaust,
    Wrong,
    Oversize,
    Slow,
}

/// The fake backend.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    profile: FakeProfile,
}

impl Fake {
    /// A backend that behaves as `profile` says.
    pub fn new(profile: FakeProfile) -> Self {
        Self { profile }
    }

    fn fate(&self, job: &Job) -> Fate {
        let f = &self.profile.faults;
        if Dice::of_task(job).per_mille() < f.poison {
            return Fate::Error;
        }
        let mut left = Dice::of_attempt(job).per_mille();
        let fates = [
            (f.error, Fate::Error),
            (f.hang, Fate::Hang),
            (f.oom, Fate::OutOfMemory),
            (f.exhaust, Fate::Exhaust),
            (f.wrong, Fate::Wrong),
            (f.oversize, Fate::Oversize),
            (f.slow, Fate::Slow),
        ];
        for (share, fate) in fates {
            if left < share {
                return fate;
            }
            left -= share;
        }
        Fate::Fine
    }

    fn delay(&self, job: &Job, fate: Fate) -> Duration {
        let mean = f64::from(self.profile.millis.get(job.request.circuit.kind()));
        if mean == 0.0 {
            return Duration::ZERO;
        }
        let sigma = self.profile.sigma;
        let mut dice = Dice::of_attempt(job);
        dice.per_mille();
        // log-normal with this mean: exp(N(ln mean − σ²/2, σ²))
        let mut millis = mean * (sigma * dice.normal() - sigma * sigma / 2.0).exp();
        millis *= self.profile.time_factor;
        if fate == Fate::Slow {
            millis *= self.profile.slow_factor;
        }
        Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or(Duration::MAX)
    }
}

impl Prover for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn circuits(&self) -> &str {
        MINI_ROLLUP
    }

    fn max_proof_bytes(&self) -> usize {
        self.profile.max_proof_bytes
    }

    fn prove(&self, job: &Job) -> Result<Made, ProveError> {
        let request = &job.request;
        let fate = self.fate(job);
        let delay = if fate == Fate::Hang { Duration::MAX } else { self.delay(job, fate) };
        sleep(delay, &request.cancel)?;
        let size = match fate {
            Fate::Error => {
                return Err(ProveError::Failed("the fake profile wants this attempt to fail".into()));
            }
            Fate::OutOfMemory => return Err(ProveError::OutOfMemory),
            Fate::Exhaust => return Err(exhaust(&request.cancel)),
            Fate::Oversize => self.profile.max_proof_bytes + 1,
            _ => self.profile.proof_bytes.get(request.circuit.kind()) as usize,
        };
        let children: Vec<&Proof> = request.children.iter().map(|c| &c.proof).collect();
        let mut proof =
            fake_proof::prove(request.circuit, &request.public_inputs, &request.inputs, &children, size);
        if fate == Fate::Wrong
            && let Some(last) = proof.bytes.last_mut()
        {
            *last ^= 1;
        }
        Ok(Made { proof, usage: Usage::default() })
    }

    fn verify(&self, circuit: Circuit, proof: &Proof, _: &Cancel) -> Result<(), CheckError> {
        Ok(fake_proof::verify(circuit, proof)?)
    }
}

/// Takes and touches memory as a prover does that is larger than its machine. On a machine of more than
/// [`EXHAUST`] it only says so.
fn exhaust(cancel: &Cancel) -> ProveError {
    let mut held: Vec<Vec<u8>> = vec![];
    for _ in 0..EXHAUST / EXHAUST_STEP {
        if cancel.is_cancelled() {
            return ProveError::Cancelled;
        }
        held.push(std::hint::black_box(vec![1; EXHAUST_STEP]));
    }
    ProveError::OutOfMemory
}

fn sleep(delay: Duration, cancel: &Cancel) -> Result<(), ProveError> {
    let start = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Err(ProveError::Cancelled);
        }
        match delay.checked_sub(start.elapsed()) {
            None | Some(Duration::ZERO) => return Ok(()),
            Some(left) => std::thread::sleep(left.min(NAP)),
        }
    }
}

/// Numbers that follow from a job.
struct Dice(blake3::OutputReader);

impl Dice {
    fn of_task(job: &Job) -> Self {
        Self::new("arborist fake dice v1 task", job, 0)
    }

    fn of_attempt(job: &Job) -> Self {
        Self::new("arborist fake dice v1 attempt", job, job.fence)
    }

    fn new(context: &str, job: &Job, fence: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&job.seed.to_le_bytes()).update(&job.task.0).update(&fence.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn per_mille(&mut self) -> u32 {
        (self.next() % 1_000) as u32
    }

    /// In (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let (a, b) = (self.unit(), self.unit());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

#[cfg(test)]
mod tests;
