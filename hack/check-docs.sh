#!/usr/bin/env bash
# What users look up by its name must be in the docs, and what docs, board and alerts name must exist.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
fail() {
    echo "docs: $*" >&2
    failed=1
}

# every type and reason of a condition is explained
while read -r name; do
    grep -q "\`$name\`" docs/operate.md || fail "docs/operate.md: $name of operator/src/api/conditions.rs is missing"
done < <(sed -n 's/.*pub const [A-Z_]*: &str = "\([A-Za-z]*\)";/\1/p' operator/src/api/conditions.rs)

# every metric is explained, and none is named that is not there
metrics() {
    # a call may go over several lines
    find operator/src -name '*.rs' -print0 | xargs -0 cat | tr -s ' \n' ' ' |
        grep -oE '(counter|gauge|seconds|counters|gauges)\( ?"[a-z_]+"|"arborist_[a-z_]+"' |
        grep -oE '[a-z_]+"$' | tr -d '"' | sed 's/^arborist_//' | sort -u
}
all_metrics=$(metrics)
while read -r name; do
    grep -q "\`$name\`" docs/operate.md || fail "docs/operate.md: the metric $name is missing"
done <<<"$all_metrics"
while read -r name; do
    name=${name#arborist_}
    grep -qx -e "$name" -e "${name%_bucket}" <<<"$all_metrics" || fail "no such metric: arborist_$name"
done < <(grep -rhoE 'arborist_[a-z_]+' charts/arborist/dashboards charts/arborist/templates/prometheusrule.yaml \
    docs/operate.md docs/security.md docs/troubleshoot.md | grep -v '_$' | sort -u)

# links between pages lead somewhere
while IFS=: read -r file link; do
    target=${link%%#*}
    [[ -z $target || -e $(dirname "$file")/$target ]] || fail "$file: $link leads nowhere"
done < <(grep -oE '\]\([^][):]+\)' README.md docs/*.md charts/*/README.md | sed -E 's/^([^:]+):\]\((.*)\)$/\1:\2/')
exit $failed
