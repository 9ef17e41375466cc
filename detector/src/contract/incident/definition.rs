//! The definition of `KernelIncident` as it is installed.

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::KernelIncident;

/// The line above the definition in its file.
pub const HEADER: &str = "\
# What the controller writes down about each kernel that died. Made from detector/src/contract/incident.rs by
# `cargo xtask gen`.
";

/// The definition, with what its type cannot say.
///
/// It is a template of the chart and not in its folder `crds/`, of which Helm never upgrades anything; so that no `helm
/// uninstall` deletes all incidents with it, Helm is told to keep it.
#[must_use]
pub fn definition() -> Value {
    let mut definition = serde_json::to_value(KernelIncident::crd()).unwrap_or_default();
    definition["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
    definition["metadata"]["labels"] = json!({ "app.kubernetes.io/name": "detector" });
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    forbid_null(schema);
    schema["description"] =
        json!("What ended the kernel of a node, who is suspected, which pods died with it, what was done.");
    // Rules of the status are not asked when it is taken away.
    schema["x-kubernetes-validations"] = json!([{
        "message": "a closed incident stays closed",
        "rule": "!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase != 'Closed' || has(self.status)",
    }]);
    definition
}

/// What is not known is missing: nobody writes `null`, and rules need not think of it.
fn forbid_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            fields.values_mut().for_each(forbid_null);
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::contract::incident::{
        KernelIncidentSpec, KernelIncidentStatus, MAX_EVIDENCE, MAX_LOG_BYTES, MAX_LOGS, MAX_MESSAGE_BYTES, MAX_PODS,
        MAX_STEPS,
    };

    fn status() -> Value {
        definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"].clone()
    }

    #[test]
    fn the_definition_is_kept_when_the_chart_goes() {
        assert_eq!(definition()["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        assert_eq!(definition()["metadata"]["name"], "kernelincidents.detector.dev");
    }

    #[test]
    fn the_bounds_of_the_definition_are_those_of_the_code() {
        let status = status();
        let most = |list: &str| status["properties"][list]["maxItems"].as_u64();
        let bounds = [("evidence", MAX_EVIDENCE), ("logs", MAX_LOGS), ("pods", MAX_PODS), ("steps", MAX_STEPS)];
        for (list, bound) in bounds {
            assert_eq!(most(list), u64::try_from(bound).ok(), "{list}");
        }
        let longest =
            |list: &str, field: &str| status["properties"][list]["items"]["properties"][field]["maxLength"].as_u64();
        assert_eq!(longest("logs", "text"), u64::try_from(MAX_LOG_BYTES).ok());
        assert_eq!(longest("evidence", "message"), u64::try_from(MAX_MESSAGE_BYTES).ok());
    }

    #[test]
    fn what_is_not_known_is_missing_and_never_null() {
        assert!(!definition().to_string().contains("nullable"));
        let spec = KernelIncidentSpec {
            node: "node-a".to_owned(),
            node_uid: None,
            boot_id: None,
            time: MicroTime(jiff::Timestamp::UNIX_EPOCH),
        };
        let incident = KernelIncident::new("a", spec);
        let with_status = KernelIncident { status: Some(KernelIncidentStatus::default()), ..incident.clone() };
        for incident in [incident, with_status] {
            let text = serde_json::to_string(&incident).expect("JSON");
            assert!(!text.contains("null"), "{text}");
        }
    }

    #[test]
    fn rules_stand_where_the_server_looks_for_them() {
        let version = definition()["spec"]["versions"][0].clone();
        let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["x-kubernetes-validations"][0]["rule"], "self == oldSelf");
        let whole = &version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"];
        assert_eq!(whole.as_array().map(Vec::len), Some(1));
        assert_eq!(status()["x-kubernetes-validations"].as_array().map(Vec::len), Some(2));
        let selectable: Vec<_> = version["selectableFields"].as_array().into_iter().flatten().collect();
        assert_eq!(selectable.len(), 3, "{selectable:?}");
        assert_eq!(version["subresources"]["status"], json!({}));
    }
}
