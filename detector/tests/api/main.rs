//! What the agent writes to the Kubernetes API, against a server that answers as the real one does, or as badly as it can.

#![cfg(feature = "agent")]

mod conditions;
mod events;
mod fake_api;
