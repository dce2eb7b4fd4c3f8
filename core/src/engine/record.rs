//! Records of the journal as bytes.

use super::codec::{BadBytes, Reader, Writer};
use super::table::NO_MAKER;
use super::{Fence, JobId, JobSpec, JobState, Reason, Record};
use crate::ids::TaskId;
use crate::system::ProofSystem;

const SUBMITTED: u8 = 1;
const DONE: u8 = 2;
const DONE_FOUND: u8 = 3;
const MAKER: u8 = 4;
const CHARGED: u8 = 5;
const REOPENED: u8 = 6;
const CHANGED: u8 = 7;
const STATE: u8 = 8;
const FORGOTTEN: u8 = 9;
const FENCES: u8 = 10;
const CLOCK: u8 = 50;
const GIVEN_UP: u8 = 30;
const SUSPECTED: u8 = 31;

/// Makers are written one higher, so that "unknown" takes one byte.
pub(super) fn put_maker(w: &mut Writer, maker: u32) {
    w.varint(u64::from(maker.wrapping_add(1)));
}

pub(super) fn get_maker(r: &mut Reader<'_>) -> Result<u32, BadBytes> {
    Ok(r.number::<u32>()?.checked_sub(1).unwrap_or(NO_MAKER))
}

pub(super) fn put_spec(w: &mut Writer, spec: &JobSpec) {
    // Once a job: the names are worth their bytes.
    w.bytes(&serde_json::to_vec(spec).unwrap_or_default());
}

pub(super) fn get_spec(r: &mut Reader<'_>) -> Result<JobSpec, BadBytes> {
    serde_json::from_slice(r.bytes()?).map_err(|_| BadBytes::Meaningless("job"))
}

pub(super) fn put_system(w: &mut Writer, system: &ProofSystem) {
    w.bytes(&serde_json::to_vec(system).unwrap_or_default());
}

pub(super) fn get_system(r: &mut Reader<'_>) -> Result<ProofSystem, BadBytes> {
    serde_json::from_slice(r.bytes()?).map_err(|_| BadBytes::Meaningless("proof system"))
}

pub(super) fn put_state(w: &mut Writer, state: &JobState) {
    w.byte(match state {
        JobState::Proving => 0,
        JobState::Checking => 1,
        JobState::Complete => 2,
        JobState::Failed { .. } => 3,
        JobState::Cancelled => 4,
    });
    if let JobState::Failed { why } = state {
        w.text(why);
    }
}

pub(super) fn get_state(r: &mut Reader<'_>) -> Result<JobState, BadBytes> {
    Ok(match r.byte()? {
        0 => JobState::Proving,
        1 => JobState::Checking,
        2 => JobState::Complete,
        3 => JobState::Failed { why: r.text()? },
        4 => JobState::Cancelled,
        _ => return Err(BadBytes::Meaningless("job state")),
    })
}

fn put_reason(w: &mut Writer, reason: Reason) {
    w.byte(match reason {
        Reason::Error => 0,
        Reason::OutOfMemory => 1,
        Reason::TimedOut => 2,
        Reason::BadChild(_) => 3,
        Reason::BadInput => 4,
        Reason::BadProof => 5,
        Reason::Oversize => 6,
        Reason::StoreUnavailable => 7,
        Reason::HandedBack => 8,
        Reason::MissingChild(_) => 9,
    });
    if let Reason::BadChild(child) | Reason::MissingChild(child) = reason {
        w.0.extend_from_slice(&child.0);
    }
}

fn get_reason(r: &mut Reader<'_>) -> Result<Reason, BadBytes> {
    Ok(match r.byte()? {
        0 => Reason::Error,
        1 => Reason::OutOfMemory,
        2 => Reason::TimedOut,
        3 => Reason::BadChild(TaskId(r.array()?)),
        4 => Reason::BadInput,
        5 => Reason::BadProof,
        6 => Reason::Oversize,
        7 => Reason::StoreUnavailable,
        8 => Reason::HandedBack,
        9 => Reason::MissingChild(TaskId(r.array()?)),
        _ => return Err(BadBytes::Meaningless("reason")),
    })
}

fn put_place(w: &mut Writer, job: JobId, node: u32) {
    w.varint(u64::from(job.0));
    w.varint(u64::from(node));
}

fn job(r: &mut Reader<'_>) -> Result<JobId, BadBytes> {
    r.number().map(JobId)
}

impl Record {
    /// The record as bytes; some 20 for a finished proof.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(24));
        match self {
            Self::Submitted(spec, system, at) => {
                w.byte(SUBMITTED);
                put_spec(&mut w, spec);
                put_system(&mut w, system);
                w.varint(*at);
            }
            Self::Done { job, node, maker, millis, cpu_millis, proof_bytes, found, at } => {
                w.byte(if *found { DONE_FOUND } else { DONE });
                put_place(&mut w, *job, *node);
                put_maker(&mut w, *maker);
                [millis, cpu_millis, proof_bytes].into_iter().for_each(|n| w.varint(u64::from(*n)));
                w.varint(*at);
            }
            Self::Maker { number, name, node, cores } => {
                w.byte(MAKER);
                w.varint(u64::from(*number));
                w.text(name);
                w.text(node);
                w.varint(u64::from(*cores));
            }
            Self::Charged { job, node, reason, attempts, worker, fence } => {
                w.byte(CHARGED);
                put_place(&mut w, *job, *node);
                put_reason(&mut w, *reason);
                w.byte(*attempts);
                w.option(worker.map(u64::from));
                w.varint(fence.0);
            }
            Self::Reopened { job, node, attempts, maker, suspected, at } => {
                w.byte(REOPENED);
                put_place(&mut w, *job, *node);
                w.byte(*attempts);
                w.option(maker.map(u64::from));
                w.byte(*suspected);
                w.varint(*at);
            }
            Self::Changed { job, suspended, deadline, priority } => {
                w.byte(CHANGED);
                w.varint(u64::from(job.0));
                w.byte(u8::from(*suspended));
                w.option(*deadline);
                w.signed(i64::from(*priority));
            }
            Self::State(job, state, at) => {
                w.byte(STATE);
                w.varint(u64::from(job.0));
                put_state(&mut w, state);
                w.varint(*at);
            }
            Self::Forgotten(job) => {
                w.byte(FORGOTTEN);
                w.varint(u64::from(job.0));
            }
            Self::FencesTo(fence) => {
                w.byte(FENCES);
                w.varint(fence.0);
            }
            Self::Clock { from, ahead } => {
                w.byte(CLOCK);
                w.varint(*from);
                w.signed(*ahead);
            }
            Self::GivenUp { job, node } => {
                w.byte(GIVEN_UP);
                put_place(&mut w, *job, *node);
            }
            Self::Suspected { maker, times } => {
                w.byte(SUSPECTED);
                w.varint(u64::from(*maker));
                w.byte(*times);
            }
        }
        w.0
    }

    /// Reads what [`Record::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are cut off, too many, or have no meaning.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let r = &mut Reader(bytes);
        let record = match r.byte()? {
            SUBMITTED => Self::Submitted(get_spec(r)?, get_system(r)?, r.varint()?),
            tag @ (DONE | DONE_FOUND) => Self::Done {
                job: job(r)?,
                node: r.number()?,
                maker: get_maker(r)?,
                millis: r.number()?,
                cpu_millis: r.number()?,
                proof_bytes: r.number()?,
                found: tag == DONE_FOUND,
                at: r.varint()?,
            },
            MAKER => {
                Self::Maker { number: r.number()?, name: r.text()?, node: r.text()?, cores: r.number()? }
            }
            CHARGED => Self::Charged {
                job: job(r)?,
                node: r.number()?,
                reason: get_reason(r)?,
                attempts: r.byte()?,
                worker: r.option()?,
                fence: Fence(r.varint()?),
            },
            REOPENED => Self::Reopened {
                job: job(r)?,
                node: r.number()?,
                attempts: r.byte()?,
                maker: r.option()?,
                suspected: r.byte()?,
                at: r.varint()?,
            },
            CHANGED => Self::Changed {
                job: job(r)?,
                suspended: r.flag()?,
                deadline: r.option()?,
                priority: i32::try_from(r.signed()?).map_err(|_| BadBytes::Meaningless("priority"))?,
            },
            STATE => Self::State(job(r)?, get_state(r)?, r.varint()?),
            FORGOTTEN => Self::Forgotten(job(r)?),
            FENCES => Self::FencesTo(Fence(r.varint()?)),
            CLOCK => Self::Clock { from: r.varint()?, ahead: r.signed()? },
            GIVEN_UP => Self::GivenUp { job: job(r)?, node: r.number()? },
            SUSPECTED => Self::Suspected { maker: r.number()?, times: r.byte()? },
            _ => return Err(BadBytes::Meaningless("kind of record")),
        };
        r.end()?;
        Ok(record)
    }
}
