# syntax=docker/dockerfile:1
# The images for those who have Docker; `make images` makes the same two without it.
#
#   docker build --target operator -t ghcr.io/arborist-dev/arborist:0.1.0 .
#   docker build --target worker -t ghcr.io/arborist-dev/arborist-worker:0.1.0 .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# static programs, so that the images below need nothing else; the explicit target keeps the flag from build scripts
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    target=$(rustc -vV | awk '/^host:/ { print $2 }') \
    && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$target" \
        -p arborist-operator -p arborist-worker --bin arborist --bin arborist-worker \
    && mkdir -p /image/etc/ssl/certs /image/tmp \
    && chmod 1777 /image/tmp \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && cp "target/$target/release/arborist-worker" /image/ \
    && cp "target/$target/release/arborist" /

FROM scratch AS worker
COPY --from=build /image /
USER 65532:65532
ENTRYPOINT ["/arborist-worker"]

# The operator has the worker's program too: it checks the root proofs of a plug-in with it.
FROM scratch AS operator
COPY --from=build /image /
COPY --from=build /arborist /arborist
USER 65532:65532
ENTRYPOINT ["/arborist"]
