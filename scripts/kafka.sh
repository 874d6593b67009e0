#!/usr/bin/env bash
# A real Apache Kafka broker on loopback, for tests and benches.
#
#   scripts/kafka.sh jars                           fetches the jars once and prints their folder
#   scripts/kafka.sh run <folder> <port> <port>     runs a broker on the first port (the second is its controller's)
#                                                   with its data in <folder>; says `ready <pid>` when it serves
#
# `run` ends when its standard input does, so that a broker never outlives the test that holds the other end. The data
# stays, and another `run` on the same folder goes on with it; with KAFKA_TEMPORARY=yes the folder goes with the broker.
# KAFKA_HEAP sets the heap, by default 384m.
. "$(dirname "$0")/library.sh"

version=4.1.1
cache=${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}
jars=$cache/kafka-$version

fetch() {
  [ -e "$jars/complete" ] && return
  have mvn && have java || scripts/setup.sh kafka >&2
  mkdir -p "$cache"
  # Several tests may ask at the same time: one fetches, the others wait.
  exec 9>"$cache/kafka.lock"
  flock 9
  [ -e "$jars/complete" ] && return
  cat >"$scratch/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemill</groupId><artifactId>kafka-broker</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
  mvn -q -B -f "$scratch/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" >&2 ||
    die "could not fetch Apache Kafka $version by Maven"
  # Another binding of slf4j, with which each start would begin with a warning.
  rm -f "$jars"/log4j-slf4j-impl-*.jar
  touch "$jars/complete"
}

configure() { # configure <folder> <port> <controller port>
  cat >"$1/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$3
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$1/data
auto.create.topics.enable=false
# Records of tests carry times long ago, and Kafka goes by those.
log.retention.ms=-1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
# A broker that was killed is let in again when its old session has ended; by default that takes 9 s.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# Looked at every 10 s by default; tests of transactions that time out would wait as long.
transaction.abort.timed.out.transaction.cleanup.interval.ms=200
PROPERTIES
}

# Globals, since a trap runs outside of the function that set it.
broker=
folder_of_broker=
end_broker() {
  kill -9 "$broker" 2>/dev/null || true
  wait "$broker" 2>/dev/null || true
  rm -rf "$scratch"
  [ "${KAFKA_TEMPORARY:-}" != yes ] || rm -rf "$folder_of_broker"
}

run() {
  local folder=$1 port=$2
  fetch
  mkdir -p "$folder"
  configure "$folder" "$port" "$3"
  local java=(java "-Xmx${KAFKA_HEAP:-384m}" -XX:+UseSerialGC -XX:TieredStopAtLevel="${KAFKA_TIER:-1}" -Xshare:auto
    -Dorg.slf4j.simpleLogger.showDateTime=true -cp "$jars/*")
  if [ ! -e "$folder/data/meta.properties" ]; then
    "${java[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.tools.StorageTool format \
      -t TidemillTestsKafka0001 -c "$folder/server.properties" >"$folder/format.log" 2>&1 ||
      { cat "$folder/format.log" >&2; die "could not format the broker's storage"; }
  fi
  : >"$folder/broker.log"
  "${java[@]}" kafka.Kafka "$folder/server.properties" >"$folder/broker.log" 2>&1 </dev/null &
  broker=$!
  folder_of_broker=$folder
  trap end_broker EXIT
  # Ends with the broker, so that one that cannot start is told of at once.
  if ! grep -qm1 'Kafka Server started' < <(tail -n +1 -f --pid="$broker" "$folder/broker.log"); then
    tail -n 40 "$folder/broker.log" >&2
    die "the broker did not start"
  fi
  say "ready $broker"
  # Until whoever started us is gone.
  while read -r _; do :; done
}

case ${1:-} in
  jars) fetch && say "$jars" ;;
  run) [ $# -eq 4 ] || die "usage: scripts/kafka.sh run <folder> <port> <controller port>"; shift; run "$@" ;;
  *) die "usage: scripts/kafka.sh jars | run <folder> <port> <controller port>" ;;
esac
