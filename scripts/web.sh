#!/usr/bin/env bash
# Installs the packages of web/ and builds the page into web/dist, each only when its inputs have changed. (A new
# web/dist makes cargo build the server again, so it is not touched for nothing.)
#
#   scripts/web.sh packages    only the packages
#   scripts/web.sh build       both
. "$(dirname "$0")/library.sh"

have npm || die "Node is not there: install version 20.19 or newer from https://nodejs.org, then try again"
cd web

sum_of() { find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum; }
unchanged() { [ -e "$1" ] && [ "$(cat "$1")" = "$2" ]; }

packages=$(sum_of package.json package-lock.json)
if ! unchanged node_modules/.tidemill-packages "$packages"; then
  npm ci --no-audit --no-fund --loglevel=error
  say "$packages" >node_modules/.tidemill-packages
fi
[ "${1:-build}" = build ] || exit 0

inputs=$(sum_of package.json package-lock.json index.html vite.config.ts tsconfig.json public src)
if ! [ -e dist/index.html ] || ! unchanged node_modules/.tidemill-dist "$inputs"; then
  npm run --silent build
  say "$inputs" >node_modules/.tidemill-dist
fi
