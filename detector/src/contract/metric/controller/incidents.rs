//! Metrics of the controller's work on incidents: names, labels and what they mean.

use super::super::{Kind, Metric, words};

words! {
    /// How far an incident is.
    pub enum PhaseWord {
        /// There is evidence.
        Suspected = "suspected",
        /// Dead by two witnesses.
        Dead = "dead",
        /// The node is back.
        Returned = "returned",
        /// Over.
        Closed = "closed",
    }

    /// A step of the remediation.
    pub enum StepWord {
        /// New pods are kept away.
        Cordon = "cordon",
        /// The reason is written on Node and pods.
        Annotate = "annotate",
        /// Pods are deleted with their own grace.
        DeletePods = "delete_pods",
        /// Pods are set to Failed.
        FailPods = "fail_pods",
        /// The Node is tainted as out of service.
        TaintOutOfService = "taint_out_of_service",
        /// Pods are deleted without grace.
        ForceDeletePods = "force_delete_pods",
        /// The Node is deleted.
        DeleteNode = "delete_node",
        /// The taint is taken off.
        Untaint = "untaint",
        /// Our cordon is taken back.
        Uncordon = "uncordon",
        /// Reasons are taken back.
        Retract = "retract",
    }

    /// How a step ended.
    pub enum StepResult {
        /// It was done.
        Done = "done",
        /// The API server refused for good, or it was given up.
        Failed = "failed",
        /// Dry run: it was only told.
        Told = "told",
    }

    /// Why a step waits.
    pub enum HoldWord {
        /// The evidence does not suffice.
        NoCorroboration = "no_corroboration",
        /// The node is back.
        NodeReturned = "node_returned",
        /// The budget is used up.
        Budget = "budget",
        /// Too many nodes are not ready.
        ClusterUnwell = "cluster_unwell",
        /// The brake is pulled.
        Brake = "brake",
        /// Node or pods are excluded.
        Excluded = "excluded",
        /// What is so now could not be read.
        Unverified = "unverified",
    }

    /// What became of an event.
    pub enum EventFate {
        /// It was written.
        Created = "created",
        /// It had been told before.
        AlreadyThere = "already_there",
        /// It will never be written.
        Refused = "refused",
        /// A try failed.
        Failed = "failed",
        /// Too many waited.
        Dropped = "dropped",
    }

    /// What is there and not looked at.
    pub enum LeftOut {
        /// A Node beyond those that there is room for.
        Node = "node",
        /// An incident beyond those that there is room for.
        Incident = "incident",
        /// An incident that cannot be read: a later version wrote it.
        UnreadableIncident = "unreadable_incident",
    }

    /// Whether what a replica heard stands in the incident.
    pub enum TestimonyFate {
        /// It does.
        Written = "written",
        /// A try failed.
        Failed = "failed",
    }
}

/// Who leads.
pub const LEADER: Metric = Metric {
    name: "detector_controller_leader",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 on the replica that leads. The sum over all replicas is 1, but for seconds after one ended.",
};

/// Incidents.
pub const INCIDENTS: Metric = Metric {
    name: "detector_controller_incidents",
    kind: Kind::Gauge,
    unit: None,
    labels: &[words("phase", PhaseWord::WORDS)],
    help: "Incidents by how far they are, as the leader knows them; zero on other replicas.",
};

/// Suspects.
pub const SUSPECTS: Metric = Metric {
    name: "detector_controller_suspects",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Nodes whose Lease is being read, because they may be dead.",
};

/// The brake.
pub const BRAKED: Metric = Metric {
    name: "detector_controller_braked",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 if the brake was pulled when the leader read it last: no step is begun until a person releases it, but for reasons and what takes back.",
};

/// Steps.
pub const STEPS: Metric = Metric {
    name: "detector_controller_steps_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("step", StepWord::WORDS), words("result", StepResult::WORDS)],
    help: "Steps that ended, by how.",
};

/// Holds.
pub const HOLDS: Metric = Metric {
    name: "detector_controller_holds_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("reason", HoldWord::WORDS)],
    help: "Times that a step began to wait, by what for.",
};

/// Events.
pub const EVENTS: Metric = Metric {
    name: "detector_controller_events_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("result", EventFate::WORDS)],
    help: "Kubernetes events about steps and holds by what became of them.",
};

/// Testimonies.
pub const TESTIMONIES: Metric = Metric {
    name: "detector_controller_testimonies_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("result", TestimonyFate::WORDS)],
    help: "Writes of what this replica heard into incidents; a failed one is tried again unless the incident is gone.",
};

/// Lost facts.
pub const FACTS_LOST: Metric = Metric {
    name: "detector_controller_facts_lost_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Evidence without an incident: no room while the API server did not answer, refused, or told by addresses alone for too long. Anything but zero: a death may be untold.",
};

/// Objects left out.
pub const LEFT_OUT: Metric = Metric {
    name: "detector_controller_objects_left_out_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[words("object", LeftOut::WORDS)],
    help: "Times that the watch told of an object that this replica does not keep. Anything but zero: of that Node or \
           incident nothing is done.",
};

/// All of them, in the order in which they are served.
pub const METRICS: &[&Metric] =
    &[&LEADER, &INCIDENTS, &SUSPECTS, &BRAKED, &STEPS, &HOLDS, &EVENTS, &TESTIMONIES, &FACTS_LOST, &LEFT_OUT];
