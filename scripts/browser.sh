#!/usr/bin/env bash
# The page in a real browser: against servers of the test's own, then against the real demo when this tree has one, else
# against the mock of web/.
. "$(dirname "$0")/library.sh"

CHROMIUM=${CHROMIUM:-$(command -v chromium || true)}
export CHROMIUM
bin=$target/debug
cargo build --quiet --locked --bin tidemill --bin order-generator
cargo build --quiet --locked --bin order-screen || true
status=0
node tests/browser/server.mjs --bin "$bin" || status=1
if ! "$bin/tidemill" demo --help >/dev/null 2>&1 || ! [ -x "$bin/order-screen" ]; then
  say "this tree has no demo yet: against the mock"
  node tests/browser/screen.mjs || status=1
  exit "$status"
fi

"$bin/tidemill" demo --data "$scratch/data" --listen 127.0.0.1:0 --backfill 1 >"$scratch/demo.log" 2>&1 </dev/null &
demo=$!
trap 'kill "$demo" 2>/dev/null && wait "$demo" || true; rm -rf "$scratch"' EXIT
url=
for _ in $(seq 600); do
  url=$(grep -om1 'http://[0-9a-zA-Z.:]*' "$scratch/demo.log" || true)
  [ -n "$url" ] && break
  kill -0 "$demo" 2>/dev/null || break
  sleep 0.1
done
if [ -z "$url" ]; then
  cat "$scratch/demo.log" >&2
  die "the demo did not come up"
fi
say "against the demo at $url"
node tests/browser/screen.mjs --url "$url" || {
  cat "$scratch/demo.log" >&2
  exit 1
}
exit "$status"
