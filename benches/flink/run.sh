#!/usr/bin/env bash
# The figures beside Apache Flink's: `make bench-flink`. Arguments go to compare.py. Files of the run stand in a
# temporary folder that is gone at its end.
. "$(dirname "$0")/../../scripts/library.sh"
scripts/setup.sh build
cargo build --release -p tidemill-benches --bin flink_cases
made=$(benches/flink/setup.sh "$scratch")
{ read -r flink; read -r jar; } <<<"$made"
python3 -B benches/flink/compare.py --flink "$flink" --jar "$jar" --ours "$(realpath "$target")/release/flink_cases" --work "$scratch" "$@"
