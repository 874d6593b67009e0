#!/usr/bin/env bash
# All tests: Rust, unit tests of the page, and the page in a real browser.
. "$(dirname "$0")/library.sh"
scripts/setup.sh test

have npm || die "Node is not there: install version 20.19 or newer from https://nodejs.org, then try again"

# Once, so that no test waits for it.
scripts/kafka.sh jars >/dev/null
scripts/s3.sh program >/dev/null
scripts/opensearch.sh folder >/dev/null
step "build of the page" scripts/web.sh build
step "cargo test" cargo test --workspace --no-fail-fast --locked
# A build of its own: ordinary programs have no second Arrow.
step "ORC files" cargo test --workspace --locked --features tidemill-connectors/orc --test connectors -- file_orc
step "unit tests of the page" npm --prefix web test --silent
step "page in a browser" scripts/browser.sh
step "server built without Node" scripts/without_node.sh
conclude
