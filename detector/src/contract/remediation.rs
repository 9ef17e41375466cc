//! Names that remediation writes on Nodes, pods and in the controller's namespace.

/// Label of a Node or a Namespace that is to be left alone, with the value [`OPT_OUT_VALUE`].
pub const OPT_OUT: &str = "detector.dev/remediation";

/// Value of [`OPT_OUT`].
pub const OPT_OUT_VALUE: &str = "disabled";

/// Annotation of pods and Node with the reason, for people; further keys by setting.
pub const REASON_ANNOTATION: &str = "detector.dev/termination-reason";

/// Annotation of pods and Node with the name of the incident. The admission policy on deletion asks for it.
pub const INCIDENT_ANNOTATION: &str = "detector.dev/incident";

/// Annotation of a Node that we cordoned: name of the incident. A node without it was cordoned by somebody else, and stays so.
pub const CORDON_ANNOTATION: &str = "detector.dev/cordoned-for";

/// Pod condition.
pub const POD_CONDITION: &str = "detector.dev/KernelCrash";

/// Pod condition of Kubernetes, which Jobs ignore in their `podFailurePolicy` (KEP-3329).
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Reason of pods, in the conditions and in `status.reason`, after a panic.
pub const REASON_PANIC: &str = "KernelPanic";

/// The same after a death without words.
pub const REASON_LOST: &str = "NodeLost";

/// Name of the ConfigMap that holds the brake.
pub const BRAKE_NAME: &str = "detector-brake";

/// The time within which the budget of an hour counts nodes.
pub const BUDGET_HOUR: core::time::Duration = core::time::Duration::from_secs(3600);

/// Name of the Lease of the leader.
pub const LEADER_LEASE: &str = "detector-controller";

/// Field manager of the leader.
pub const FIELD_MANAGER: &str = "detector-controller";

/// `reportingController` of the controller's events.
pub const REPORTING_CONTROLLER: &str = "detector.dev/controller";

/// Key of the taint that says that a node is off for sure (KEP-2268).
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Value of [`OUT_OF_SERVICE`] where we set it: one of another value is a person's, and stays.
pub const OUT_OF_SERVICE_VALUE: &str = "detector";
