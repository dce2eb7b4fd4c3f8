#!/usr/bin/env python3
"""chart-readme.py [--check] CHART: the README's table of values, from the comments of values.yaml.

Reads the subset of YAML that values.yaml is written in: block mappings by two spaces; a value is on the key's line, or is
the block below it. A key that has a comment right above it is a row; so is every leaf, which must have one.
Also says which keys values.yaml and values.schema.json don't share. --check changes nothing and fails on a difference.
"""

import json
import pathlib
import re
import sys

BEGIN = "<!-- values: made by hack/chart-readme.py -->\n"
END = "<!-- end of values -->"
KEY = re.compile(r"^( *)([A-Za-z][\w.-]*):(?: (.*))?$")


def entries(lines):
    """Yields (path, value or None, comment, block) for each key, in the file's order."""
    path, comment, skip = [], [], None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if skip is not None and (not line.strip() or indent > skip):
            continue
        skip = None
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
            continue
        match = KEY.match(line)
        if not match:
            comment = []
            continue
        depth = len(match[1]) // 2
        path[depth:] = [match[2]]
        if match[3] is None and comment:
            block = block_below(lines, number, indent)
            # a commented block is one value; a section's keys have comments of their own
            if not any(part.lstrip().startswith("#") for part in block):
                yield ".".join(path), compact(block), " ".join(comment)
                comment, skip = [], indent
                continue
        if match[3] is not None:
            yield ".".join(path), match[3], " ".join(comment)
        comment = []


def block_below(lines, number, indent):
    block = []
    for line in lines[number + 1 :]:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        if line.strip():
            block.append(line[indent + 2 :])
    return block


def compact(block):
    """A block mapping in one line: {a: 1, b: {c: 2}}."""

    def mapping(lines):
        parts, i = [], 0
        while i < len(lines):
            key, _, value = lines[i].partition(":")
            below = []
            i += 1
            while i < len(lines) and lines[i].startswith("  "):
                below.append(lines[i][2:])
                i += 1
            parts.append(f"{key}: {mapping(below) if below else value.strip()}")
        return "{" + ", ".join(parts) + "}"

    return mapping(block)


def table(rows):
    out = ["| value | default | what it is |", "|---|---|---|"]
    for path, value, comment in rows:
        out.append(f"| `{path}` | `{value}` | {comment.replace('|', '&#124;')} |")
    return "\n".join(out) + "\n"


def schema_paths(schema, prefix=""):
    for key, below in schema.get("properties", {}).items():
        if prefix == "" and key == "global":
            continue
        path = prefix + key
        if below.get("additionalProperties") is False and "properties" in below:
            yield from schema_paths(below, path + ".")
        else:
            yield path


def covered(path, others):
    """Whether it is there, or a part of it, or what it is a part of: a value may be a whole block."""
    return any(o == path or path.startswith(o + ".") or o.startswith(path + ".") for o in others)


def main():
    check = "--check" in sys.argv
    chart = pathlib.Path([a for a in sys.argv[1:] if not a.startswith("--")][0])
    rows = list(entries((chart / "values.yaml").read_text().splitlines()))
    problems = [f"values.yaml: {path} has no comment" for path, _, comment in rows if not comment]
    known = set(schema_paths(json.loads((chart / "values.schema.json").read_text())))
    have = {path for path, _, _ in rows}
    problems += [f"values.schema.json: {p} is missing" for p in sorted(have) if not covered(p, known)]
    problems += [f"values.yaml: {p} is missing" for p in sorted(known) if not covered(p, have)]
    readme = chart / "README.md"
    old = readme.read_text()
    head, begin, rest = old.partition(BEGIN)
    tail = rest[rest.index(END) :]
    new = head + begin + table(rows) + tail
    if new != old and check:
        problems.append(f"{readme}: not what values.yaml says; run `make manifests`")
    elif new != old:
        readme.write_text(new)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
