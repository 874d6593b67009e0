#!/usr/bin/env bash
# The checkpoint protocol simulated in one thread, for many seeds.
#   TIDEMILL_SIMULATE_SEEDS=10000 (default)   TIDEMILL_SEED=7 repeats one and tells its story
. "$(dirname "$0")/library.sh"

export TIDEMILL_SIMULATE_SEEDS=${TIDEMILL_SIMULATE_SEEDS:-10000}
step "simulation" cargo test -p tidemill-engine --lib --locked -- simulation:: --nocapture
conclude
