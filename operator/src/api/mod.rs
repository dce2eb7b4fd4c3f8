//! The Kubernetes API: group `arborist.dev`, version `v1alpha1`.
//!
//! These types are the source of `crds/`: `arborist crds` prints what is generated from them.

pub mod conditions;
pub mod crd;
mod proverpool;
mod provingjob;
mod quantity;

pub use proverpool::*;
pub use provingjob::*;
pub use quantity::{
    BadQuantity, parse_bytes, parse_cores, parse_duration, parse_memory_mib, parse_price_micros,
};

/// The API group.
pub const GROUP: &str = "arborist.dev";
/// On each worker pod: the name of its pool.
pub const LABEL_POOL: &str = "arborist.dev/pool";
/// On each object that the operator makes.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`LABEL_MANAGED_BY`], and the field manager of everything the operator writes.
pub const MANAGER: &str = "arborist";
/// The audience of the tokens that workers log in with.
pub const TOKEN_AUDIENCE: &str = "arborist";
