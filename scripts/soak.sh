#!/usr/bin/env bash
# The kill tests for long: each one for so many minutes, or for so many seeds.
#   TIDEMILL_SOAK_MINUTES=60 (default)   TIDEMILL_SOAK_SEEDS=100   TIDEMILL_SEED=7 repeats one
. "$(dirname "$0")/library.sh"

if [ -z "${TIDEMILL_SOAK_SEEDS:-}" ] && [ -z "${TIDEMILL_SEED:-}" ]; then
  export TIDEMILL_SOAK_MINUTES=${TIDEMILL_SOAK_MINUTES:-60}
fi

# One after the other: each wants the machine for itself.
step "kill tests" cargo test -p tidemill-faults --test faults --locked -- kill --nocapture --test-threads=1
conclude
