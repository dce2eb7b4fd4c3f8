//! Schemas of the parts of a pod that a pool may set. Kubernetes' own types come without bounds and list types, with
//! descriptions of 100 kB, and with kinds of volume that the workers' PodSecurity level forbids.

use super::schema::walk;
use serde_json::{Map, Value, json};

/// The template's fields of Kubernetes' types.
pub const FIELDS: [&str; 7] = [
    "affinity",
    "env",
    "imagePullSecrets",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
];

/// The volumes that PodSecurity's level `restricted` allows: a pod with another would be refused later, and for
/// reasons that its pool's author does not see.
pub const VOLUME_KINDS: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// A worker has no token but the one it logs in with, so no token can be projected by a pool.
const PROJECTED: [&str; 3] = ["configMap", "downwardAPI", "secret"];
/// Environment from files needs a feature gate.
const ENV_SOURCES: [&str; 4] = ["configMapKeyRef", "fieldRef", "resourceFieldRef", "secretKeyRef"];
/// All that a claim takes over from its template.
const CLAIM_METADATA: [&str; 2] = ["annotations", "labels"];

/// Names that the pod is refused for otherwise.
const NAMES: [(&str, u32, &str); 2] =
    [("volumes", 63, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), ("env", 253, "^[ -<>-~]+$")];

/// Bounds everything in the properties of a worker template that is of a Kubernetes type.
pub fn tighten(template: &mut Value) {
    keep(template, "/volumes/items/properties", &[&VOLUME_KINDS[..], &["name"]].concat());
    keep(template, "/volumes/items/properties/projected/properties/sources/items/properties", &PROJECTED);
    keep(
        template,
        "/volumes/items/properties/ephemeral/properties/volumeClaimTemplate/properties/metadata/properties",
        &CLAIM_METADATA,
    );
    keep(template, "/env/items/properties/valueFrom/properties", &ENV_SOURCES);
    for field in FIELDS {
        if let Some(schema) = template.get_mut(field) {
            let words = schema["description"].clone();
            walk(schema, &mut structure);
            bound_properties(schema, field);
            // the field itself is described in this crate's words, at full length
            schema["description"] = words;
        }
    }
    for (field, max, pattern) in NAMES {
        let name = &mut template[field]["items"]["properties"]["name"];
        name["maxLength"] = json!(max);
        name["pattern"] = json!(pattern);
    }
}

fn keep(template: &mut Value, pointer: &str, names: &[&str]) {
    if let Some(properties) = template.pointer_mut(pointer).and_then(Value::as_object_mut) {
        properties.retain(|name, _| names.contains(&name.as_str()));
    }
}

/// List types, bounded lists and maps, quantities, short descriptions.
fn structure(schema: &mut Map<String, Value>) {
    if let Some(words) = schema.get("description").and_then(Value::as_str) {
        let words = first_sentence(words);
        schema.insert("description".into(), words.into());
    }
    if schema.get("type") == Some(&json!("array")) {
        // as in Kubernetes' API: lists within these types are atomic
        schema.entry("x-kubernetes-list-type").or_insert(json!("atomic"));
        schema.entry("maxItems").or_insert(json!(32));
    }
    if schema.contains_key("additionalProperties") {
        schema.entry("maxProperties").or_insert(json!(32));
        bound_string(&mut schema["additionalProperties"], "value of a map");
    }
    if schema.contains_key("matchExpressions") {
        schema.entry("x-kubernetes-map-type").or_insert(json!("atomic"));
    }
    if schema.contains_key("x-kubernetes-int-or-string") {
        schema.insert("anyOf".into(), json!([{ "type": "integer" }, { "type": "string" }]));
        schema.insert("pattern".into(), json!(QUANTITY));
        schema.insert("maxLength".into(), json!(32));
    }
}

/// A Kubernetes quantity, as controller-gen writes it.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Bounds by the names of properties, which mean the same wherever they occur in these types.
fn bound_properties(schema: &mut Value, field: &str) {
    walk(schema, &mut |object| {
        let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) else { return };
        for (name, property) in properties {
            // the same word, but other operators
            let name = if field == "tolerations" && name == "operator" { "toleration" } else { name };
            bound_string(property, name);
            bound_integer(property, name);
            if let Some(items) = property.get_mut("items") {
                bound_string(items, name);
            }
        }
    });
}

fn bound_string(schema: &mut Value, name: &str) {
    if schema["type"] != "string" || schema.get("maxLength").is_some() || schema.get("format").is_some() {
        return;
    }
    if let Some(allowed) = allowed(name) {
        schema["enum"] = json!(allowed);
        return;
    }
    schema["maxLength"] = json!(longest(name));
    if name == "mountPath" {
        schema["pattern"] = json!("^/[^:]*[^:/]$");
    }
}

/// The values of a property, when there are few.
fn allowed(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "effect" => &["NoSchedule", "PreferNoSchedule", "NoExecute", ""],
        "medium" => &["", "Memory", "HugePages", "HugePages-2Mi", "HugePages-1Gi"],
        // of label selectors and node selectors
        "operator" => &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"],
        "toleration" => &["Equal", "Exists"],
        "whenUnsatisfiable" => &["DoNotSchedule", "ScheduleAnyway"],
        "nodeAffinityPolicy" | "nodeTaintsPolicy" => &["Honor", "Ignore"],
        "pullPolicy" => &["Always", "IfNotPresent", "Never"],
        "volumeMode" => &["Filesystem", "Block"],
        "accessModes" => &["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"],
        // Bidirectional needs a privileged container
        "mountPropagation" => &["None", "HostToContainer"],
        "recursiveReadOnly" => &["Disabled", "IfPossible", "Enabled"],
        _ => return None,
    })
}

/// The longest value of a property, in characters.
fn longest(name: &str) -> u32 {
    match name {
        "namespaces" | "containerName" | "apiGroup" | "fsType" => 63,
        // a label's key is a name of 63 characters behind a prefix of 253
        "topologyKey" | "matchLabelKeys" | "mismatchLabelKeys" => 317,
        "key" => 317,
        "reference" | "mountPath" | "fieldPath" => 512,
        "path" | "subPath" | "subPathExpr" => 1024,
        "value of a map" => 4096,
        // of an environment variable or a toleration
        "value" => 32_768,
        _ => 253,
    }
}

fn bound_integer(schema: &mut Value, name: &str) {
    let bounds: (i64, Option<i64>) = match name {
        "defaultMode" | "mode" => (0, Some(0o777)),
        "weight" => (1, Some(100)),
        "maxSkew" | "minDomains" => (1, None),
        _ => return,
    };
    if schema["type"] == "integer" {
        schema["minimum"] = json!(bounds.0);
        if let Some(max) = bounds.1 {
            schema["maximum"] = json!(max);
        }
    }
}

/// The first sentence of a description, and not more than a few lines of it.
fn first_sentence(words: &str) -> String {
    let starts_another = |at: &usize| words[at + 2..].starts_with(|c: char| c.is_uppercase());
    let end =
        words.match_indices(". ").map(|(at, _)| at).find(starts_another).map_or(words.len(), |at| at + 1);
    crate::api::conditions::cut(&words[..end], 200)
}
