//! docs/api.md: all fields of all definitions, from their schemas.

use super::{Definition, embedded};
use serde_json::{Map, Value};
use std::fmt::Write;

const PREFACE: &str = "\
# API reference: `arborist.dev/v1alpha1`

Made by `make crds` from the schemas in `crds/`. `kubectl explain pp.spec` and `kubectl explain pj.spec` say the same.
Conditions and their reasons are in [operate.md](operate.md), examples in [manifests/samples](../manifests/samples).

The API server checks all bounds and rules below before it stores an object. What depends on how the operator was
installed it can't know, and the operator says it in a condition (`Accepted` of a job, `Ready` of a pool, reason
`InvalidSpec` or `UnknownProfile`): whether a pool's machines are large enough for its circuits, which is its circuit
profile's to say (a `vm` proof needs 30 cores and 52Gi in one profile, one core in another), whether backend and profile
are those it serves, and whether the budget pays for the fewest pods.

In the tables a star marks what must be set; `[]` stands for each entry of a list.
";

/// The whole page.
pub fn reference(definitions: &[Definition]) -> String {
    let mut page = String::from(PREFACE);
    for definition in definitions {
        section(&mut page, definition);
    }
    page
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn section(page: &mut String, definition: &Definition) {
    let names = &definition.object["spec"]["names"];
    let short: Vec<&str> =
        names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let schema = definition.schema();
    // writing to a String can't fail
    let _ = write!(
        page,
        "\n## {} (`{}`)\n\n{}\n",
        text(names, "kind"),
        short.join("`, `"),
        text(schema, "description")
    );
    for part in ["spec", "status"] {
        let schema = &schema["properties"][part];
        let _ = write!(page, "\n### {part}\n\n{}\n\n", text(schema, "description"));
        page.push_str("| field | type | default | allowed | |\n|---|---|---|---|---|\n");
        rows(page, schema, "");
    }
    let mut rules = Vec::new();
    messages(schema, &mut rules);
    page.push_str("\n### Rules\n\n");
    for rule in rules {
        let _ = writeln!(page, "- {rule}");
    }
}

/// One row for each field of an object, then those of the fields in it.
fn rows(page: &mut String, object: &Value, path: &str) {
    let Some(properties) = object["properties"].as_object() else { return };
    let required =
        |name: &String| object["required"].as_array().is_some_and(|all| all.iter().any(|r| r == name));
    for (name, schema) in properties {
        let star = if required(name) { " *" } else { "" };
        let path = format!("{path}{name}");
        let foreign = embedded::FIELDS.iter().any(|field| path == format!("template.{field}"));
        let _ = writeln!(
            page,
            "| `{path}`{star} | {} | {} | {} | {} |",
            kind(schema, foreign),
            default(schema),
            cell(&allowed(schema).join(", ")),
            cell(text(schema, "description")),
        );
        if foreign {
            continue;
        }
        rows(page, schema, &format!("{path}."));
        rows(page, &schema["items"], &format!("{path}[]."));
    }
}

fn kind(schema: &Value, foreign: bool) -> String {
    let of = if foreign {
        "as in a pod".to_owned()
    } else {
        schema["items"]["type"].as_str().unwrap_or("").to_owned()
    };
    match text(schema, "type") {
        "array" if foreign => format!("list, {of}"),
        "array" => format!("list of {of}s"),
        "object" if foreign => of,
        "object" if schema.get("additionalProperties").is_some() => "map of strings".to_owned(),
        "string" if schema["format"] == "date-time" => "time, RFC 3339".to_owned(),
        other => other.to_owned(),
    }
}

fn default(schema: &Value) -> String {
    match &schema["default"] {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        // its fields' own rows say what is in it
        Value::Object(_) => "as its fields'".to_owned(),
        other => format!("`{other}`"),
    }
}

fn allowed(schema: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let item = &schema["items"];
    for schema in [schema, item] {
        if let Some(values) = schema["enum"].as_array() {
            all.push(
                values
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|v| format!("`{v}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            );
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            all.push(format!("`{pattern}`"));
        }
    }
    all.extend(range(schema, "minimum", "maximum", ""));
    all.extend(range(schema, "minLength", "maxLength", " characters"));
    all.extend(range(schema, "minItems", "maxItems", " entries"));
    all.extend(range(schema, "minProperties", "maxProperties", " entries"));
    all
}

fn range(schema: &Value, min: &str, max: &str, unit: &str) -> Option<String> {
    match (schema[min].as_i64(), schema[max].as_i64()) {
        (None, None) => None,
        (None | Some(0), Some(max)) if !unit.is_empty() => Some(format!("at most {max}{unit}")),
        (Some(min), Some(max)) if min == max => Some(format!("{min}{unit}")),
        (Some(min), Some(max)) => Some(format!("{min} to {max}{unit}")),
        (Some(min), None) => Some(format!("at least {min}{unit}")),
        (None, Some(max)) => Some(format!("at most {max}{unit}")),
    }
}

/// The messages of all rules in a schema.
fn messages(schema: &Value, found: &mut Vec<String>) {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    found.extend(rules.map(|rule| text(rule, "message").to_owned()));
    let properties = schema["properties"].as_object().into_iter().flat_map(Map::values);
    properties.chain(schema.get("items")).for_each(|inner| messages(inner, found));
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
