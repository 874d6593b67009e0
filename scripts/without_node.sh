#!/usr/bin/env bash
# Builds the server from a fresh clone of the last commit, where Node cannot be called and no page has been built, and
# opens it in a browser: it must say how to build the page. (The browser is driven with Node, the build is not.)
. "$(dirname "$0")/library.sh"

CHROMIUM=${CHROMIUM:-$(command -v chromium || true)}
export CHROMIUM
scripts/web.sh packages

clone=$scratch/clone
git clone --quiet --depth 1 "file://$root" "$clone"
mkdir "$scratch/path"
for program in node npm npx; do
  printf '#!/bin/sh\necho "%s was called" >&2\nexit 127\n' "$program" >"$scratch/path/$program"
  chmod +x "$scratch/path/$program"
done
# The dependencies are those of this tree; the clone's own parts are built anew, as those of another version: cargo would
# take them for this tree's, which have the same names and older files, and the next build here would be without a page.
mkdir -p "$target"
here=$(cd "$target" && pwd)
(
  cd "$clone"
  sed -i 's/^version = .*/version = "0.0.0"/' Cargo.toml
  export PATH="$scratch/path:$PATH" CARGO_TARGET_DIR=$here
  cargo update --quiet --offline --workspace
  cargo build --quiet --locked --bin tidemill
)
cp "$here/debug/tidemill" "$scratch/tidemill"
node tests/browser/without_page.mjs --program "$scratch/tidemill"
