#!/usr/bin/env bash
# Runs every bench one after the other, the machine in front: nproc and model, so that a kept run says where it was.
. "$(dirname "$0")/library.sh"
scripts/setup.sh build

say "machine: $(nproc) x $(awk -F ': ' '/^model name/ { print $2; exit }' /proc/cpuinfo), $(uname -sr)"
say "commit: $(git rev-parse --short HEAD)"
cargo build --release -p tidemill-benches --bins
for source in benches/src/bin/*.rs; do
  name=$(basename "$source" .rs)
  say "== $name"
  "$target/release/$name"
done
cargo bench -p tidemill-topic --bench throughput
