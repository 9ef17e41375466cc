//! What needs nodes with a real kubelet: containers, kills, hangs, and the agent that sees them. One file per topic.

mod clock;
mod hang;
mod kubelet;
mod limit;
mod lost;
mod monitoring;
mod oom;
mod rights;
mod settings;
mod stolen;
mod storm;
