#!/usr/bin/env bash
# A real Apache Kafka broker on loopback, for tests and benches.
#
#   scripts/kafka.sh jars                           fetches the jars once and prints their folder
#   scripts/kafka.sh run <folder> <port> <port>     runs a broker on the first port (the second is its controller's)
#                                                   with its data in <folder>; says `ready <pid>` when it serves
#
# `run` ends when its standard input does, so that a broker never outlives the test that holds the other end. The data
# stays, and another `run` on the same folder goes on with it; with KAFKA_TEMPORARY=yes the folder goes with the broker.
# KAFKA_HEAP sets the heap, by default 384m. KAFKA_SECURE="<port> …" (seven of them) adds listeners with TLS and logins, see
# `secure` below; their certificates are in <folder>/tls.
. "$(dirname "$0")/library.sh"

version=4.1.1

fetch() { fetch_jars kafka "$version" "org.apache.kafka:kafka_2.13:$version" "org.slf4j:slf4j-simple:1.7.36"; }

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

# secure <folder> <port>×7: the listeners TLS, MUTUAL (wants a certificate of the client), EXPIRED (shows one that has expired),
# LOGIN (PLAIN and SCRAM in the open), SECURE (the same through TLS), STRANGER (a certificate for another host) and, last, one
# that takes SCRAM-SHA-512 only. Users: `alice` by PLAIN with `alice-plain`, by SCRAM with `alice-scram`.
secure() {
  local folder=$1 tls=$1/tls
  shift
  if [ ! -e "$tls/complete" ]; then
    mkdir -p "$tls"
    (cd "$tls" && certificates) >"$folder/certificates.log" 2>&1 ||
      { cat "$folder/certificates.log" >&2; die "could not make certificates"; }
    touch "$tls/complete"
  fi
  local names=(TLS MUTUAL EXPIRED LOGIN SECURE STRANGER SHA512) kinds=(SSL SSL SSL SASL_PLAINTEXT SASL_SSL SSL SASL_PLAINTEXT)
  local certificates=(broker broker expired broker broker stranger broker)
  local listeners="" map="" at name lower
  for at in "${!names[@]}"; do
    listeners+=",${names[$at]}://127.0.0.1:$1"
    map+=",${names[$at]}:${kinds[$at]}"
    shift
  done
  sed -i "/^listeners=/s|\$|$listeners|; /^advertised.listeners=/s|\$|${listeners//127.0.0.1/localhost}|" \
    "$folder/server.properties"
  sed -i "/^listener.security.protocol.map=/s|\$|$map|" "$folder/server.properties"
  {
    say "inter.broker.listener.name=PLAINTEXT"
    for at in "${!names[@]}"; do
      name=${names[$at]}
      lower=listener.name.${name,,}
      case ${kinds[$at]} in *SSL)
        say "$lower.ssl.keystore.type=PEM"
        say "$lower.ssl.keystore.location=$tls/${certificates[$at]}.pem"
        say "$lower.ssl.truststore.type=PEM"
        say "$lower.ssl.truststore.location=$tls/ca.pem" ;;
      esac
      case ${kinds[$at]} in SASL*)
        local scram="org.apache.kafka.common.security.scram.ScramLoginModule required;"
        say "$lower.scram-sha-512.sasl.jaas.config=$scram"
        if [ "$name" = SHA512 ]; then
          say "$lower.sasl.enabled.mechanisms=SCRAM-SHA-512"
        else
          say "$lower.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
          say "$lower.scram-sha-256.sasl.jaas.config=$scram"
          say "$lower.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"alice-plain\";"
        fi ;;
      esac
    done
    say "listener.name.mutual.ssl.client.auth=required"
  } >>"$folder/server.properties"
  credentials=(--add-scram 'SCRAM-SHA-256=[name=alice,password=alice-scram]'
    --add-scram 'SCRAM-SHA-512=[name=alice,password=alice-scram]')
}

# An authority with certificates for the broker, for another host, of the past, and for a client; and an authority of its own.
certificates() {
  local new=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  local name
  for name in ca other; do
    openssl req -x509 "${new[@]}" -keyout "$name.key" -out "$name.pem" -days 3650 -subj "/CN=$name"
  done
  printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n' >ca.cnf
  : >index
  say 01 >serial
  signed() { # signed <name> <names it is made out to> <from> <to>
    printf 'subjectAltName=%s\n' "$2" >"$1.ext"
    openssl req "${new[@]}" -keyout "$1.key" -out "$1.csr" -subj "/CN=$1"
    openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in "$1.csr" -out "$1.crt" -extfile "$1.ext" \
      -notext -startdate "$3" -enddate "$4"
    cat "$1.key" "$1.crt" >"$1.pem"
  }
  signed broker DNS:localhost,IP:127.0.0.1 20200101000000Z 20491231000000Z
  signed stranger DNS:elsewhere.example 20200101000000Z 20491231000000Z
  signed expired DNS:localhost,IP:127.0.0.1 20200101000000Z 20210101000000Z
  signed client DNS:client 20200101000000Z 20491231000000Z
}

# Globals, since a trap runs outside of the function that set it.
broker=
folder_of_broker=
credentials=()
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
  # shellcheck disable=SC2086 # several ports
  [ -z "${KAFKA_SECURE:-}" ] || secure "$folder" $KAFKA_SECURE
  local java=(java "-Xmx${KAFKA_HEAP:-384m}" -XX:+UseSerialGC -XX:TieredStopAtLevel="${KAFKA_TIER:-1}" -Xshare:auto
    -Dorg.slf4j.simpleLogger.showDateTime=true -cp "$jars/*")
  if [ ! -e "$folder/data/meta.properties" ]; then
    "${java[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.tools.StorageTool format \
      -t TidemillTestsKafka0001 -c "$folder/server.properties" ${credentials[@]+"${credentials[@]}"} >"$folder/format.log" 2>&1 ||
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
