//! What a thread saw.

use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Stats {
    pub done: u64,
    pub first: Option<Instant>,
    pub last: Option<Instant>,
    /// A worker's own next task: from its result to its next lease.
    pub own: Vec<Duration>,
    /// A parked worker: from the result that made a task ready to its lease.
    pub parked: Vec<Duration>,
    /// Proofs put into the store.
    pub made: u64,
    /// Leases of tasks whose proof was there.
    pub found: u64,
    /// Leases of tasks whose result had been acknowledged.
    pub leased_after_ack: u64,
    pub reconnects: u64,
    pub revoked: u64,
}

impl Stats {
    pub fn add(&mut self, other: Self) {
        self.done += other.done;
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = [self.last, other.last].into_iter().flatten().max();
        self.own.extend(other.own);
        self.parked.extend(other.parked);
        self.made += other.made;
        self.found += other.found;
        self.leased_after_ack += other.leased_after_ack;
        self.reconnects += other.reconnects;
        self.revoked += other.revoked;
    }

    pub fn json(mut self) -> serde_json::Value {
        let seconds = match (self.first, self.last) {
            (Some(first), Some(last)) => (last - first).as_secs_f64(),
            _ => 0.0,
        };
        serde_json::json!({
            "done": self.done,
            "seconds": seconds,
            "cpu": cpu_seconds(),
            "own": quantiles(&mut self.own),
            "parked": quantiles(&mut self.parked),
            "made": self.made,
            "found": self.found,
            "leased_after_ack": self.leased_after_ack,
            "reconnects": self.reconnects,
            "revoked": self.revoked,
        })
    }
}

/// CPU seconds of this process, logins included.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Count, and p50, p99 and the worst in milliseconds.
fn quantiles(all: &mut [Duration]) -> serde_json::Value {
    all.sort_unstable();
    let at = |part: f64| {
        let place = ((all.len() as f64 * part).ceil() as usize).clamp(1, all.len().max(1)) - 1;
        all.get(place).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    };
    serde_json::json!({ "count": all.len(), "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
}
