//! What is left when a block is proven: files in the output folder and tables on standard output.

use super::args::Args;
use super::machine::Machine;
use super::source::Subject;
use super::summary;
use crate::cli::CliError;
use crate::cli::input::write_whole;
use crate::cli::outputs::{Files, PUBLIC_VERSION, PublicFile};
use crate::dispatch::Dispatcher;
use arborist_core::bound::lower_bound;
use arborist_core::circuit::Kind;
use arborist_core::engine::{JobId, Report};
use arborist_core::profile::{Needs, Profile};
use arborist_core::sim::{Costs, Pool};
use arborist_core::tree::Shape;
use serde::Serialize;

/// The report's file in the output folder.
const REPORT_JSON: &str = "report.json";

#[derive(Serialize)]
struct ReportFile<'a> {
    version: u32,
    block: BlockInfo<'a>,
    report: &'a Report,
    lower_bound: Bounds,
    workers: Workers,
    machine: Machine,
    versions: Versions,
}

#[derive(Serialize)]
struct BlockInfo<'a> {
    chain_id: u64,
    block_number: u64,
    transactions: usize,
    calls: usize,
    circuits: &'a str,
    backend: String,
    prover: String,
}

#[derive(Serialize)]
struct Workers {
    count: u16,
    cores: u16,
    memory_mib: u32,
}

#[derive(Serialize)]
struct Versions {
    arborist: &'static str,
    protocol: u32,
    public_json: u32,
}

/// Writes root.proof, public.json and report.json, and gives back the summary for people. The proof is verified as it lies in
/// the output folder: one that is not valid never takes the place of one that is.
///
/// # Errors
/// The proof can't be read from the store or does not verify, or a file can't be written.
pub async fn finish(
    args: &Args,
    subject: &Subject,
    profile: &Profile,
    dispatcher: &Dispatcher,
    job: JobId,
) -> Result<String, CliError> {
    let unknown = || CliError::Failed(format!("job {} is not in the books any more", job.0));
    let report = dispatcher.report(job).ok_or_else(unknown)?;
    let task = dispatcher.root_task(job).ok_or_else(unknown)?;
    let proof = dispatcher.store().get_proof(&task).await;
    let proof = proof
        .map_err(|e| CliError::failed("read the root proof", e))?
        .ok_or_else(|| CliError::Failed("the root proof is not in the artifact store any more".into()))?;
    let public = PublicFile {
        version: PUBLIC_VERSION,
        backend: args.backend.to_string(),
        circuits: profile.circuits.clone(),
        keys: dispatcher.system().keys,
        task,
        prover: args.prover.name.clone(),
        statement: subject.statement.clone(),
    };
    let files = Files::in_folder(&args.out);
    let draft = files.draft(&proof)?;
    let verdict = dispatcher.verify_root(job, draft.bytes().to_vec().into()).await;
    verdict.map_err(|error| {
        CliError::Failed(format!(
            "the root proof read from the store: {error}; the same command makes it again"
        ))
    })?;
    draft.publish(&public)?;
    let bounds = Bounds::new(args, subject, profile, &report);
    let file = report_file(args, subject, profile, &report, bounds);
    let json = serde_json::to_vec_pretty(&file).map_err(|e| CliError::failed("write the report", e))?;
    write_whole(&args.out.join(REPORT_JSON), &json)?;
    Ok(summary::render(&report, &bounds))
}

fn report_file<'a>(
    args: &'a Args,
    subject: &Subject,
    profile: &'a Profile,
    report: &'a Report,
    bounds: Bounds,
) -> ReportFile<'a> {
    ReportFile {
        version: 1,
        block: BlockInfo {
            chain_id: subject.request.chain_id,
            block_number: subject.request.block_number,
            transactions: subject.calls.len(),
            calls: subject.calls.iter().map(|n| usize::from(*n)).sum(),
            circuits: &profile.circuits,
            backend: args.backend.to_string(),
            prover: args.prover.to_string(),
        },
        report,
        lower_bound: bounds,
        workers: Workers {
            count: args.workers,
            cores: args.cores_of_each(),
            memory_mib: args.memory_of_each(profile),
        },
        machine: Machine::this(),
        versions: Versions {
            arborist: env!("CARGO_PKG_VERSION"),
            protocol: arborist_core::wire::PROTOCOL,
            public_json: PUBLIC_VERSION,
        },
    }
}

/// What a makespan is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bounds {
    /// No schedule of these very proofs on these workers could have been faster: the longest of the critical path's
    /// proving time and all proving time shared by all cores.
    pub measured_seconds: f64,
    /// The bound of [`lower_bound`] if each proof had taken its kind's mean; above the makespan when proofs of one
    /// kind differed. `None` when proofs were found in the store: then less was to be done than it thinks.
    pub at_means_seconds: Option<f64>,
}

impl Bounds {
    fn new(args: &Args, subject: &Subject, profile: &Profile, report: &Report) -> Self {
        let capacity = Needs { cores: args.cores_of_each(), memory_mib: args.memory_of_each(profile) };
        let pool = Pool::of_all_kinds(args.workers.into(), capacity);
        Self {
            measured_seconds: measured(report, profile, &pool),
            at_means_seconds: at_means(subject, profile, report, pool),
        }
    }
}

fn measured(report: &Report, profile: &Profile, pool: &Pool) -> f64 {
    let path: u64 = report.critical_path.iter().map(|step| step.millis).sum();
    let work = Kind::ALL.iter().filter_map(|kind| {
        let row = report.kinds.iter().find(|row| row.kind == kind.name())?;
        let made = row.count.saturating_sub(row.reused);
        Some(f64::from(made) * row.mean_seconds * f64::from(profile.needs(*kind).cores))
    });
    let cores = f64::from(pool.count) * f64::from(pool.capacity.cores);
    (path as f64 / 1e3).max(work.sum::<f64>() / cores.max(1.0))
}

fn at_means(subject: &Subject, profile: &Profile, report: &Report, pool: Pool) -> Option<f64> {
    if report.kinds.iter().any(|kind| kind.reused > 0) {
        return None;
    }
    let shape = Shape::new(&subject.calls, profile.max_calls).ok()?;
    let mut costs = Costs { needs: profile.needs, millis: [0; 5] };
    for kind in Kind::ALL {
        let row = report.kinds.iter().find(|row| row.kind == kind.name());
        costs.millis[kind.index()] = row.map_or(0, |row| (row.mean_seconds * 1e3).round() as u32);
    }
    lower_bound(&shape, &[pool], &costs).map(|millis| millis as f64 / 1e3)
}
