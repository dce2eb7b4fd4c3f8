//! What every definition has to keep to, checked over the generated schemas.

use super::*;
use crate::api::conditions::{job, pool};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The limit of an annotation, in which `kubectl apply` keeps the whole object, is 256 KiB.
const MAX_BYTES: usize = 200 * 1024;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn has(schema: &Value, key: &str) -> bool {
    schema.get(key).is_some()
}

/// What a schema and those in it lack, as `path: problem`. `own` are fields of ours, not of Kubernetes' types.
fn problems(schema: &Value, path: &str, own: bool, found: &mut Vec<String>) {
    let mut say = |problem: &str| found.push(format!("{path}: {problem}"));
    let int_or_string = has(schema, "x-kubernetes-int-or-string");
    match schema["type"].as_str() {
        Some("string")
            if !(has(schema, "maxLength") || has(schema, "enum") || schema["format"] == "date-time") =>
        {
            say("a string without bound");
        }
        Some("integer") if own && !has(schema, "minimum") => say("an integer without minimum"),
        Some("integer")
            if path.starts_with("spec") && own && schema["format"] == "int32" && !has(schema, "maximum") =>
        {
            say("an integer without maximum");
        }
        Some("array") => array_problems(schema, &mut say),
        Some("object") if has(schema, "additionalProperties") && !has(schema, "maxProperties") => {
            say("a map without bound");
        }
        Some("object") if !has(schema, "additionalProperties") && !has(schema, "properties") => {
            say("an open object")
        }
        Some("string" | "integer" | "object" | "boolean") => {}
        None if int_or_string && has(schema, "pattern") && has(schema, "maxLength") => {}
        other => say(&format!("of type {other:?}")),
    }
    for unwanted in ["nullable", "x-kubernetes-preserve-unknown-fields", "$ref", "oneOf", "allOf"] {
        if has(schema, unwanted) {
            say(unwanted);
        }
    }
    if schema["format"].as_str().is_some_and(|format| !["int32", "int64", "date-time"].contains(&format)) {
        say("a format that Kubernetes does not know");
    }
    inner_problems(schema, path, own, found);
}

fn array_problems(schema: &Value, say: &mut impl FnMut(&str)) {
    if !has(schema, "maxItems") {
        say("a list without bound");
    }
    let items = &schema["items"];
    match schema["x-kubernetes-list-type"].as_str() {
        Some("atomic" | "set") => {}
        Some("map") => {
            for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
                let required = items["required"].as_array().is_some_and(|all| all.contains(key));
                let default = items["properties"][key.as_str().unwrap_or_default()].get("default").is_some();
                if !required && !default {
                    say("a key that may be missing");
                }
            }
        }
        _ => say("a list without list type"),
    }
}

fn inner_problems(schema: &Value, path: &str, own: bool, found: &mut Vec<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if own && inner["description"].as_str().is_none_or(str::is_empty) {
            found.push(format!("{path}: without description"));
        }
        let foreign = path.strip_prefix("spec.template.").is_some_and(|f| embedded::FIELDS.contains(&f));
        problems(inner, &path, own && !foreign, found);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(key) {
            problems(inner, &format!("{path}{mark}"), own, found);
        }
    }
}

/// The schema at a JSON path such as `.status.conditions[?(@.type=="Ready")].status`.
fn at<'a>(mut schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(filter) = rest.strip_prefix('[') {
            schema = schema.get("items")?;
            rest = filter.split_once(']')?.1;
        } else {
            let name = rest.strip_prefix('.')?;
            let end = name.find(['.', '[']).unwrap_or(name.len());
            schema = schema.get("properties")?.get(&name[..end])?;
            rest = &name[end..];
        }
    }
    Some(schema)
}

/// All rules of a schema.
fn rules(schema: &Value, found: &mut Vec<Value>) {
    found.extend(schema["x-kubernetes-validations"].as_array().into_iter().flatten().cloned());
    let properties = schema["properties"].as_object().into_iter().flat_map(|p| p.values());
    properties
        .chain(schema.get("items"))
        .chain(schema.get("additionalProperties"))
        .for_each(|inner| rules(inner, found));
}

/// Texts of the objects in `e2e/objects/<folder>`.
fn objects(folder: &str) -> Vec<(String, String)> {
    let folder = root("e2e/objects").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| (path.display().to_string(), fs::read_to_string(path).unwrap());
    let found: Vec<_> = files.map(text).collect();
    assert!(!found.is_empty(), "{}", folder.display());
    found
}

#[test]
fn every_schema_is_bounded_and_described() {
    for definition in definitions() {
        let mut found = Vec::new();
        problems(definition.schema(), "", true, &mut found);
        assert_eq!(found, Vec::<String>::new(), "{}", definition.file);
    }
}

#[test]
fn the_lint_finds_what_it_looks_for() {
    let cases = [
        (json!({"type": "string"}), "without bound"),
        (json!({"type": "number"}), "of type"),
        (json!({}), "of type"),
        (json!({"type": "integer"}), "without minimum"),
        (json!({"type": "integer", "format": "int32", "minimum": 0}), "without maximum"),
        (json!({"type": "integer", "format": "uint8", "minimum": 0}), "a format"),
        (json!({"type": "boolean", "nullable": true}), "nullable"),
        (json!({"type": "object"}), "an open object"),
        (json!({"type": "object", "additionalProperties": {"type": "boolean"}}), "a map without bound"),
        (json!({"type": "object", "properties": {"a": {"type": "boolean"}}}), "without description"),
        (json!({"type": "array", "maxItems": 1, "items": {"type": "boolean"}}), "without list type"),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "boolean"}}),
            "without bound",
        ),
        (
            json!({"type": "array", "maxItems": 1, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "properties": {"a": {"description": "A", "type": "boolean"}}}}),
            "may be missing",
        ),
        (json!({"x-kubernetes-int-or-string": true}), "of type"),
    ];
    for (schema, expected) in cases {
        let mut found = Vec::new();
        problems(&schema, "spec.a", true, &mut found);
        assert!(found.len() == 1 && found[0].contains(expected), "{schema}: {found:?}");
    }
}

#[test]
fn columns_and_the_scale_subresource_read_fields_that_exist() {
    for definition in definitions() {
        let version = &definition.object["spec"]["versions"][0];
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let scale = version["subresources"]["scale"].as_object().into_iter().flat_map(|paths| paths.values());
        for path in columns.iter().map(|column| &column["jsonPath"]).chain(scale).map(|p| p.as_str().unwrap())
        {
            assert!(path.starts_with(".metadata.") || at(definition.schema(), path).is_some(), "{path}");
        }
        assert!(version["subresources"]["status"].is_object(), "{}", definition.file);
    }
    assert!(at(definitions()[0].schema(), ".status.nothing").is_none());
}

#[test]
fn what_is_not_written_has_a_default_on_the_server() {
    let all = definitions();
    let pool = [
        (".spec.backend.type", json!("Plonky2")),
        (
            ".spec.scaling",
            json!({"mode": "Deadline", "min": 0, "max": 100, "startupEstimate": "120s", "scaleDownDelay": "60s"}),
        ),
        (".spec.scaling.mode", json!("Deadline")),
        (".spec.template.terminationGracePeriodSeconds", json!(40)),
    ];
    let job = [
        (".spec.circuitProfile", json!("mini-rollup-v1")),
        (".spec.suspend", json!(false)),
        (".spec.priority", json!(0)),
        (".spec.source.synthetic.callsPerTransaction", json!(2)),
    ];
    for (definition, cases) in all.iter().zip([pool, job]) {
        for (path, value) in cases {
            assert_eq!(at(definition.schema(), path).unwrap()["default"], value, "{path}");
        }
    }
}

#[test]
fn a_definition_can_be_installed_with_a_plain_kubectl_apply() {
    for definition in definitions() {
        let bytes = definition.yaml().len().max(definition.object.to_string().len());
        assert!(bytes < MAX_BYTES, "{}: {bytes} bytes", definition.file);
    }
}

#[test]
fn the_yaml_says_what_the_definition_is() {
    for definition in definitions() {
        let read: Value = serde_saphyr::from_str(&definition.yaml()).unwrap();
        assert_eq!(read, definition.object, "{}", definition.file);
    }
}

#[test]
fn each_rule_has_a_message_and_an_object_that_it_refuses() {
    let refused: Vec<String> = objects("reject")
        .iter()
        .filter_map(|(_, text)| Some(text.lines().next()?.strip_prefix("# expect: ")?.to_owned()))
        .collect();
    for definition in definitions() {
        let mut found = Vec::new();
        rules(definition.schema(), &mut found);
        assert!(found.len() > 10, "{}", definition.file);
        for rule in found {
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(message.contains(':') && message.len() <= 200, "{rule}");
            assert!(
                refused.iter().any(|expected| message.contains(expected.as_str())),
                "no object in e2e/objects/reject: {message}"
            );
        }
    }
}

#[test]
fn the_types_read_every_object_that_the_api_server_accepts() {
    for (file, text) in objects("accept") {
        let object: Value = serde_saphyr::from_str(&text).unwrap();
        // a null is removed and replaced by its default before the operator sees it
        let object = without_null(object);
        let read = match object["kind"].as_str() {
            Some("ProverPool") => serde_json::from_value::<ProverPool>(object).map(|_| ()),
            _ => serde_json::from_value::<ProvingJob>(object).map(|_| ()),
        };
        read.unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_null(v))).collect()
        }
        other => other,
    }
}

#[test]
fn operations_explain_each_condition_and_reason() {
    let source = fs::read_to_string(root("operator/src/api/conditions.rs")).unwrap();
    let constants =
        source.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": &str = \""));
    let names: BTreeSet<&str> = constants.filter_map(|(_, value)| value.strip_suffix("\";")).collect();
    assert!(names.is_superset(&job::ALL.into()) && names.is_superset(&pool::ALL.into()), "{names:?}");
    let docs = fs::read_to_string(root("docs/operate.md")).unwrap();
    let missing: Vec<_> = names.iter().filter(|name| !docs.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/operate.md: {missing:?}");
}
