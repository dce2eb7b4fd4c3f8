//! What outlives the dispatcher: the journal, and the artifact store that an operator serves itself.

pub mod http;
pub mod journal;
