//! The flow for a cluster: source → decode → incident → remediation → sink.
//!
//! ```text
//! UDP datagrams ─▶ source ─▶ decode ────▶ incident ─▶ KernelIncident ─▶ remediation ─▶ API, events, metrics
//! Nodes, Leases ─▶        ──────────────▶   who, which, how sure            leader only
//! ```
//!
//! Every replica hears datagrams and watches Nodes, and writes what it heard into the incident. What follows from all
//! evidence together (cause, suspect, phase) and every step is the leader's, made anew from the object each time: no replica
//! holds anything that is not in the object or heard again, so that a restart or a change of leader harms nothing.

pub mod decode;
pub mod incident;
pub mod leader;
pub mod remediation;
pub mod service;
pub mod sink;
pub mod source;
