//! File descriptors: every connection takes one, and the usual soft limit is 1,024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More are of no use, and some programs that a child may run look at each number up to the limit.
const MOST: u64 = 1 << 20;

/// Raises this process's soft limit to the hard one, as far as that is of use. How many it may have open now.
pub fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let wanted = hard.min(MOST);
    if wanted <= soft || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_err() {
        return soft;
    }
    wanted
}

/// How the descriptors of a process are shared out, so that none of its parts takes them all: what is left over is for
/// files, for connections that it makes itself, and for its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Connections of workers.
    pub workers: usize,
    /// Requests to the built-in artifact store.
    pub store: usize,
    /// Requests for health, metrics and jobs.
    pub http: usize,
}

impl Shares {
    /// Of what this process may have open now.
    pub fn now() -> Self {
        Self::of(getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft))
    }

    fn of(limit: u64) -> Self {
        let limit = usize::try_from(limit.min(MOST)).unwrap_or(1024);
        Self { workers: limit / 2, store: (limit / 4).min(16_384), http: (limit / 8).clamp(1, 1024) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise_limit(), hard.min(MOST));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, hard.min(MOST));
    }

    #[test]
    fn no_part_takes_all_descriptors() {
        for limit in [64, 256, 1024, 65_536, 1 << 20, u64::MAX] {
            let Shares { workers, store, http } = Shares::of(limit);
            assert!(workers > 0 && store > 0 && http > 0, "{limit}");
            assert!((workers + store + http) as u64 <= limit - limit.min(MOST) / 8, "{limit}");
        }
    }
}
