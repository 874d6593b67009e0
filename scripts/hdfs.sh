#!/usr/bin/env bash
# A real HDFS on loopback, for tests: a name node and a data node in one process, from Hadoop's own packages.
#
#   scripts/hdfs.sh jars                  fetches the jars once and prints their folder
#   scripts/hdfs.sh run <folder> <port>   runs it with its name node on the port and its data in <folder>; says `ready`
#                                         when it serves
#   scripts/hdfs.sh test                  the engine's tests of checkpoints in HDFS, which ordinary builds leave out
#
# `run` ends when its standard input does, so that a server never outlives the test that holds the other end.
. "$(dirname "$0")/library.sh"

version=3.4.2

fetch() { fetch_jars hadoop "$version" "org.apache.hadoop:hadoop-client-minicluster:$version" "org.slf4j:slf4j-simple:1.7.36" "org.mockito:mockito-core:4.11.0"; }

run() {
  fetch
  # Heartbeats and leases as ever; everything on loopback, and all it writes in one folder.
  exec java -Xmx384m -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$jars/*" scripts/hdfs/Hdfs.java "$1" "$2"
}

case ${1:-} in
  jars) fetch && say "$jars" ;;
  run) [ $# -eq 3 ] || die "usage: scripts/hdfs.sh run <folder> <port>"; run "$2" "$3" ;;
  test)
    fetch
    step "checkpoints in HDFS" cargo test --workspace --locked --features tidemill-engine/hdfs --test engine -- hdfs
    conclude
    ;;
  *) die "usage: scripts/hdfs.sh jars | run <folder> <port> | test" ;;
esac
