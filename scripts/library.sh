# Shared by the scripts of this folder: source it, do not run it.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Where cargo builds, as cargo itself decides.
# shellcheck disable=SC2034 # used by those that source this
target=${CARGO_TARGET_DIR:-target}

say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# A folder that is gone when the script ends.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/tidemill.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

passed=0
failed=0

# step <name> <command…>: runs it and counts. A step that runs tests counts those; any other step counts as one.
step() {
  local name=$1 log=$scratch/step.log status pass fail begin=$SECONDS
  shift
  say "== $name"
  set +e
  "$@" </dev/null 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  set -e
  read -r pass fail < <(awk -f scripts/count.awk "$log")
  if [ "$status" -ne 0 ] && [ "$fail" -eq 0 ]; then
    fail=1
  elif [ "$status" -eq 0 ] && [ "$pass" -eq 0 ]; then
    pass=1
  fi
  passed=$((passed + pass))
  failed=$((failed + fail))
  if [ "$fail" -gt 0 ] && [ -n "${TIDEMILL_TALLY:-}" ]; then
    { say "== what failed in: $name"; awk -f scripts/failures.awk "$log"; } >>"$TIDEMILL_TALLY.failures"
  fi
  say "== $name: $pass passed, $fail failed ($((SECONDS - begin)) s)"
}

# Ends a script that took steps: the sum as the last line, also for .ci/run, and the exit code.
conclude() {
  if [ -n "${TIDEMILL_TALLY:-}" ]; then
    say "$passed $failed" >>"$TIDEMILL_TALLY"
  fi
  say "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}

# fetch_jars <name> <version> <group:artifact:version …>: fetches Java packages and what they need by Maven, once, into
# $jars, the folder of that name and version.
fetch_jars() {
  local name=$1 version=$2 package group artifact of
  shift 2
  local cache=${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}
  jars=$cache/$name-$version
  [ -e "$jars/complete" ] && return
  if ! have mvn || ! have java; then scripts/setup.sh kafka >&2; fi
  mkdir -p "$cache"
  # Several tests may ask at the same time: one fetches, the others wait.
  exec 9>"$cache/$name.lock"
  flock 9
  [ -e "$jars/complete" ] && return
  {
    say '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
    say "<groupId>tidemill</groupId><artifactId>$name</artifactId><version>1</version><dependencies>"
    for package; do
      IFS=: read -r group artifact of <<<"$package"
      say "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$of</version></dependency>"
    done
    say '</dependencies></project>'
  } >"$scratch/pom.xml"
  mvn -q -B -f "$scratch/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" >&2 ||
    die "could not fetch $name $version by Maven"
  # Other bindings of slf4j, with which each start would begin with a warning.
  rm -f "$jars"/log4j-slf4j-impl-*.jar "$jars"/slf4j-reload4j-*.jar
  touch "$jars/complete"
}
