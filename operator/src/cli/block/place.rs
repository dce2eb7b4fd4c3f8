//! Where the block of `prove` and `run` is: a file, or a URL as a ProvingJob's source has one.

use super::{check_profile, read_checked};
use crate::cli::CliError;
use crate::cli::serve::BackendName;
use crate::egress::{Reach, shown};
use crate::intake::{
    ANYWHERE, BlockFile, Budget, Fetched, SourceError, Turn, check_url, fetch, parse_sha256,
};
use arborist_core::profile::Profile;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use url::Url;

/// What `--block` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file, its private proofs in the folder `objects` beside it.
    File(PathBuf),
    /// An address, as `arborist block push` prints it.
    Url(Url),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            check_url(text, &ANYWHERE).map(Self::Url)
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

/// What `--sha256` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256Sum([u8; 32]);

impl FromStr for Sha256Sum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_sha256(text).map(Self)
    }
}

/// A block that the options name.
pub enum Named {
    /// It was read and checked.
    Here(BlockFile),
    /// It has to be fetched.
    Elsewhere(Elsewhere),
}

/// A block file that has to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    url: Url,
    sha256: [u8; 32],
}

impl Place {
    /// Reads a file, or says what is to be fetched.
    ///
    /// # Errors
    /// A bad file; a URL without `--sha256`, or a file with it.
    pub fn find(&self, sha256: Option<Sha256Sum>, backend: BackendName) -> Result<Named, CliError> {
        let usage = |problem: &str| CliError::Usage { option: "--sha256", problem: problem.into() };
        match (self, sha256) {
            (Self::File(file), None) => Ok(Named::Here(read_checked(file, backend)?)),
            (Self::File(_), Some(_)) => Err(usage("given with a file, allowed is a --block with a URL")),
            (Self::Url(url), Some(Sha256Sum(sha256))) => {
                Ok(Named::Elsewhere(Elsewhere { url: url.clone(), sha256 }))
            }
            (Self::Url(_), None) => {
                Err(usage("missing: a --block with a URL needs it, as `arborist block push` prints both"))
            }
        }
    }
}

impl Elsewhere {
    /// Fetches and reads the block file, as soon as the budget has memory for it; `waits` is told why it has to wait. With
    /// the same limits and checks as a ProvingJob's source: its private proofs are verified by the workers.
    ///
    /// # Errors
    /// It can't be had now, is another file, or no block that can be proven.
    pub async fn fetch(
        &self,
        budget: &Budget,
        waits: impl Fn(String) + Send + Sync,
    ) -> Result<BlockFile, CliError> {
        let turn = Turn { budget, waits: &|why| _ = why.map(&waits) };
        // it is the user's own machine
        let fetched = fetch(&self.url, Reach::Everything, &turn).await;
        let Fetched { json, reserved, objects } = fetched.map_err(|error| match error {
            SourceError::Unavailable(why) => CliError::NotNow(format!("--block: {why}")),
            SourceError::Bad(problem) => CliError::Usage { option: "--block", problem },
        })?;
        let (this, file) = (self.clone(), PathBuf::from(shown(&self.url)));
        let read = move || {
            this.check(&json)?;
            let read = BlockFile::read(json, Profile::local().max_calls, objects, Some(reserved));
            let read = read.map_err(|source| CliError::Block { file: file.clone(), source })?;
            check_profile(Path::new(&file), read.block())?;
            Ok(read)
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| CliError::failed("read the block file", error))?
    }

    fn check(&self, json: &[u8]) -> Result<(), CliError> {
        let found: [u8; 32] = Sha256::digest(json).into();
        if found == self.sha256 {
            return Ok(());
        }
        let (found, wanted) = (hex::encode(found), hex::encode(self.sha256));
        let problem = format!("the source has SHA-256 {found}, the option says {wanted}");
        Err(CliError::Usage { option: "--sha256", problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_a_scheme_is_a_url_and_has_to_be_an_allowed_one() {
        for (text, file) in
            [("block.json", true), ("/b:1/x", true), ("s3://b/k", false), ("file:///b", false)]
        {
            let place: Place = text.parse().unwrap();
            assert_eq!(matches!(place, Place::File(_)), file, "{text}");
        }
        let refused = "ftp://h/b".parse::<Place>().unwrap_err();
        assert_eq!(refused, "allowed are http://, https://, s3://, gs://, az:// and file://");
    }

    #[test]
    fn a_url_needs_a_hash_and_a_file_takes_none() {
        let hash = Some(Sha256Sum([1; 32]));
        for (text, sha256, said) in
            [("https://h/b", None, "--sha256: missing"), ("block.json", hash, "--sha256: given with a file")]
        {
            let error = text.parse::<Place>().unwrap().find(sha256, BackendName::Fake).map(drop).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().starts_with(said), "{error}");
        }
    }
}
