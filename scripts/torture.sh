#!/usr/bin/env bash
# Random dataflow graphs under random faults, for many seeds.
#   TIDEMILL_SOAK_SEEDS=2000 (default)   TIDEMILL_SOAK_FIRST=1001 goes on behind others   TIDEMILL_SEED=7 repeats one
. "$(dirname "$0")/library.sh"

export TIDEMILL_SOAK_SEEDS=${TIDEMILL_SOAK_SEEDS:-2000}
torture() { cargo test -p tidemill-faults --test faults --locked -- "$1" --nocapture --test-threads=1; }
step "torture" torture torture::
# Each seed of these starts a server, too: one for twenty of the others.
[ -n "${TIDEMILL_SEED:-}" ] || export TIDEMILL_SOAK_SEEDS=$(((TIDEMILL_SOAK_SEEDS + 19) / 20))
step "torture under a server" torture torture_server::
conclude
