#!/usr/bin/env python3
"""Runs the cases in Flink and in Tidemill in turns, over the same files, and prints one table. Standard library only.

compare.py --flink HOME --jar CASES.JAR --ours FLINK_CASES --work DIR [--cases a,b] [--thousands 4000] [--warmups 1] [--rounds 3]
           [--heap-mb 1024] [--state-mb 32]

The case `large_state`, which runs when it is named, has its state on disk on both sides, in RocksDB there, with `--state-mb` of
memory for it. The state is about 65 bytes for each event: ten times that memory with 5000 thousand events and 32 MB.

One cluster serves all rounds of a case: its first runs are thrown away (class loading, compilation), and ours starts
a process for each run, whose whole life counts. Both must come to the same results (count and checksum). Compared are
processor seconds of all threads (JobManager and TaskManager together), which a busy machine falsifies least, and peak
resident memory; medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

from cluster import Cluster

CASES = ["word_count", "window_count", "window_join", "session"]
ON_DISK = ["large_state"]


def run_ours(program, case, folder, state_mb):
    """Results, seconds, processor seconds and peak memory of one process of ours."""
    on_disk = dict(TIDEMILL_STATE_BACKEND="disk", TIDEMILL_STATE_MEMORY_MAX_BYTES=str(state_mb << 20)) if state_mb else {}
    process = subprocess.Popen([program, "run", case, folder], stdout=subprocess.PIPE, env=dict(os.environ, **on_disk))
    told = process.stdout.read()
    process.stdout.close()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"`{program} run {case}` ended with {process.returncode}")
    return dict(json.loads(told), cpu_s=used.ru_utime + used.ru_stime, peak_mb=used.ru_maxrss * 1024 / 1e6)


def middle(runs, what):
    return statistics.median(run[what] for run in runs)


def row(name, runs, events):
    cpu_s = middle(runs, "cpu_s")
    rates = "  ".join(f"{events / 1e6 / run['cpu_s']:.2f}" for run in runs)
    return (f"  {name:<22}{events / 1e6 / middle(runs, 'seconds'):10.2f}{cpu_s / events * 1e6:15.3f}"
            f"{events / 1e6 / cpu_s:16.2f}{middle(runs, 'peak_mb'):9.0f}   [{rates}]")


def compare(case, args, data):
    """One case; its lines of the table."""
    state_mb = args.state_mb if case in ON_DISK else 0
    with Cluster(args.flink, args.jar, os.path.join(args.work, "cluster"), args.heap_mb, state_mb) as cluster:
        expected = [cluster.run(case, data) for _ in range(args.warmups)][-1]
        runs = {"flink": [], "ours": []}
        for _ in range(args.rounds):
            runs["flink"].append(cluster.run(case, data))
            runs["ours"].append(run_ours(args.ours, case, data, state_mb))
    for name, several in runs.items():
        for run in several:
            if (run["count"], run["checksum"]) != (expected["count"], expected["checksum"]) or run["count"] == 0:
                raise RuntimeError(f"{case}: other results: {expected} at first, and then {run} of {name}")
    events = args.thousands * 1000
    faster = middle(runs["flink"], "cpu_s") / middle(runs["ours"], "cpu_s")
    smaller = middle(runs["flink"], "peak_mb") / middle(runs["ours"], "peak_mb")
    print(row(f"{case} flink", runs["flink"], events))
    print(row(f"{case} tidemill", runs["ours"], events))
    print(f"  {'':<22}{expected['count']} results each, the same; {faster:.1f} x events per CPU second, "
          f"1/{smaller:.1f} of the memory", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flink", required=True)
    parser.add_argument("--jar", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--thousands", type=int, default=4000, help="words or events of each case, in thousands")
    parser.add_argument("--warmups", type=int, default=1, help="runs of Flink that are thrown away, at least 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heap-mb", type=int, default=1024)
    parser.add_argument("--state-mb", type=int, default=32, help="memory for state on disk, of each side")
    args = parser.parse_args()
    data = os.path.abspath(os.path.join(args.work, "data"))
    shutil.rmtree(data, ignore_errors=True)
    subprocess.run([args.ours, "make", data, str(args.thousands)], check=True)
    print(f"Flink 2.3.0 and Tidemill, parallelism 2, {args.thousands / 1000:g} M words or events from files, "
          f"{args.rounds} rounds in turns, medians, load {os.getloadavg()[0]:.2f}")
    print(f"  {'':<22}{'M events/s':>10}{'CPU s/M events':>15}{'M events/CPU s':>16}{'peak MB':>9}   [M events/CPU s of each round]",
          flush=True)
    for case in args.cases.split(","):
        compare(case, args, data)
    print(f"  load at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
