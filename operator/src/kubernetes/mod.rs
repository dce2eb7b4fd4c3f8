//! What the operator needs of Kubernetes beside its controllers: leadership, certificates, tokens, pods.

pub mod pods;
