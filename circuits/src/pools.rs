//! Thread pools for proofs. plonky2 spreads its work over the rayon pool it runs in, so a proof that may use
//! n threads runs in a pool of n, which no other proof uses meanwhile.

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

static FREE: LazyLock<Mutex<HashMap<usize, Vec<ThreadPool>>>> = LazyLock::new(Mutex::default);

/// A pool of this process, given back when dropped.
pub(crate) struct Pool {
    threads: usize,
    pool: Option<ThreadPool>,
}

/// A pool of this many threads (at least 1) for one proof.
pub(crate) fn take(threads: usize) -> Result<Pool, ThreadPoolBuildError> {
    let threads = threads.max(1);
    let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&threads).and_then(Vec::pop);
    let pool = match free {
        Some(pool) => pool,
        None => ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |i| format!("prove-{}of{threads}", i + 1))
            .build()?,
    };
    Ok(Pool { threads, pool: Some(pool) })
}

impl Pool {
    /// Runs it in the pool and waits for it; a panic in it goes on here.
    pub(crate) fn run<R: Send>(&self, job: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(job),
            None => job(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).entry(self.threads).or_default().push(pool);
        }
    }
}
