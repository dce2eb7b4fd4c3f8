//! `arborist verify`: is a root proof valid for the published inputs? Needs those two files and nothing else.

mod expected;

use self::expected::Expected;
use super::CliError;
use super::outputs::{Files, PublicFile};
use super::serve::PluginArgs;
use crate::dispatch::{RootCheck, RootProblem, RootVerifier};
use arborist_circuits::{Prover, Published, RootError, verify_root};
use arborist_core::backend::VerifyError;
use arborist_core::ids::ArtifactHash;
use arborist_core::profile::MINI_ROLLUP;
use arborist_core::proof_object::{BadObject, ProofObject};
use arborist_core::text::one_line;
use arborist_system::outln;
use clap::Args as ClapArgs;
use std::path::PathBuf;

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
    /// JSON file with the verification key hash of each circuit
    #[arg(long, requires = "plugin")]
    plugin_keys: Option<PathBuf>,
    #[command(flatten)]
    expected: Expected,
}

/// Checks the proof and prints what it states, and nothing else: the proof's header says more (who made it), but whoever hands
/// it over can write a new one.
///
/// # Errors
/// [`CliError::Invalid`] names the check that failed; [`CliError::Input`] when a file can't be read.
pub fn run(args: &Args) -> Result<(), CliError> {
    let result = check(args);
    if args.expected.print(&result) {
        return result.map(|_| ());
    }
    outln!("valid: {}", statement_text(&result?));
    Ok(())
}

/// What was published, if the proof is valid for it and it is what is expected.
fn check(args: &Args) -> Result<PublicFile, CliError> {
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
        ask_plugin(args, &bytes, &object, &public)?;
    } else {
        verify_root(statement, &object.proof).map_err(refused)?;
    }
    args.expected.check(statement)?;
    Ok(public)
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
        // read as everywhere: what moves a terminal's cursor is no name
        Some(name) if name.parse::<Prover>().ok().is_none_or(|p| p.word != statement.prover_id) => {
            Err(invalid("prover", format!("prover_id is not that of {name:?}")))
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

/// Lets the plug-in check the proof: the bytes that were read, and no second reading of the file.
fn ask_plugin(args: &Args, bytes: &[u8], object: &ProofObject, public: &PublicFile) -> Result<(), CliError> {
    let Some(program) = &args.plugin else {
        return Err(invalid(
            "backend",
            "`process`: only its plug-in can check the proof; name it with --plugin",
        ));
    };
    let plugin = PluginArgs {
        plugin: Some(program.clone()),
        plugin_arg: args.plugin_arg.clone(),
        plugin_keys: args.plugin_keys.clone(),
    };
    let keys = plugin.describe()?.keys;
    if keys != public.keys {
        let text = |keys: Option<ArtifactHash>| keys.map_or("none".to_owned(), |keys| keys.to_string());
        let problem = format!("bound to the keys {}, this plug-in has {}", text(public.keys), text(keys));
        return Err(invalid("verification key", problem));
    }
    let check =
        RootCheck { task: &object.task, circuit: object.circuit, proof: &object.proof, object: bytes };
    plugin.verifier()?.verify(check).map_err(|problem| match problem {
        RootProblem::Unable(text) => CliError::input(program, text),
        problem => invalid("proof", problem),
    })
}

/// What a root proof states, as text.
pub fn statement_text(public: &PublicFile) -> String {
    let Some(s) = &public.statement else {
        return "a block made up without inputs".to_owned();
    };
    let prover = public.prover.as_deref().map(|name| format!(" ({})", one_line(name))).unwrap_or_default();
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
