#!/usr/bin/env python3
"""kube-schemas.py OUT_DIR SWAGGER CRD.json…: JSON schemas for kubeconform, from Kubernetes' own OpenAPI and from CRDs.

kubeconform downloads its schemas by default; these are made from files that are on the machine. One file a kind,
OUT_DIR/KIND-GROUP-VERSION.json; what a schema does not know is refused.
"""

import json
import pathlib
import sys

SKIPPED = {"format", "properties", "nullable", "default", "description"}
INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


def strict(schema):
    """No unknown fields, and the types that Kubernetes writes in ways of its own."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    out = {k: strict(v) for k, v in schema.items() if not k.startswith("x-kubernetes") and k not in SKIPPED}
    if "properties" in schema:  # its keys are names, not keywords: a CRD has fields called `format` and `x-kubernetes-…`
        out["properties"] = {name: strict(below) for name, below in schema["properties"].items()}
    closed = "properties" in out and "additionalProperties" not in out
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    if schema.get("nullable"):
        out = {"anyOf": [out, {"type": "null"}]}
    return out


def file_name(group, version, kind):
    group = group.split(".")[0]
    return "-".join(part.lower() for part in (kind, group, version) if part) + ".json"


def used(name, definitions, seen):
    """Every definition that `name` refers to."""
    if name in seen:
        return seen
    seen.add(name)
    stack = [definitions[name]]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            ref = node.get("$ref", "")
            if isinstance(ref, str) and ref.startswith("#/definitions/"):
                used(ref.removeprefix("#/definitions/"), definitions, seen)
            stack += node.values()
        elif isinstance(node, list):
            stack += node
    return seen


def kubernetes(swagger):
    definitions = json.loads(pathlib.Path(swagger).read_text())["definitions"]
    for special in ("Quantity", "IntOrString"):
        for name in definitions:
            if name.endswith("." + special):
                definitions[name] = {"format": "int-or-string"}
    for name, schema in definitions.items():
        for gvk in schema.get("x-kubernetes-group-version-kind", [])[:1]:
            below = used(name, definitions, set())
            whole = {"$ref": f"#/definitions/{name}"}
            whole["definitions"] = {n: strict(definitions[n]) for n in sorted(below)}
            yield file_name(gvk["group"], gvk["version"], gvk["kind"]), whole


def custom(crd):
    spec = json.loads(pathlib.Path(crd).read_text())["spec"]
    for version in spec["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"] |= {
            "apiVersion": {"const": f"{spec['group']}/{version['name']}"},
            "kind": {"const": spec["names"]["kind"]},
            "metadata": {"type": "object"},
        }
        yield file_name(spec["group"], version["name"], spec["names"]["kind"]), strict(schema)


def main():
    out, swagger, *crds = sys.argv[1:]
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    files = dict(kubernetes(swagger))
    for crd in crds:
        files.update(custom(crd))
    for name, schema in files.items():
        (folder / name).write_text(json.dumps(schema))
    print(f"{len(files)} schemas in {folder}")


if __name__ == "__main__":
    main()
