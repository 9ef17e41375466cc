//! What needs the control plane only: its own health, tokens; manifests, policies, rights. One file per topic.

mod conditions;
mod control_plane;
mod pod_watch;
mod policies;
mod values;
