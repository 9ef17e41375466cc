//! What needs the control plane only: its own health, tokens; manifests, policies, rights. One file per topic.

mod conditions;
mod control_plane;
mod controller;
mod incidents;
mod netconsole;
mod pod_watch;
mod policies;
mod values;
