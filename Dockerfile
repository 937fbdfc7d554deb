# syntax=docker/dockerfile:1
# The server with python3 and node, in two images from one recipe:
#
#   docker build -t codex-server .                        root in its container
#   docker build --target ordinary -t codex-server .      an ordinary user in it
#
# How to start each, and how well programs are isolated then:
# docs/deploy.md#docker. Where nothing sound can be set up the server refuses.

ARG DEBIAN=bookworm

FROM rust:1-${DEBIAN} AS build
ENV CARGO_TARGET_DIR=/target
# The dependencies in a layer of their own, made of the manifests alone: a
# change of the code leaves it as it is. (No cache mounts: Railway's builder
# takes none without the id of the service.)
WORKDIR /stub
COPY Cargo.toml Cargo.lock ./
COPY crates/sandbox/Cargo.toml crates/sandbox/
COPY crates/engine/Cargo.toml crates/engine/
COPY crates/plane/Cargo.toml crates/plane/
COPY crates/server/Cargo.toml crates/server/
COPY fuzz/Cargo.toml fuzz/
COPY lab/Cargo.toml lab/
COPY xtask/Cargo.toml xtask/
COPY packaging/stub-crates.sh packaging/
RUN sh packaging/stub-crates.sh \
    && cargo build --locked --release --package codex-server \
    && cargo clean --release --package codex-server --package engine --package sandbox
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package codex-server

FROM debian:${DEBIAN}-slim AS base
LABEL org.opencontainers.image.title="Codex Server" \
      org.opencontainers.image.description="Runs Python, JavaScript and Bash for ChatGPT, agents and people, in a sandbox" \
      org.opencontainers.image.source="https://github.com/codex-server/codex-server" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
# One list for this file and for the check that builds the same root without
# Docker; comments in it start with #.
COPY packaging/debian-packages.txt /usr/local/share/codex-server/
RUN apt-get update \
    && sed '/^#/d' /usr/local/share/codex-server/debian-packages.txt \
       | xargs apt-get install -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /target/release/codex-server /usr/local/bin/
# No settings file and no secret: both come with CODEX_* variables or with a
# volume at /data. Give it one (`-v codex-data:/data`), or tokens die with the
# container; it is not declared here, as Railway refuses images that do.
ENV CODEX_HOME=/data
EXPOSE 8000
# It reaps what is left to it and drains on SIGTERM, so it may be process 1.
STOPSIGNAL SIGTERM
# Asks nobody but the server itself; 503 when its sandbox broke down.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["codex-server", "health"]
ENTRYPOINT ["codex-server"]
CMD ["serve", "--host", "0.0.0.0"]

# An ordinary user: namespaces with the three flags, nothing without them.
FROM base AS ordinary
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin codex \
    && install -d -o codex -g codex -m 700 /data
USER 10001:10001

# Root, and the default because it is the last: without flags each run gets a
# user id of its own, with the three flags namespaces as well. Others may pass
# through /data but not list it, as runs have to reach packages below it.
FROM base AS root
RUN install -d -m 711 /data
