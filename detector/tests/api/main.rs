//! What agent and controller write to the Kubernetes API, against a server that answers as the real one does, or as badly as it can.

#![cfg(any(feature = "agent", feature = "controller"))]

#[cfg(feature = "agent")]
mod conditions;
#[cfg(feature = "agent")]
mod events;
mod fake_api;
#[cfg(feature = "controller")]
mod remediation;
