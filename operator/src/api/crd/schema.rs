//! What the derives leave out of a schema, or say in another way than Kubernetes does.

use super::embedded;
use serde_json::{Map, Value, json};

/// Lists, sizes and patterns of the values of maps: a derive bounds only how many there are.
const MAP_VALUES: [(&str, u64, Option<&str>); 3] =
    [("nodeSelector", 63, Some(LABEL_VALUE)), ("labels", 63, Some(LABEL_VALUE)), ("annotations", 8192, None)];
const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// Makes the schemas of a definition what an API server, `kubectl explain` and server-side apply need.
pub fn finish(definition: &mut Value) {
    let versions = definition.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        if let Some(root) = version.pointer_mut("/schema/openAPIV3Schema") {
            finish_root(root);
        }
    }
}

fn finish_root(root: &mut Value) {
    // the derive has no words for the object itself; what stands at the spec's type is about the object
    let words = root.pointer("/properties/spec/description").cloned().unwrap_or_default();
    root["description"] = words;
    root["properties"]["spec"]["description"] = json!("What is wanted.");
    walk(root, &mut plain);
    if let Some(template) = root.pointer_mut("/properties/spec/properties/template/properties") {
        for (field, max, pattern) in MAP_VALUES {
            let values = &mut template[field]["additionalProperties"];
            values["maxLength"] = json!(max);
            if let Some(pattern) = pattern {
                values["pattern"] = json!(pattern);
            }
        }
        embedded::tighten(template);
    }
}

/// Calls `visit` for a schema and all schemas in it, the outer first.
pub fn walk(schema: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    let Some(object) = schema.as_object_mut() else { return };
    visit(object);
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|schema| walk(schema, visit));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(schema) = object.get_mut(inner) {
            walk(schema, visit);
        }
    }
}

fn plain(schema: &mut Map<String, Value>) {
    // An optional field is left out, not null: with null allowed, `has()` in a rule would be true for it.
    schema.remove("nullable");
    if let Some(words) = schema.get("description").and_then(Value::as_str) {
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        schema.insert("description".into(), words.into());
    }
    if schema.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
        schema.remove("format");
    }
    // k8s-openapi keeps bounds as floats: `minimum: 0.0` is right but reads badly
    for bound in ["minimum", "maximum"] {
        if let Some(whole) = schema.get(bound).and_then(Value::as_f64).filter(|f| f.fract() == 0.0) {
            schema.insert(bound.into(), json!(whole as i64));
        }
    }
}
