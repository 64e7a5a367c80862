#!/bin/sh
# Renders deploy/base as `kubectl apply --kustomize` would, and checks in the result what a cluster would accept but
# nobody should run. Says all that is wrong; exits with 1 if anything is, and with 0 if there is nothing to render with.
set -u

cd "$(dirname "$0")/.." || exit 1
base=deploy/base
status=0

wrong() {
    echo "$base: $1" >&2
    status=1
}

if command -v kubectl >/dev/null 2>&1; then
    render="kubectl kustomize"
elif command -v kustomize >/dev/null 2>&1; then
    render="kustomize build"
else
    echo "$base: skipped, there is neither kubectl nor kustomize to render it with" >&2
    exit 0
fi
# Two words by intent.
# shellcheck disable=SC2086
rendered=$($render "$base") || {
    wrong "'$render $base' failed: its own words are above"
    exit 1
}

# count LINE: how many lines of the result are this one, indentation and list dash aside.
count() {
    printf '%s\n' "$rendered" | sed 's/^[ -]*//' | grep -cxF -e "$1"
}

# require LINE NUMBER WHY
require() {
    found=$(count "$1")
    [ "$found" -eq "$2" ] || wrong "'$1' stands $found times in the result, expected $2: $3"
}

# forbid PATTERN WHY
forbid() {
    if printf '%s\n' "$rendered" | grep -qE -e "$1"; then
        wrong "the result matches '$1': $2"
    fi
}

for kind in ConfigMap Deployment PodDisruptionBudget Service ServiceAccount; do
    require "kind: $kind" 1 "the base consists of one of each"
done
require "readOnlyRootFilesystem: true" 1 "only volumes are writable"
require "runAsNonRoot: true" 1 "the image's user is 65532"
require "allowPrivilegeEscalation: false" 1 "the container needs no privilege"
require "ALL" 1 "all capabilities are dropped"
require "type: RuntimeDefault" 1 "system calls are filtered by the runtime's profile"
require "automountServiceAccountToken: false" 2 "the service account and the pod both keep the token out"
require "app.kubernetes.io/name: tradewind" 11 "it labels 5 objects and the pods, and is what the Service, the Deployment, the disruption budget and two spread constraints select by"
forbid 'privileged: true|hostNetwork: true|hostPath:' "a proxy needs nothing of the node's"
forbid '^  namespace:' "the namespace is the overlay's choice"
forbid 'image: ([^:]*|.*:latest)$' "an image without a version cannot be rolled back to"
forbid '[sS]elector: \{\}' "an empty selector takes every pod of the namespace"

# What has to agree across files, and nothing but this compares.
configuration=$base/tradewind.toml
listen_port=$(sed -n 's/^http = ".*:\([0-9]*\)"$/\1/p' "$configuration")
admin=$(sed -n '/^\[admin\]/,/^\[state\]/ s/^listen = "\(.*\)"$/\1/p' "$configuration")
require "containerPort: $listen_port" 1 "[listen] http in $configuration is port $listen_port"
require "http://$admin" 3 "[admin] listen in $configuration is $admin, and all three probes ask it"
state=$(sed -n 's/^dir = "\(.*\)"$/\1/p' "$configuration")
require "mountPath: $state" 1 "[state] dir in $configuration is $state, and nothing else is writable"
# The pattern takes no space, so a word is a path.
# shellcheck disable=SC2013
for path in $(grep -o '/etc/tradewind/[A-Za-z0-9._-]*' "$configuration"); do
    [ "$(count "${path##*/}: |")" -eq 1 ] || wrong "$configuration names $path, which is not in the generated ConfigMap"
done
generated=$(printf '%s\n' "$rendered" | sed -n 's/^ *name: \(tradewind-[a-z0-9]*\)$/\1/p' | sort | uniq -c | awk '$1 == 2')
[ -n "$generated" ] || wrong "the Deployment does not mount the ConfigMap by its generated name: a changed configuration would not roll out"

[ "$status" -ne 0 ] || echo "$base: renders, nothing wrong" >&2
exit "$status"
