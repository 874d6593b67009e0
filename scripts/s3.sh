#!/usr/bin/env bash
# A real server that speaks S3 on loopback, for tests: versitygw, which keeps objects as files.
#
#   scripts/s3.sh program               fetches the program once, by its Go module, and prints where it is
#   scripts/s3.sh run <folder> <port>   runs it on the port with its data in <folder> and a bucket `checkpoints`; says
#                                       `ready <pid>` when it serves. The access key is `tidemill`, the secret `tidemill-secret`
#
# `run` ends when its standard input does, so that a server never outlives the test that holds the other end. The data
# stays, and another `run` on the same folder goes on with it.
. "$(dirname "$0")/library.sh"

version=1.8.0
cache=${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}
folder_of_program=$cache/versitygw-$version
program=$folder_of_program/versitygw

fetch() {
  [ -x "$program" ] && return
  have go || scripts/setup.sh s3 >&2
  mkdir -p "$cache"
  # Several tests may ask at the same time: one fetches, the others wait.
  exec 9>"$cache/versitygw.lock"
  flock 9
  [ -x "$program" ] && return
  GOBIN=$folder_of_program go install "github.com/versity/versitygw/cmd/versitygw@v$version" >"$scratch/go.log" 2>&1 || {
    cat "$scratch/go.log" >&2
    die "could not fetch versitygw $version by its Go module"
  }
}

# Global, since a trap runs outside of the function that set it.
server=
end_server() {
  kill -9 "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  rm -rf "$scratch"
}

serves() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

run() {
  local folder=$1 port=$2
  fetch
  # What a file system keeps beside the bytes goes into a folder of its own: not every one can keep it itself.
  mkdir -p "$folder/data/checkpoints" "$folder/beside"
  ROOT_ACCESS_KEY=tidemill ROOT_SECRET_KEY=tidemill-secret "$program" --port "127.0.0.1:$port" --quiet \
    posix --sidecar "$folder/beside" "$folder/data" >"$folder/server.log" 2>&1 </dev/null &
  server=$!
  trap end_server EXIT
  for _ in $(seq 600); do
    if serves "$port"; then
      say "ready $server"
      # Until whoever started us is gone.
      while read -r _; do :; done
      return
    fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
  done
  tail -n 20 "$folder/server.log" >&2
  die "versitygw did not start"
}

case ${1:-} in
  program) fetch && say "$program" ;;
  run) [ $# -eq 3 ] || die "usage: scripts/s3.sh run <folder> <port>"; shift; run "$@" ;;
  *) die "usage: scripts/s3.sh program | run <folder> <port>" ;;
esac
