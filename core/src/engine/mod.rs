//! The engine: `handle(now, event, &mut commands)`, nothing else changes its state.

mod api;

pub use api::*;
