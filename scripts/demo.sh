#!/usr/bin/env bash
# Builds everything the demo needs and runs it; further arguments go to `tidemill demo`.
. "$(dirname "$0")/library.sh"

scripts/setup.sh build
if have npm; then
  scripts/web.sh build
else
  say "Node is not there: the demo runs, but its page only tells how to build the UI (install Node 20.19, then \`make web\`)."
fi
cargo build --release --bin tidemill --bin order-generator --bin order-screen
rm -rf "$scratch"
exec "$target/release/tidemill" demo "$@"
