//! `arborist verify`: is a root proof valid for the published inputs? Needs those two files and nothing else.

use super::CliError;
use super::outputs::{Files, PublicFile};
use arborist_circuits::{RootError, verify_root};
use arborist_core::backend::VerifyError;
use arborist_core::profile::MINI_ROLLUP;
use arborist_core::proof_object::{BadObject, ProofObject};
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
    let maker = check(&bytes, &public)?;
    println!("valid: {}\nroot proof made by worker {maker}", statement_text(&public));
    Ok(())
}

/// Checks a root proof object against what was published; gives back its maker's name.
///
/// # Errors
/// [`CliError::Invalid`] names the check that failed.
pub fn check(bytes: &[u8], public: &PublicFile) -> Result<String, CliError> {
    let object = ProofObject::open(&public.task, bytes).map_err(|e| match e {
        BadObject::WrongTask { .. } => invalid("task", e),
        _ => invalid("proof object", e),
    })?;
    if public.circuits != MINI_ROLLUP {
        return Err(invalid("circuits", format!("`{}`, known are `{MINI_ROLLUP}`", public.circuits)));
    }
    match public.backend.as_str() {
        "plonky2" => {}
        "fake" => return Err(invalid("backend", "`fake` proofs prove nothing")),
        other => {
            let problem = format!("`{other}`: only `plonky2` proofs can be verified without their prover");
            return Err(invalid("backend", problem));
        }
    }
    let statement = public
        .statement
        .as_ref()
        .ok_or_else(|| invalid("statement", "public.json has none to compare with"))?;
    if let Some(name) = &public.prover
        && arborist_circuits::prover_word(name) != statement.prover_id
    {
        return Err(invalid("prover", format!("prover_id is not that of `{name}`")));
    }
    let circuit = statement.circuit().map_err(|e| invalid("transactions", e))?;
    if object.circuit != circuit {
        let problem =
            format!("{}, but {} transactions need {circuit}", object.circuit, statement.transactions);
        return Err(invalid("circuit", problem));
    }
    verify_root(statement, &object.proof).map_err(refused)?;
    Ok(object.maker.worker)
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
