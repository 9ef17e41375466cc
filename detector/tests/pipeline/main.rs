//! The whole flow without kernel and cluster: recorded bytes in, lines out.
//!
//! The recordings are real (`tests/fixtures/ring`); what this machine's kernel does not do (group kills) and what no
//! healthy kernel does (cut records) is made from them by changing the bytes.

#![cfg(feature = "agent")]

mod incidents;
mod kills;
mod losses;
mod machine;
mod naming;
mod properties;
mod recording;
mod session;
mod summary;
