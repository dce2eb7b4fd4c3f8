//! What the operator needs of Kubernetes beside its controllers: it leads or stands by, says where workers find it,
//! checks their tokens, keeps its keys, and knows their pods.

pub mod client;
pub mod crds;
pub mod endpoints;
pub mod gate;
pub mod health;
pub mod leader;
pub mod login;
pub mod metrics;
pub mod operator_key;
pub mod patience;
pub mod pods;
pub mod report_key;
mod secrets;
#[cfg(test)]
pub(crate) mod testing;
pub mod trust;

pub use gate::Gate;
pub use metrics::Metrics;
pub use trust::Trust;

/// The Lease that says who leads.
pub const LEASE: &str = "arborist";
/// The Secret with the certificate authority.
pub const CA_SECRET: &str = "arborist-ca";
/// The ConfigMap with the certificates that workers trust, in every namespace with pools.
pub const CA_CONFIG_MAP: &str = "arborist-ca";
/// The key of that ConfigMap, and of the Secret, that holds certificates in PEM.
pub const CA_KEY: &str = "ca.crt";
/// The Secret with the key that reports are signed with.
pub const REPORT_KEY_SECRET: &str = "arborist-report-key";
/// The Secret with the key that the journal and leases are sealed with.
pub const OPERATOR_KEY_SECRET: &str = "arborist-operator-key";
/// The EndpointSlice with the leader's address.
pub const ENDPOINT_SLICE: &str = "arborist-leader";
