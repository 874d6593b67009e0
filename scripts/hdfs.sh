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
cache=${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}
jars=$cache/hadoop-$version

fetch() {
  [ -e "$jars/complete" ] && return
  if ! have mvn || ! have java; then scripts/setup.sh kafka >&2; fi
  mkdir -p "$cache"
  # Several tests may ask at the same time: one fetches, the others wait.
  exec 9>"$cache/hadoop.lock"
  flock 9
  [ -e "$jars/complete" ] && return
  cat >"$scratch/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemill</groupId><artifactId>hdfs</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.hadoop</groupId><artifactId>hadoop-client-minicluster</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
    <dependency><groupId>org.mockito</groupId><artifactId>mockito-core</artifactId><version>4.11.0</version></dependency>
  </dependencies>
</project>
POM
  mvn -q -B -f "$scratch/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" >&2 ||
    die "could not fetch Apache Hadoop $version by Maven"
  # Another binding of slf4j, with which each start would begin with a warning.
  rm -f "$jars"/slf4j-reload4j-*.jar
  touch "$jars/complete"
}

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
