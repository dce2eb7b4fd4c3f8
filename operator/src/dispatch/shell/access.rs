//! Who may do what in the built-in artifact store: a session's token reads everything, and writes the
//! proofs of leases that its worker holds.

use super::Dispatcher;
use crate::store::http::Access;
use arborist_core::engine::Session;

impl Access for Dispatcher {
    fn may_read(&self, token: &str) -> bool {
        self.inner.room.look(|core| core.tokens.contains_key(token))
    }

    fn may_write(&self, token: &str, key: &str) -> bool {
        let Some(task) = key.strip_prefix("proofs/").and_then(|id| id.parse().ok()) else { return false };
        self.inner.room.look(|core| {
            core.tokens.get(token).is_some_and(|session| core.engine.holds(Session(*session), &task))
        })
    }
}
