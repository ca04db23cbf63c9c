#!/usr/bin/env bash
# Writes charts/margay/README.md from the comments in values.yaml, or with --check says whether it
# is stale (exit 1). A comment belongs to the key after it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../charts/margay"

readonly README=README.md

values_table() {
  awk '
    function cell(text) { gsub(/\|/, "\\|", text); return text }
    /^ *#/ { line = $0; sub(/^ *# ?/, "", line); comment = comment (comment == "" ? "" : " ") line; next }
    /^ *$/ { comment = ""; next }
    /^ *- / { comment = ""; next }
    {
      depth = match($0, /[^ ]/) - 1
      key = $0; sub(/^ */, "", key); sub(/:.*/, "", key)
      value = $0; sub(/^[^:]*: ?/, "", value)
      path = (depth == 0 ? key : parents[depth - 2] "." key)
      parents[depth] = path
      if (comment != "" || value != "")
        printf "| `%s` | %s | %s |\n", path, (value == "" ? "" : "`" cell(value) "`"), cell(comment)
      comment = ""
    }' values.yaml
}

readme() {
  cat <<'END'
# Margay's chart

Installs Margay: the agent on every node, the controller, the kinds, and what the network is
configured with. How to install, upgrade and uninstall: [docs/install.md](../../docs/install.md).

```sh
helm install margay charts/margay --namespace margay-system --create-namespace \
  --set ipPools.default-ipv4.cidr=10.244.0.0/16
```

`ipPools`, `bgpPeers` and the like hold objects by name, each as its `spec`; several values files
add to each other, and `null` takes one of the defaults away. Fields that no object has are refused
before anything is sent to the cluster.

## Values

Written by `make generate` from the comments in [values.yaml](values.yaml).

| value | default | what it is |
|---|---|---|
END
  values_table
}

case ${1:-} in
  --check) diff -u "$README" <(readme) >&2 ;;
  "") readme >"$README" ;;
  *) echo "usage: scripts/chart-readme.sh [--check]" >&2 && exit 2 ;;
esac
