#!/usr/bin/env bash
# Random dataflow graphs under random faults, for many seeds.
#   TIDEMILL_SOAK_SEEDS=2000 (default)   TIDEMILL_SEED=7 repeats one
. "$(dirname "$0")/library.sh"

export TIDEMILL_SOAK_SEEDS=${TIDEMILL_SOAK_SEEDS:-2000}
step "torture" cargo test -p tidemill-faults --test faults --locked -- torture:: --nocapture --test-threads=1
conclude
