#!/usr/bin/env bash
# The page's types of the HTTP interface, web/src/api/schema.ts, made from the server's own description (no server runs).
#
#   scripts/types.sh write    makes the file
#   scripts/types.sh check    fails when it is not the one that would be made
. "$(dirname "$0")/library.sh"

file=web/src/api/schema.ts
scripts/web.sh packages
cargo run --quiet --locked --bin tidemill -- openapi >"$scratch/openapi.json"
(cd web && npx --no-install openapi-typescript "$scratch/openapi.json" --output "$scratch/made.ts") >"$scratch/types.log" 2>&1 || {
  cat "$scratch/types.log" >&2
  die "the description of the HTTP interface cannot be turned into types"
}
{
  say "// Made by \`npm run types\` from the server's description (\`tidemill openapi\`). Not to be changed by hand."
  cat "$scratch/made.ts"
} >"$scratch/schema.ts"

case "${1:-}" in
write) cp "$scratch/schema.ts" "$file" ;;
check)
  diff -u "$file" "$scratch/schema.ts" | head -60 || true
  cmp -s "$file" "$scratch/schema.ts" || die "$file is stale: run \`npm --prefix web run types\` and look at what changed"
  ;;
*) die "say \`write\` or \`check\`" ;;
esac
