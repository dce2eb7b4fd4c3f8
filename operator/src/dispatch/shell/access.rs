//! Who may do what in the artifact store that is served to workers: a session writes the proofs of leases
//! that its worker holds, and reads what these are made from.

use super::Dispatcher;
use super::core::Core;
use crate::store::http::{Access, Key, Right};
use arborist_core::engine::Session;

impl Access for Dispatcher {
    fn may_read(&self, token: &str, key: &Key) -> Right {
        self.right(token, |core, session| writes(core, session, key) || needs(core, session, key))
    }

    fn may_write(&self, token: &str, key: &Key) -> Right {
        self.right(token, |core, session| writes(core, session, key))
    }
}

impl Dispatcher {
    fn right(&self, token: &str, has: impl FnOnce(&Core, Session) -> bool) -> Right {
        self.inner.room.look(|core| match core.tokens.get(token) {
            None => Right::Unknown,
            Some(session) if has(core, Session(*session)) => Right::Granted,
            Some(_) => Right::Forbidden,
        })
    }
}

fn writes(core: &Core, session: Session, key: &Key) -> bool {
    match key {
        Key::Proof(task) => core.engine.holds(session, task),
        Key::Input(_) => false,
    }
}

/// Whether one of the session's leases has it as an input or a child. They are few: what a machine runs and
/// what waits for it.
fn needs(core: &Core, session: Session, key: &Key) -> bool {
    core.engine.held_places(session).any(|(job, node)| {
        let Some(tree) = core.engine.prepared_job(job) else { return false };
        match key {
            Key::Input(hash) => tree.leaves.inputs(&tree.shape, node).is_some_and(|input| input == *hash),
            Key::Proof(task) => {
                let children = tree.shape.children(node);
                children.as_slice().iter().any(|child| tree.ids[child.index()] == *task)
            }
        }
    })
}
