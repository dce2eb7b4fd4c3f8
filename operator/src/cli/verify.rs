//! `arborist verify`: is a root proof valid for the published inputs? Needs those two files and nothing else.

use super::CliError;
use super::outputs::{Files, PublicFile};
use super::worker_program;
use arborist_circuits::{Published, RootError, verify_root};
use arborist_core::backend::VerifyError;
use arborist_core::circuit::Circuit;
use arborist_core::profile::MINI_ROLLUP;
use arborist_core::proof_object::{BadObject, ProofObject};
use arborist_system::outln;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Options of `arborist verify`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Folder with root.proof and public.json, as `arborist prove --out` leaves it
    #[arg(required_unless_present = "proof", conflicts_with_all = ["proof", "public"])]
    folder: Option<PathBuf>,
    /// The root proof
    #[arg(long, requires = "public")]
    proof: Option<PathBuf>,
    /// The published inputs
    #[arg(long, requires = "proof")]
    public: Option<PathBuf>,
    /// The plug-in that checks a proof of `--backend process`
    #[arg(long)]
    plugin: Option<PathBuf>,
    /// An argument for the plug-in; may be repeated
    #[arg(long, allow_hyphen_values = true, requires = "plugin")]
    plugin_arg: Vec<String>,
}

/// Checks the proof and prints what it states.
///
/// # Errors
/// [`CliError::Invalid`] names the check that failed; [`CliError::Input`] when a file can't be read.
pub fn run(args: &Args) -> Result<(), CliError> {
    let files = match (&args.folder, &args.proof, &args.public) {
        (Some(folder), _, _) => Files::in_folder(folder),
        (None, Some(proof), Some(public)) => Files { proof: proof.clone(), public: public.clone() },
        _ => {
            let problem = "missing; expected is a folder, or --proof FILE --public FILE".to_owned();
            return Err(CliError::Usage { option: "FOLDER", problem });
        }
    };
    let (bytes, public) = files.read()?;
    let object = open(&bytes, &public)?;
    let statement = published(&public)?;
    let circuit = statement.circuit().map_err(|e| invalid("transactions", e))?;
    if object.circuit != circuit {
        let problem =
            format!("{}, but {} transactions need {circuit}", object.circuit, statement.transactions);
        return Err(invalid("circuit", problem));
    }
    if public.backend == "process" {
        if object.proof.public_inputs != statement.public_inputs().map_err(refused)? {
            return Err(invalid("statement", "the proof states something else than public.json"));
        }
        ask_plugin(args, &files, circuit, &public)?;
    } else {
        verify_root(statement, &object.proof).map_err(refused)?;
    }
    outln!("valid: {}\nroot proof made by worker {}", statement_text(&public), object.maker.worker);
    Ok(())
}

/// Opens the proof object, if it is one that can be verified.
fn open(bytes: &[u8], public: &PublicFile) -> Result<ProofObject, CliError> {
    let object = ProofObject::open(&public.task, bytes).map_err(|e| match e {
        BadObject::WrongTask { .. } => invalid("task", e),
        _ => invalid("proof object", e),
    })?;
    if public.circuits != MINI_ROLLUP {
        return Err(invalid("circuits", format!("`{}`, known are `{MINI_ROLLUP}`", public.circuits)));
    }
    match public.backend.as_str() {
        "plonky2" | "process" => Ok(object),
        "fake" => Err(invalid("backend", "`fake` proofs prove nothing")),
        other => Err(invalid("backend", format!("`{other}`, known are `plonky2`, `process` and `fake`"))),
    }
}

/// The published statement, if it is the named prover's.
fn published(public: &PublicFile) -> Result<&Published, CliError> {
    let statement = public
        .statement
        .as_ref()
        .ok_or_else(|| invalid("statement", "public.json has none to compare with"))?;
    match &public.prover {
        Some(name) if arborist_circuits::prover_word(name) != statement.prover_id => {
            Err(invalid("prover", format!("prover_id is not that of `{name}`")))
        }
        _ => Ok(statement),
    }
}

fn invalid(check: &'static str, problem: impl std::fmt::Display) -> CliError {
    CliError::Invalid { check, problem: problem.to_string() }
}

fn refused(error: RootError) -> CliError {
    let check = match &error {
        RootError::Count(_) => "transactions",
        RootError::NotAnElement(_) | RootError::Differs { .. } => "statement",
        RootError::Proof(VerifyError::WrongKey { .. }) => "verification key",
        RootError::Proof(_) => "proof",
    };
    invalid(check, error)
}

/// Lets the worker's program check the proof with the plug-in.
fn ask_plugin(args: &Args, files: &Files, circuit: Circuit, public: &PublicFile) -> Result<(), CliError> {
    let Some(plugin) = &args.plugin else {
        return Err(invalid(
            "backend",
            "`process`: only its plug-in can check the proof; name it with --plugin",
        ));
    };
    let mut command = Command::new(worker_program::find()?);
    command.args(["verify", "--backend", "process"]).arg("--plugin").arg(plugin);
    command.args(args.plugin_arg.iter().map(|arg| format!("--plugin-arg={arg}")));
    command.args(["--circuit", &circuit.to_string(), "--task", &public.task.to_string()]);
    let output = command
        .arg("--object")
        .arg(&files.proof)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| CliError::failed("start the plug-in", e))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(invalid("proof", said)),
        _ => Err(CliError::input(plugin, said)),
    }
}

/// What a root proof states, as text.
pub fn statement_text(public: &PublicFile) -> String {
    let Some(s) = &public.statement else {
        return "a block made up without inputs".to_owned();
    };
    let prover = public.prover.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    format!(
        "block {} of chain {}, {} transactions\n  \
         state before            {}\n  \
         state after             {}\n  \
         transactions commitment {}\n  \
         prover id               {}{prover}",
        s.block_number,
        s.chain_id,
        s.transactions,
        s.state_before,
        s.state_after,
        s.transactions_commitment,
        s.prover_id
    )
}
