#!/usr/bin/env bash
# Fetches Apache Flink's libraries once, from its Python package, and compiles FlinkCases.java against them into the
# given folder. Prints two lines: Flink's home (with lib/), and the jar of the programs.
#
#   benches/flink/setup.sh <folder>
. "$(dirname "$0")/../../scripts/library.sh"

version=2.3.0
folder=${1:?usage: benches/flink/setup.sh <folder>}
cache=${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}
environment=$cache/flink-$version

have python3 || die "please install Python 3 with its venv module"
have javac || die "please install a Java development kit, version 17"
if [ ! -e "$environment/complete" ]; then
  rm -rf "$environment"
  mkdir -p "$cache"
  python3 -m venv "$environment" >&2 || die "could not make a virtual environment: please install python3-venv"
  # The Java libraries alone: nothing here uses the Python API.
  "$environment/bin/pip" install --quiet --no-deps "apache-flink-libraries==$version" >&2 ||
    die "could not fetch Apache Flink $version by pip"
  touch "$environment/complete"
fi
home=$(cd "$environment"/lib/python*/site-packages/pyflink && pwd)
mkdir -p "$folder/classes"
javac -proc:none -d "$folder/classes" -cp "$home/lib/*" benches/flink/FlinkCases.java >&2
jar --create --file "$folder/cases.jar" -C "$folder/classes" .
say "$home"
say "$folder/cases.jar"
