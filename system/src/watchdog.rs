//! Parts of a program that have to go on say so, and are missed when they don't.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The parts that are watched; clones watch the same ones.
#[derive(Clone, Default)]
pub struct Watchdog(Arc<Mutex<Parts>>);

#[derive(Default)]
struct Parts {
    next: u64,
    parts: BTreeMap<u64, Part>,
}

struct Part {
    name: String,
    limit: Duration,
    beat: Arc<Beat>,
}

struct Beat {
    origin: Instant,
    /// Milliseconds since the origin.
    last: AtomicU64,
}

impl Beat {
    fn millis(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

impl Watchdog {
    /// From now on a part of this name has to show that it goes on, each time within the limit, for as long as what this
    /// returns lives.
    pub fn watch(&self, name: impl Into<String>, limit: Duration) -> Pulse {
        let beat = Arc::new(Beat { origin: Instant::now(), last: AtomicU64::new(0) });
        let mut parts = self.lock();
        parts.next += 1;
        let number = parts.next;
        parts.parts.insert(number, Part { name: name.into(), limit, beat: beat.clone() });
        Pulse { watchdog: self.clone(), number, beat }
    }

    /// Runs a part that has to be polled now and then, and watches that it is: a thread that it blocks, or a lock that it
    /// waits for, keeps it from that.
    pub async fn keep<F: Future>(&self, name: impl Into<String>, limit: Duration, part: F) -> F::Output {
        let pulse = self.watch(name, limit);
        let mut ticks = tokio::time::interval(limit / 10);
        let mut part = std::pin::pin!(part);
        loop {
            tokio::select! {
                output = &mut part => return output,
                _ = ticks.tick() => pulse.beat(),
            }
        }
    }

    /// The parts that have not shown themselves in time, one line each; empty when all goes on.
    pub fn stuck(&self) -> Vec<String> {
        let parts = self.lock();
        let stuck = parts.parts.values().filter(|part| part.beat.silence() > part.limit);
        stuck.map(|part| format!("{}: stuck for {} s", part.name, part.beat.silence().as_secs())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part's sign of life; it is watched no more when this is dropped.
pub struct Pulse {
    watchdog: Watchdog,
    number: u64,
    beat: Arc<Beat>,
}

impl Pulse {
    /// It goes on.
    pub fn beat(&self) {
        self.beat.last.store(self.beat.millis(), Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.watchdog.lock().parts.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_go_on_is_named_until_it_does_or_has_ended() {
        let watchdog = Watchdog::default();
        let never_late = watchdog.watch("patient", Duration::from_secs(3600));
        let late = watchdog.watch("slow", Duration::ZERO);
        while watchdog.stuck().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(watchdog.stuck(), ["slow: stuck for 0 s"]);
        never_late.beat();
        drop(late);
        assert!(watchdog.stuck().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_part_that_blocks_its_thread_is_missed() {
        let watchdog = Watchdog::default();
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let kept = watchdog.clone();
        let part = tokio::spawn(async move {
            kept.keep("deaf", Duration::from_millis(50), async move {
                tokio::task::yield_now().await;
                let _opened = gate.recv();
            })
            .await;
        });
        while watchdog.stuck().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(watchdog.stuck()[0].starts_with("deaf: stuck"));
        go.send(()).unwrap();
        part.await.unwrap();
        assert!(watchdog.stuck().is_empty());
    }
}
