//! The whole flow without kernel and cluster: recorded bytes in, lines out.
//!
//! The recordings are real (`tests/fixtures/ring`); what this machine's kernel does not do (group kills) and what no
//! healthy kernel does (cut records) is made from them by changing the bytes. Hung tasks are made whole: no machine of
//! ours hangs to be recorded.

#![cfg(feature = "agent")]

mod containers;
mod hangs;
mod incidents;
mod kills;
mod log;
mod losses;
mod machine;
mod naming;
mod properties;
mod recording;
mod session;
mod summary;
