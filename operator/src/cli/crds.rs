//! `arborist crds`: the custom resource definitions, generated from the types in `api`.

use super::CliError;
use crate::api::crd;
use arborist_system::out;
use clap::Args as ClapArgs;
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `arborist crds`; without any, the definitions go to standard output.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Write one file for each definition into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    dir: Option<PathBuf>,
    /// Compare with the files of this folder and fail, naming the file, when one is not what would be written
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
    /// Write, or with --check compare, the reference of all fields too
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
}

/// Prints, writes or compares the definitions.
///
/// # Errors
/// A file can't be read or written, or is not what would be written.
pub fn run(args: &Args) -> Result<(), CliError> {
    let definitions = crd::definitions();
    let folder = args.dir.as_ref().or(args.check.as_ref());
    let mut files: Vec<(PathBuf, String)> = folder
        .map_or_else(Vec::new, |dir| definitions.iter().map(|d| (dir.join(&d.file), d.yaml())).collect());
    if let Some(docs) = &args.docs {
        files.push((docs.clone(), crd::reference(&definitions)));
    }
    if files.is_empty() {
        let all: String = definitions.iter().map(|d| format!("---\n{}", d.yaml())).collect();
        out!("{all}");
        return Ok(());
    }
    let each = if args.check.is_some() { compare } else { write };
    files.iter().try_for_each(|(file, text)| each(file, text))
}

fn write(file: &Path, text: &str) -> Result<(), CliError> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|e| CliError::input(folder, e))?;
    }
    fs::write(file, text).map_err(|e| CliError::input(file, e))
}

fn compare(file: &Path, text: &str) -> Result<(), CliError> {
    let found = fs::read_to_string(file).map_err(|e| CliError::input(file, e))?;
    if found == text {
        return Ok(());
    }
    let line = found.lines().zip(text.lines()).take_while(|(a, b)| a == b).count() + 1;
    let problem = format!("not what the types say, from line {line} on: run `make crds`");
    Err(CliError::Failed(format!("{}: {problem}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: Option<&Path>, check: Option<&Path>, docs: Option<&Path>) -> Args {
        let owned = |path: Option<&Path>| path.map(Path::to_owned);
        Args { dir: owned(dir), check: owned(check), docs: owned(docs) }
    }

    #[test]
    fn what_was_written_passes_the_check_until_it_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (crds, docs) = (dir.path().join("crds"), dir.path().join("docs/api.md"));
        run(&args(Some(&crds), None, Some(&docs))).unwrap();
        run(&args(None, Some(&crds), Some(&docs))).unwrap();
        for file in [
            crds.join("proverpools.arborist.dev.yaml"),
            crds.join("provingjobs.arborist.dev.yaml"),
            docs.clone(),
        ] {
            let good = fs::read_to_string(&file).unwrap();
            fs::write(&file, format!("{good}# more\n")).unwrap();
            let error = run(&args(None, Some(&crds), Some(&docs))).unwrap_err().one_line();
            assert!(error.contains(&file.display().to_string()) && error.contains("make crds"), "{error}");
            fs::remove_file(&file).unwrap();
            assert!(run(&args(None, Some(&crds), Some(&docs))).is_err());
            fs::write(&file, good).unwrap();
        }
    }
}
