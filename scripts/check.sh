#!/usr/bin/env bash
# What must hold before a change is shown to anybody: form, lints, documentation, house rules, types of the page.
. "$(dirname "$0")/library.sh"
scripts/setup.sh build

# With what ordinary builds leave out.
features=(--features tidemill-connectors/orc)

# Without the command line: its program and the facade are both called `tidemill` and would overwrite each other.
documentation() {
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --exclude tidemill-cli "${features[@]}" --no-deps --document-private-items --keep-going --locked
}
types() { scripts/web.sh packages && npm --prefix web run --silent check; }

step "cargo fmt" cargo fmt --all -- --check -l # lists the files; `cargo fmt` repairs them
step "clippy" cargo clippy --workspace --all-targets "${features[@]}" --keep-going --locked -- -D warnings
step "cargo doc" documentation
step "house rules" cargo test -p tidemill-tests --test it --locked house::
if have npm; then
  step "types of the page" types
  step "types of the HTTP interface" scripts/types.sh check
else
  say "types of the page and of the HTTP interface: not checked, Node is not there"
fi
if have shellcheck; then
  step "shellcheck" shellcheck -x -P scripts scripts/*.sh .ci/run
fi
conclude
