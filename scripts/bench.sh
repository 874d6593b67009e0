#!/usr/bin/env bash
# Runs every bench one after the other and appends what they say to benches/runs/<date>-<machine>.md, with the machine,
# the commit and the command in front, so that a kept run says where it was.
. "$(dirname "$0")/library.sh"
scripts/setup.sh build
cargo build --release -p tidemill-benches -p tidemill-cli -p order-screen -p order-generator --bins

model=$(awk -F ': ' '/^model name/ { print $2; exit }' /proc/cpuinfo | sed 's/([A-Za-z]*)//g; s/ @.*//; s/ Processor//')
short=$(printf '%s cores %s' "$(nproc)" "$model" | tr -cs 'A-Za-z0-9' '-' | tr '[:upper:]' '[:lower:]')
kept=benches/runs/$(date -u +%F)-${short%-}.md
mkdir -p benches/runs

# Everything on the screen and in the kept run.
keep() { tee -a "$kept"; }

{
  say "# $(date -u '+%F %H:%M') UTC"
  say
  say "machine: $(nproc) x $model, $(uname -sr)"
  say "commit: $(git rev-parse --short HEAD)$(git diff --quiet HEAD -- . ':!benches/runs' || printf ', with changes not committed')"
  say "command: make bench"
} | keep
for source in benches/src/bin/*.rs; do
  name=$(basename "$source" .rs)
  { say; say "## $name"; say; "$target/release/$name" | sed 's/^/    /'; } | keep
done
{ say; say "## topic throughput"; say; cargo bench -q -p tidemill-topic --bench throughput | sed 's/^/    /'; say; } | keep
