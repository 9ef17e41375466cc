//! The controller as processes of this machine, in a cluster of Nodes that only exist in the API.
//!
//! [`Stage`] is a namespace with the controller's rights and settings; [`Replica`] one that runs; [`Fleet`] Nodes whose
//! Leases are renewed until a test lets one fall silent; [`Recording`] what a dying kernel sent; [`Recorder`] what happened to
//! Nodes and pods, each change once; [`Audit`] what the controller asked the API server for;
//! [`Panic`] what one death cost; a [`Gate`] holds back what a leader does.

mod audit;
mod datagram;
mod fleet;
mod gate;
mod incident;
mod panic;
mod recorder;
mod replica;
mod rights;
mod stage;

pub use self::{
    audit::{Asked, Audit},
    datagram::{Recording, SECRET, SECRET_SHA256, send},
    fleet::{Fleet, Heart, Life, Member},
    gate::Gate,
    incident::{Incident, Incidents},
    panic::Panic,
    recorder::{Effect, Recorder},
    replica::{Ports, Replica},
    stage::{Stage, policy},
};

/// Names that the controller writes (`contract::remediation`).
pub const INCIDENT_ANNOTATION: &str = "detector.dev/incident";

/// Annotation with the reason.
pub const REASON_ANNOTATION: &str = "detector.dev/termination-reason";

/// Condition of a pod with the reason.
pub const POD_CONDITION: &str = "detector.dev/KernelCrash";

/// Annotation of a Node whose kernel tells who it is (`contract::netconsole`).
pub const SECRET_ANNOTATION: &str = "detector.dev/netconsole-secret-sha256";

/// Taint of a node that is off (KEP-2268).
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Who writes the controller's events: `reportingController`.
pub const REPORTER: &str = "detector.dev/controller";
