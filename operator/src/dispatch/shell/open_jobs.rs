//! Changes to jobs that go on, and looks at many jobs a part at a time.

use super::{Dispatcher, Inner, JobError, STATES, state_index};
use crate::dispatch::net::SendBuffers;
use arborist_core::engine::{Event, JobId, JobState, JobView};

impl Dispatcher {
    /// Moves a job's deadline (milliseconds since 1970) and its priority, what is given of them, both or none. Durable
    /// when this returns.
    ///
    /// # Errors
    /// [`JobError::Ended`], and nothing changes; others as everywhere.
    pub async fn move_open(
        &self,
        id: JobId,
        deadline: Option<Option<u64>>,
        priority: Option<i32>,
    ) -> Result<(), JobError> {
        let deadline = deadline.map(|deadline| Event::Deadline(id, deadline));
        let priority = priority.map(|priority| Event::Priority(id, priority));
        self.change_open(id, deadline.into_iter().chain(priority).collect()).await
    }

    /// Suspends or resumes a job that goes on. Durable when this returns.
    ///
    /// # Errors
    /// As [`Dispatcher::move_open`].
    pub async fn suspend_open(&self, id: JobId, suspended: bool) -> Result<(), JobError> {
        self.change_open(id, vec![Event::Suspend(id, suspended)]).await
    }

    /// Stops work on a job that goes on; one that was cancelled before stays so. Durable when this returns.
    ///
    /// # Errors
    /// As [`Dispatcher::move_open`].
    pub async fn cancel_open(&self, id: JobId) -> Result<(), JobError> {
        match self.change_open(id, vec![Event::Cancel(id)]).await {
            Err(JobError::Ended { state, .. }) if state == STATES[state_index(&JobState::Cancelled)] => {
                Ok(())
            }
            result => result,
        }
    }

    async fn change_open(&self, id: JobId, events: Vec<Event>) -> Result<(), JobError> {
        self.inner.change_open(id, events)?;
        self.inner.durable().await.map_err(|_| JobError::Stopped)
    }

    /// Jobs with numbers above `after`, at most `limit` of them, by number.
    pub fn jobs_after(&self, after: u32, limit: usize) -> Vec<JobView> {
        self.inner.room.look(|core| {
            let ids = core.engine.jobs().filter(|id| id.0 > after);
            ids.take(limit).filter_map(|id| core.engine.job(id)).collect()
        })
    }
}

impl Inner {
    /// Hands events to the engine if the job goes on, under one lock: it can't end in between.
    fn change_open(&self, id: JobId, events: Vec<Event>) -> Result<(), JobError> {
        if self.stopping.is_cancelled() {
            return Err(JobError::Stopped);
        }
        self.room.drive(&mut SendBuffers::default(), |core, now| {
            let (_, state) = core.engine.counts(id).ok_or(JobError::Unknown(id))?;
            if !matches!(state, JobState::Proving | JobState::Checking) {
                return Err(JobError::Ended { job: id, state: STATES[state_index(state)] });
            }
            events.into_iter().for_each(|event| core.event(now, event));
            core.publish(id);
            Ok(())
        })
    }
}
