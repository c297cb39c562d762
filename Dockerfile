# Three images from one build:
#
#   docker build --target gateway     -t importguard-gateway .
#   docker build --target decider     -t importguard-decider .
#   docker build                      -t importguard .            gateway and decider in one process, and the commands
#
# Bases are named by tag, so that a local build gets their security updates. A release resolves each tag to a digest once, builds all
# images from that (.github/workflows/release.yml), and names it in their provenance.
#
# Dependencies are a layer of their own, built from the manifests alone. BuildKit's cache mounts are not used, because the
# default builder of Debian's docker.io lacks them and most CI machines lose their content; nor is cargo-chef, which would
# have to be compiled first.

FROM rust:1.95.0-bookworm AS rust
WORKDIR /src

# The manifests, with an empty program for each crate. This stage runs on every change, but its result only changes with
# the manifests, so the next stage's layers come from the cache.
FROM rust AS manifests
COPY . .
RUN find . -type f ! -name 'Cargo.*' ! -name main.rs ! -name lib.rs ! -name build.rs ! -path '*/benches/*.rs' -delete \
 && find . -type d -empty -delete \
 && for file in $(find . -name '*.rs'); do echo 'fn main() {}' > "$file"; done

FROM rust AS cargo
ENV CARGO_INCREMENTAL=0
# A release sets the version of cargo-auditable, which puts the list of dependencies into the programs.
ARG AUDITABLE=
RUN if [ -n "$AUDITABLE" ]; then cargo install --locked "cargo-auditable@$AUDITABLE"; fi

# What the compiler learns from a run of the benchmark, if PGO is set, as it is for a release: programs then take a third less CPU a
# decision, for several times the time to build.
FROM cargo AS profile
ARG AUDITABLE=
ARG PGO=
COPY . .
RUN mkdir /profile \
 && if [ -n "$PGO" ]; then \
        apt-get update && apt-get install -y --no-install-recommends nats-server \
     && rustup component add llvm-tools \
     && release/profile.sh \
     && mv target/pgo/importguard.profdata target/pgo/release/importguard-bench /profile && rm -rf target; \
    fi

FROM cargo AS build
ARG AUDITABLE=
COPY --from=profile /profile /profile
# Both builds need the same flags, for the second to use what the first has built.
RUN if [ -e /profile/importguard.profdata ]; then \
        apt-get update && apt-get install -y --no-install-recommends nats-server bolt-19 \
     && printf '[build]\nrustflags = ["-Cprofile-use=/profile/importguard.profdata", "-Clink-arg=-Wl,--emit-relocs"]\n' >>"$CARGO_HOME/config.toml"; \
    fi
COPY --from=manifests /src .
RUN cargo ${AUDITABLE:+auditable} build --release --locked -p importguard-gateway -p importguard-decider -p importguard
COPY . .
# Cargo compares modification times, and the sources may be older than the empty programs.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
 && cargo ${AUDITABLE:+auditable} build --release --locked -p importguard-gateway -p importguard-decider -p importguard \
 && if [ -e /profile/importguard.profdata ]; then release/layout.sh target/release /profile/importguard-bench; fi \
 && mkdir -p /out/spool \
 && cp target/release/importguard-gateway target/release/importguard-decider target/release/importguard /out

# The licences of what the programs contain. A release has them in the image: docker build --build-context notices=target/dist, after
# release/notices.sh.
FROM rust AS notices
RUN echo "This image was not built by a release; release/notices.sh writes the third-party notices." > /THIRD-PARTY-NOTICES.txt

# Only the C library, certificates, time zones and a user: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.source="https://github.com/importguard/importguard" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV IMPORTGUARD_LOG_FORMAT=json
COPY LICENSE /usr/share/doc/importguard/
COPY --from=notices /THIRD-PARTY-NOTICES.txt /usr/share/doc/importguard/
# Numeric, so that Kubernetes can verify that it is not root.
USER 65532:65532
WORKDIR /

FROM runtime AS decider
LABEL org.opencontainers.image.title="importguard-decider" \
      org.opencontainers.image.description="Evaluates the operator's policy for importguard's gateways, over gRPC"
# The policy must be mounted: the sample policy must never decide about real users. MIMALLOC_PURGE_DELAY=0 returns a
# replaced list's memory at once.
ENV IMPORTGUARD_DECIDER_LISTEN=[::]:50051 \
    IMPORTGUARD_ADMIN_LISTEN=[::]:8082 \
    IMPORTGUARD_POLICY=/etc/importguard/policy/policy.yaml \
    MIMALLOC_PURGE_DELAY=0
COPY --from=build /out/importguard-decider /usr/local/bin/
EXPOSE 50051 8082
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["importguard-decider", "healthcheck"]
ENTRYPOINT ["importguard-decider"]

FROM runtime AS gateway
LABEL org.opencontainers.image.title="importguard-gateway" \
      org.opencontainers.image.description="Answers OpenIM's import callback: asks a decider, records the decision on NATS, answers"
ENV IMPORTGUARD_HTTP_LISTEN=[::]:8080 \
    IMPORTGUARD_ADMIN_LISTEN=[::]:8081 \
    IMPORTGUARD_SPOOL=/var/lib/importguard/spool
COPY --from=build --chown=65532:65532 /out/spool /var/lib/importguard/spool
COPY --from=build /out/importguard-gateway /usr/local/bin/
# The only writable path.
VOLUME /var/lib/importguard/spool
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["importguard-gateway", "healthcheck"]
ENTRYPOINT ["importguard-gateway"]

FROM runtime AS importguard
LABEL org.opencontainers.image.title="importguard" \
      org.opencontainers.image.description="importguard in one process, and the operator's commands"
ENV IMPORTGUARD_HTTP_LISTEN=[::]:8080 \
    IMPORTGUARD_ADMIN_LISTEN=[::]:8081 \
    IMPORTGUARD_POLICY=/etc/importguard/policy/policy.yaml \
    IMPORTGUARD_SPOOL=/var/lib/importguard/spool \
    MIMALLOC_PURGE_DELAY=0
COPY --from=build --chown=65532:65532 /out/spool /var/lib/importguard/spool
COPY --from=build /out/importguard /usr/local/bin/
VOLUME /var/lib/importguard/spool
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["importguard", "healthcheck"]
ENTRYPOINT ["importguard"]
