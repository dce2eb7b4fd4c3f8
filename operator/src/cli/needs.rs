//! What a proof needs and how long the first of them take: the profile's, or what options say.

use super::CliError;
use super::prove::parse_duration;
use crate::api::{parse_cores, parse_memory_mib};
use arborist_core::circuit::Kind;
use arborist_core::profile::{Needs, Profile};
use std::time::Duration;

/// Settings by kind of proof. What is not said is the profile's.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NeedsArgs {
    /// What a proof of a kind needs, if not what the profile says, e.g. vm=30/52Gi,root=7/12Gi; may be repeated
    #[arg(long, env = "ARBORIST_NEEDS", value_name = "KIND=CORES/MEMORY", value_delimiter = ',',
          value_parser = parse_needs)]
    needs: Vec<(Kind, Needs)>,
    /// How long a proof of a kind takes until some were measured, e.g. vm=30s,merge=8s; may be repeated
    #[arg(long, env = "ARBORIST_FIRST_DURATION", value_name = "KIND=TIME", value_delimiter = ',',
          value_parser = parse_first)]
    first_duration: Vec<(Kind, Duration)>,
}

impl NeedsArgs {
    /// The profile with what the options say. Of a kind that is named twice the last one counts.
    pub fn of(&self, mut profile: Profile) -> Profile {
        for (kind, needs) in &self.needs {
            profile.needs[kind.index()] = *needs;
        }
        for (kind, first) in &self.first_duration {
            profile.first_millis[kind.index()] = u32::try_from(first.as_millis()).unwrap_or(u32::MAX);
        }
        profile
    }
}

/// Whether machines of this size can prove all kinds: what fits none would wait for ever.
///
/// # Errors
/// The kind that does not fit, what it needs and what there is.
pub fn check_fits(profile: &Profile, has: Needs) -> Result<(), CliError> {
    let too_large = |needs: Needs| needs.cores > has.cores || needs.memory_mib > has.memory_mib;
    match Kind::ALL.into_iter().find(|kind| too_large(profile.needs(*kind))) {
        None => Ok(()),
        Some(kind) => {
            let Needs { cores, memory_mib } = profile.needs(kind);
            let problem = format!(
                "{kind} needs {cores} cores and {memory_mib} MiB, each worker has {} and {}: start fewer workers, or \
                 say less",
                has.cores, has.memory_mib
            );
            Err(CliError::Usage { option: "--needs", problem })
        }
    }
}

fn split(text: &str) -> Result<(Kind, &str), String> {
    let (name, value) = text.split_once('=').ok_or("a kind of proof, `=` and its value are needed")?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.ok_or_else(|| format!("`{name}`: allowed is vm, kernel, base, merge or root"))?;
    Ok((kind, value))
}

fn parse_needs(text: &str) -> Result<(Kind, Needs), String> {
    let (kind, value) = split(text)?;
    let (cores, memory) = value.split_once('/').ok_or("CORES/MEMORY is needed, e.g. 30/52Gi")?;
    let needs = Needs {
        cores: parse_cores(cores).map_err(|e| e.to_string())?,
        memory_mib: parse_memory_mib(memory).map_err(|e| e.to_string())?,
    };
    Ok((kind, needs))
}

fn parse_first(text: &str) -> Result<(Kind, Duration), String> {
    let (kind, value) = split(text)?;
    Ok((kind, parse_duration(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: NeedsArgs,
    }

    fn profile(args: &[&str]) -> Result<Profile, clap::Error> {
        let line = Line::try_parse_from(std::iter::once("x").chain(args.iter().copied()));
        line.map(|line| line.args.of(Profile::local()))
    }

    #[test]
    fn what_is_said_of_a_kind_counts_and_the_rest_is_the_profiles() {
        let local = Profile::local();
        assert_eq!(profile(&[]).unwrap(), local);
        let set =
            profile(&["--needs=vm=30/52Gi,root=2/900Mi", "--needs=root=3/4Gi", "--first-duration=vm=90s"]);
        let set = set.unwrap();
        assert_eq!(set.needs(Kind::Vm), Needs { cores: 30, memory_mib: 52 << 10 });
        assert_eq!(set.needs(Kind::Root), Needs { cores: 3, memory_mib: 4 << 10 });
        assert_eq!(set.needs(Kind::Base), local.needs(Kind::Base));
        assert_eq!((set.first_millis[0], &set.first_millis[1..]), (90_000, &local.first_millis[1..]));
    }

    /// 64 GB are 59.6 GiB. The steepest rule reserves a quarter of the first 4 GiB, a fifth of the next 4, a tenth of the next 8 and
    /// 6 % of the rest, and 0.1 GiB against eviction; of cores 0.42 of 32 and 0.18 of 8.
    #[test]
    fn proofs_of_the_rfp_fit_its_machines_after_the_nodes_own_share() {
        let of = |gigabytes: f64, reserved_cores: f64, cores: f64| {
            let gib = gigabytes * 1e9 / f64::from(1 << 30);
            let reserved = 1.0 + 0.8 + 0.1 * (gib - 8.0).min(8.0) + 0.06 * (gib - 16.0).max(0.0) + 0.1;
            (cores - reserved_cores, (gib - reserved) * 1024.0)
        };
        let profile = super::super::serve::ProfileName::Rfp.profile();
        for (kind, (cores, mib)) in [(Kind::Vm, of(64.0, 0.42, 32.0)), (Kind::Root, of(16.0, 0.18, 8.0))] {
            let Needs { cores: asked, memory_mib } = profile.needs(kind);
            assert!(f64::from(asked) + 0.5 <= cores, "{kind}: {asked} cores, {cores} are left");
            assert!(f64::from(memory_mib) + 256.0 <= mib, "{kind}: {memory_mib} MiB, {mib} are left");
        }
    }

    #[test]
    fn nonsense_is_refused_and_says_what_is_allowed() {
        for (arg, said) in [
            ("--needs=vm", "CORES/MEMORY"),
            ("--needs=tree=1/1Gi", "allowed is vm, kernel, base, merge or root"),
            ("--needs=vm=1", "e.g. 30/52Gi"),
            ("--needs=vm=0/1Gi", "from 1 to 1024"),
            ("--needs=vm=1/64", "Mi, Gi or Ti"),
            ("--first-duration=vm=0s", "no time above 0"),
        ] {
            let text = profile(&[arg]).unwrap_err().to_string();
            assert!(text.contains(said), "{arg}: {text}");
        }
    }

    #[test]
    fn what_fits_no_worker_is_refused() {
        let has = Needs { cores: 2, memory_mib: 4 << 10 };
        assert!(check_fits(&Profile::local(), has).is_ok());
        let large = profile(&["--needs=merge=4/1Gi"]).unwrap();
        let error = check_fits(&large, has).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.one_line().starts_with("--needs: merge needs 4 cores and 1024 MiB"),
            "{}",
            error.one_line()
        );
    }
}
