# The agent alone: HAProxy and Redis are containers of their own (see compose.yaml).
#
# Build:  docker build -t kat-spoa .
# Run:    docker run -e KAT_STORE__URL=redis://... -v kat-run:/run/kat kat-spoa

FROM python:3.13-slim-bookworm AS build
# mypyc compiles the hot way of a request: half the CPU for a session hit (bench/README.md). The
# compiler's version is the distribution's to choose, and none of it is in the image.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# First what changes seldom: a change of the code does not install the dependencies again.
COPY requirements.lock requirements-agent.lock ./
RUN python -m venv /opt/kat \
 && /opt/kat/bin/pip install --no-cache-dir --require-hashes -r requirements-agent.lock \
 && pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY spoa spoa
COPY tokens tokens
COPY haproxy haproxy
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=1 python -m build --wheel --no-isolation --outdir dist \
 && /opt/kat/bin/pip install --no-cache-dir --no-deps dist/*.whl

FROM python:3.13-slim-bookworm
# HAProxy reaches the socket in /run/kat through group 10001: add it to HAProxy's container.
RUN groupadd --gid 10001 kat \
 && useradd --uid 10001 --gid kat --no-create-home --shell /usr/sbin/nologin kat \
 && install -d -o kat -g kat -m 0750 /run/kat \
 && install -d -o kat -g kat -m 0700 /var/lib/kat
COPY --from=build /opt/kat /opt/kat
ENV PATH=/opt/kat/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KAT_STATE_DIR=/var/lib/kat \
    KAT_RUN_DIR=/run/kat \
    KAT_LISTEN__METRICS=0.0.0.0:9464
USER 10001:10001
VOLUME ["/run/kat", "/var/lib/kat"]
EXPOSE 9464
# Ready: the workers are up and Redis answers. HAProxy itself asks over SPOP and needs none of this.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:9464/readyz', timeout=2)"]
ENTRYPOINT ["kat"]
CMD ["serve"]
