# `just` lists the recipes. Each is a script or a cargo command that also runs without just.

[private]
default:
    @just --list --unsorted

# Everything that must pass before a change is accepted
check:
    .ci/run

# Every test, or those whose name contains FILTER
test *FILTER:
    tests/run.sh {{ FILTER }}

# Write every generated file anew: schemas, settings, tables
regen:
    tests/regen.sh

# Show the whole in a minute: imports, decisions, a rule in shadow, NATS killed and back
demo *OPTIONS:
    cargo run --release --quiet -- demo {{ OPTIONS }}

# Build the documentation's site in target/book
docs:
    release/site.sh

# Check licences, bans, sources and known vulnerabilities of dependencies
deny:
    tests/dependencies.sh

# Check shell scripts and the workflows in .github
scripts:
    tests/scripts.sh

# Search for inputs that break a parser, for SECONDS per target
fuzz SECONDS="60" *TARGETS:
    fuzz/run.sh {{ SECONDS }} {{ TARGETS }}

# Build the archive of a release for TARGET in target/dist
archive TARGET="x86_64-unknown-linux-musl":
    release/archive.sh {{ TARGET }}
