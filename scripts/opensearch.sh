#!/usr/bin/env bash
# A real OpenSearch of one node on loopback, for tests.
#
#   scripts/opensearch.sh folder               fetches the server once and prints where it is
#   scripts/opensearch.sh installed            succeeds when it has been fetched and can run
#   scripts/opensearch.sh run <folder> <port>  runs it on the port with its data in <folder>; says `ready <pid>` when it serves
#
# `run` ends when its standard input does, so that a server never outlives the test that holds the other end. The data
# stays, and another `run` on the same folder goes on with it; with OPENSEARCH_TEMPORARY=yes the folder goes with the server.
# It is the distribution the project makes for tests: the server alone, without security. It takes bodies of 1 MB at most.
. "$(dirname "$0")/library.sh"

# The last line that runs on Java 17.
version=2.19.6
cache=${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}
home=$cache/opensearch-$version

fetch() {
  [ -e "$home/complete" ] && return
  if ! have mvn || ! have java; then scripts/setup.sh kafka >&2; fi
  mkdir -p "$cache"
  # Several tests may ask at the same time: one fetches, the others wait.
  exec 9>"$cache/opensearch.lock"
  flock 9
  [ -e "$home/complete" ] && return
  local package=org.opensearch.distribution.integ-test-zip:opensearch:$version:zip
  (cd "$scratch" && mvn -q -B dependency:unpack -Dartifact="$package" -DoutputDirectory=unpacked) >"$scratch/mvn.log" 2>&1 ||
    { cat "$scratch/mvn.log" >&2; die "could not fetch opensearch $version by Maven"; }
  rm -rf "$home"
  mv "$scratch/unpacked/opensearch-$version" "$home"
  touch "$home/complete"
}

configure() { # configure <folder> <port>
  cat >"$1/config/opensearch.yml" <<YAML
discovery.type: single-node
network.host: 127.0.0.1
http.port: $2
http.max_content_length: 1mb
# Any that is free: nobody else joins.
transport.port: 0
path.data: $1/data
path.logs: $1/logs
# A disk that is nearly full is no matter of these tests.
cluster.routing.allocation.disk.threshold_enabled: false
YAML
  cat >"$1/config/log4j2.properties" <<'PROPERTIES'
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%p][%c{1}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
PROPERTIES
}

# Globals, since a trap runs outside of the function that set it.
server=
folder_of_server=
end_server() {
  kill -9 "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  rm -rf "$scratch"
  [ "${OPENSEARCH_TEMPORARY:-}" != yes ] || rm -rf "$folder_of_server"
}

run() {
  local folder=$1 port=$2
  fetch
  mkdir -p "$folder/config" "$folder/tmp"
  configure "$folder" "$port"
  : >"$folder/server.log"
  # It refuses to be run by root, as CI does. Without its native library it cannot tell; tests need nothing else of that.
  java "-Xms${OPENSEARCH_HEAP:-256m}" "-Xmx${OPENSEARCH_HEAP:-256m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Djna.nounpack=true -Djna.nosys=true -Djava.io.tmpdir="$folder/tmp" -Djava.security.manager=allow \
    -Dlog4j2.disable.jmx=true -Dopensearch.distribution.type=zip -Dopensearch.bundled_jdk=false \
    -Dopensearch.path.home="$home" -Dopensearch.path.conf="$folder/config" -cp "$home/lib/*" \
    org.opensearch.bootstrap.OpenSearch >"$folder/server.log" 2>&1 </dev/null &
  server=$!
  folder_of_server=$folder
  trap end_server EXIT
  # Ends with the server, so that one that cannot start is told of at once.
  if ! grep -qm1 '\[Node\] started' < <(tail -n +1 -f --pid="$server" "$folder/server.log"); then
    tail -n 40 "$folder/server.log" >&2
    die "opensearch did not start"
  fi
  say "ready $server"
  # Until whoever started us is gone.
  while read -r _; do :; done
}

case ${1:-} in
  folder) fetch && say "$home" ;;
  installed) [ -e "$home/complete" ] && have java ;;
  run) [ $# -eq 3 ] || die "usage: scripts/opensearch.sh run <folder> <port>"; shift; run "$@" ;;
  *) die "usage: scripts/opensearch.sh folder | installed | run <folder> <port>" ;;
esac
