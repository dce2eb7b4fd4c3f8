//! What the controller asks of the engine, and tells it.

use crate::dispatch::Dispatcher;
use arborist_core::engine::{Demand, Millis, WorkerBrief};
use std::time::Duration;

/// The engine, as far as pods matter. Workers are named `<namespace>/<pod>`.
pub(super) trait Workforce: Send + Sync + 'static {
    /// The engine's clock, in milliseconds since 1970: what it says of workers is by it.
    fn now(&self) -> Millis;
    /// What all jobs ask for now and within this time.
    fn demand(&self, within: Duration) -> Vec<Demand>;
    /// All workers that are connected or hold leases.
    fn workers(&self) -> Vec<WorkerBrief>;
    /// Of these workers those that hold no lease take nothing new until they are dead, also when they log in anew;
    /// returns them.
    fn drain_idle(&self, workers: &[String]) -> Vec<String>;
    /// A worker takes nothing new until it is dead.
    fn drain(&self, worker: &str);
    /// A worker is to log in anew, with what it runs: what is known of its pool has changed.
    fn log_in_anew(&self, worker: &str);
    /// A worker's process is gone for good.
    fn dead(&self, worker: &str);
    /// A worker's process was killed for lack of memory.
    fn out_of_memory(&self, worker: &str, incident: &str);
}

impl Workforce for Dispatcher {
    fn now(&self) -> Millis {
        self.now()
    }

    fn demand(&self, within: Duration) -> Vec<Demand> {
        self.demand(within)
    }

    fn workers(&self) -> Vec<WorkerBrief> {
        self.worker_states()
    }

    fn drain_idle(&self, workers: &[String]) -> Vec<String> {
        self.drain_idle(workers)
    }

    fn drain(&self, worker: &str) {
        self.drain(worker);
    }

    fn log_in_anew(&self, worker: &str) {
        self.log_in_anew(worker);
    }

    fn dead(&self, worker: &str) {
        self.worker_dead(worker);
    }

    fn out_of_memory(&self, worker: &str, incident: &str) {
        self.worker_out_of_memory(worker, incident);
    }
}
