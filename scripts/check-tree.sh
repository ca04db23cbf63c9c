#!/usr/bin/env bash
# The rules of the tree that no compiler checks. Prints every breach and exits 1
# if there is one:
#
#   - no Rust file above 1,000 lines
#   - no unfinished or switched-off code: todo!, unimplemented!, FIXME, #[ignore]
#   - every module under src/ says first, in `//!`, what it is for
#   - every dependency can be had under a permissive licence (or the MPL)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly MOST_LINES=1000
# As SPDX writes them. Of "A OR B" one is enough, of "A AND B" both must be here.
readonly LICENCES='[
  "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
  "CC0-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "Unicode-3.0", "Unlicense", "Zlib"
]'

breaches=0
# Reads breaches, one a line, and counts them.
report() {
  local line
  while IFS= read -r line; do
    echo "check-tree: $line" >&2
    breaches=$((breaches + 1))
  done
}

rust_files() {
  find . \( -path ./target -o -path ./.git \) -prune -o -name '*.rs' -type f -print | sed 's|^\./||' | sort
}

too_long() {
  local file lines
  for file in "$@"; do
    lines=$(wc -l <"$file")
    ((lines <= MOST_LINES)) || echo "$file has $lines lines, the most is $MOST_LINES: split it"
  done
}

unfinished() {
  grep -nE '\b(todo|unimplemented)!|FIXME|#\[ignore' "$@" | sed 's/$/   <- unfinished or switched off/' || true
}

undocumented() {
  local file
  for file in "$@"; do
    [[ $file == */src/* ]] || continue
    [[ $(grep -m 1 -v -e '^[[:space:]]*$' -e '^#!\[' "$file") == '//!'* ]] ||
      echo "$file does not start with //!: say what it is for and what it is not"
  done
}

# An SPDX expression in the form that occurs: alternatives of conjunctions, or
# conjunctions of alternatives in parentheses ("/" is an old way to write OR).
unlicensed() {
  cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu |
    jq -r --argjson allowed "$LICENCES" '
      def permitted: . as $name | $allowed | index($name) != null;
      def any_of: gsub("[()]"; "") | split(" OR ") | any(permitted);
      def all_of: gsub("[()]"; "") | split(" AND ") | all(permitted);
      def acceptable:
        gsub("(?<=[^ ])/(?=[^ ])"; " OR ") |
        (test("^[^()]*$") and (split(" OR ") | any(all_of))) or (split(" AND ") | all(any_of));
      [.resolve.nodes[].id] as $used
      | .packages[]
      | select(.id as $id | $used | index($id))
      | select((.license // "none stated") | acceptable | not)
      | "\(.name) \(.version) has the licence \(.license // "none stated"): not one of those that scripts/check-tree.sh allows"'
}

mapfile -t files < <(rust_files)
((${#files[@]})) || { echo "check-tree: found no Rust file" >&2 && exit 1; }
report < <(too_long "${files[@]}")
report < <(unfinished "${files[@]}")
report < <(undocumented "${files[@]}")
licences=$(unlicensed)
[[ -z $licences ]] || report <<<"$licences"

((breaches == 0)) || { echo "check-tree: $breaches to put right" >&2 && exit 1; }
echo "check-tree: ${#files[@]} Rust files and their dependencies' licences are in order"
