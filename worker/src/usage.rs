//! What proofs that run inside this process take. The kernel counts per process and per thread, not per
//! proof, and the threads of a proof come and go: so the process's CPU time is shared out among the
//! proofs that ran at the time, by their cores. With one proof at a time it is exact.

use crate::backend::Usage;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Default)]
struct State {
    seen: Duration,
    next: u64,
    running: BTreeMap<u64, Running>,
}

struct Running {
    cores: u32,
    cpu: Duration,
    most_at_once: usize,
}

impl State {
    fn share_out(&mut self, now: Duration) {
        let spent = now.saturating_sub(self.seen);
        self.seen = now;
        let cores: u32 = self.running.values().map(|r| r.cores).sum();
        for running in self.running.values_mut() {
            running.cpu += spent * running.cores / cores;
        }
    }

    fn begin(&mut self, cores: u32, now: Duration) -> u64 {
        self.share_out(now);
        self.next += 1;
        self.running.insert(self.next, Running { cores: cores.max(1), cpu: Duration::ZERO, most_at_once: 0 });
        let count = self.running.len();
        for running in self.running.values_mut() {
            running.most_at_once = running.most_at_once.max(count);
        }
        self.next
    }

    fn end(&mut self, id: u64, now: Duration) -> (Duration, usize) {
        self.share_out(now);
        self.running.remove(&id).map_or((Duration::ZERO, 1), |r| (r.cpu, r.most_at_once.max(1)))
    }
}

/// Shares the process's CPU time and memory out among its proofs.
#[derive(Default)]
pub struct Meter(Mutex<State>);

impl Meter {
    /// Runs a proof and says what it took. Its memory is the process's peak divided by the proofs that
    /// ran at once: an upper bound that includes built circuits, since the kernel can't say more.
    pub fn measure<T>(&self, cores: u32, proof: impl FnOnce() -> T) -> (T, Usage) {
        let id = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.running.is_empty() {
                reset_peak();
            }
            state.begin(cores, process_cpu())
        };
        let out = proof();
        let (cpu, at_once) = self.0.lock().unwrap_or_else(PoisonError::into_inner).end(id, process_cpu());
        let peak_mib = peak_mib().unwrap_or(0) / u32::try_from(at_once).unwrap_or(u32::MAX);
        (out, Usage { cpu_millis: u32::try_from(cpu.as_millis()).unwrap_or(u32::MAX), peak_mib })
    }
}

fn process_cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Lets the kernel count the peak anew; where that is forbidden the peak is that of the whole life.
fn reset_peak() {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::trace!(%error, "the peak of memory can't be reset");
    }
}

fn peak_mib() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(crate::machine::kib_of(&status, "VmHWM:")? / 1024).and_then(|mib| u32::try_from(mib).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_shared_by_cores_among_those_that_run() {
        let seconds = Duration::from_secs;
        let mut state = State::default();
        let a = state.begin(1, seconds(10));
        let b = state.begin(3, seconds(14));
        assert_eq!(state.end(a, seconds(22)), (seconds(4) + seconds(2), 2));
        assert_eq!(state.end(b, seconds(23)), (seconds(6) + seconds(1), 2));
        let c = state.begin(1, seconds(30));
        assert_eq!(state.end(c, seconds(31)), (seconds(1), 1), "idle time is nobody's");
    }

    #[test]
    fn a_busy_proof_has_cpu_time_and_memory() {
        let busy = || {
            let start = process_cpu();
            while process_cpu() < start + Duration::from_millis(20) {
                std::hint::black_box(blake3::hash(&[0; 1024]));
            }
        };
        let ((), usage) = Meter::default().measure(1, busy);
        assert!(usage.cpu_millis >= 20, "{usage:?}");
        assert!(usage.peak_mib > 0, "{usage:?}");
    }
}
