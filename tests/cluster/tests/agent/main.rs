//! What needs the control plane and an agent on this machine, which is killed, cut off and starved: nothing is lost, and
//! nothing is told twice. One file per topic. Run one after the other: the machine's count of kills is each test's own.

mod cleanup;
mod gone;
mod killed;
mod names;
mod outage;
mod settings;
mod state;
mod storm;
mod upgrade;
