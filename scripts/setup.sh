#!/usr/bin/env bash
# Installs what is missing on a Debian machine, by package name; says nothing when nothing is missing.
#
#   scripts/setup.sh build    what the build needs: a C compiler for the bundled SQLite
#   scripts/setup.sh kafka    also what Apache Kafka needs: Java, and Maven to fetch it (scripts/kafka.sh); OpenSearch, too
#   scripts/setup.sh s3       also what a server that speaks S3 needs: Go, to fetch it (scripts/s3.sh)
#   scripts/setup.sh test     also what the tests need: all that, Redis, Postgres, MariaDB, Chromium, a font with Chinese characters
. "$(dirname "$0")/library.sh"

packages=()
need() { # need <package> <command that succeeds when it is there…>
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || packages+=("$package")
}
chinese_font() {
  compgen -G '/usr/share/fonts/opentype/noto/NotoSansCJK*' || fc-list :lang=zh family | grep .
}

have cargo || die "Rust is not there: install it from https://rustup.rs (version 1.95 or newer), then try again"
need gcc have cc
need libc6-dev sh -c 'echo "#include <stdio.h>" | cc -E -'
case ${1:-build} in s3 | test) need golang-go have go ;; esac
case ${1:-build} in kafka | test)
  need openjdk-17-jre-headless java -version
  need maven have mvn
  ;;
esac
if [ "${1:-build}" = test ]; then
  need redis-server have redis-server
  need postgresql compgen -G '/usr/lib/postgresql/*/bin/postgres'
  need mariadb-server test -x /usr/sbin/mariadbd
  [ -n "${CHROMIUM:-}" ] || need chromium have chromium
  need fonts-noto-cjk chinese_font
fi
[ ${#packages[@]} -gt 0 ] || exit 0

have apt-get || die "please install: ${packages[*]} (or what they are called on this system)"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  have sudo || die "please install, as root: ${packages[*]}"
  as_root=(sudo)
fi
say "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
install() {
  "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}"
}
install >"$scratch/apt.log" 2>&1 </dev/null || {
  cat "$scratch/apt.log" >&2
  die "could not install ${packages[*]}"
}
