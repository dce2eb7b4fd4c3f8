//! Artifact store client.
