# The server with python3 and node. How to start it: docs/deploy.md#docker;
# without the flags named there it refuses, as it can isolate nothing.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package codex-server

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates nodejs python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/codex-server /usr/local/bin/
ENV CODEX_HOME=/data
EXPOSE 8000
ENTRYPOINT ["codex-server"]
CMD ["serve", "--host", "0.0.0.0"]
