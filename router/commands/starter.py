"""The text of a starter configuration: one model, for a kind of pool and a kind of function.

Pure. Only what one has to think about is written out; `config/REFERENCE.md` has every key.
"""

from dataclasses import dataclass
from enum import StrEnum


class PoolKind(StrEnum):
    """Where warm replicas run; as in `models[].pool.kind`."""

    NONE = "none"
    PROCESS = "process"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"
    STATIC = "static"


class FunctionKind(StrEnum):
    """What serverless function there is; as in `models[].serverless.kind`."""

    NONE = "none"
    LOCAL = "local"
    AWS_LAMBDA = "aws_lambda"
    GOOGLE = "google_function"
    AZURE = "azure_function"
    HTTP = "http_function"


@dataclass(frozen=True, slots=True)
class Starter:
    """What the configuration is for. `repository` is where the bundled workers find models."""

    model: str
    pool: PoolKind
    function: FunctionKind
    repository: str = "models"

    @property
    def has_bundled_workers(self) -> bool:
        """Whether the gateway itself starts what runs the model."""
        return self.pool is PoolKind.PROCESS or self.function is FunctionKind.LOCAL

    def text(self) -> str:
        """The file."""
        parts = [_HEAD, _SERVER]
        if self.has_bundled_workers:
            parts.append(_WORKERS.format(repository=quoted(self.repository)))
        parts.append(_MODEL.format(model=quoted(self.model)))
        parts.append(_FUNCTIONS[self.function])
        parts.append(_POOLS[self.pool])
        parts.append(_RULES)
        return "\n".join(part for part in parts if part)


def quoted(text: str) -> str:
    """A text as YAML takes it, whatever is in it; the loader's variables are none."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'


_HEAD = """\
# Configuration of the gateway. A change is taken up within seconds, without a restart; one with a
# mistake changes nothing. Durations carry a unit (250ms, 2s, 5m), sizes too (64MiB). ${NAME} is an
# environment variable, $$ a dollar sign. Paths are relative to this file.
#
#   hybrid-router check FILE             all mistakes at once, each with its line
#   hybrid-router serve --config FILE    run it
"""
_SERVER = """\
server:
  listen: 127.0.0.1:8080          # for clients; 0.0.0.0:8080 to be reached from other machines
  admin_listen: 127.0.0.1:9090    # status, metrics, the page: keep it private
  # processes: 1                  # several share the port (needs Redis, or the extra "processes")
"""
_WORKERS = """\
workers:
  repository: {repository}        # the models that this machine runs: NAME/VERSION/model.onnx
"""
_MODEL = """\
models:
  - name: {model}                 # in the path of requests, such as /v2/models/NAME/infer
    slo:
      latency_ms: 250             # a request should be answered within this time ...
      percentile: 99              # ... for this share of requests
      # cold_start: allow         # avoid: keep a replica warm at all times
    # idempotent: true            # false: never send a request twice that may have been received
"""
_FUNCTIONS = {
    FunctionKind.NONE: "",
    FunctionKind.LOCAL: """\
    serverless:
      kind: local                 # a scale-to-zero function host on this machine
      memory_mb: 1769             # one vCPU at AWS; the price follows the memory
      max_concurrency: 8
      service_time_ms: 50         # expected, until it has been measured
""",
    FunctionKind.AWS_LAMBDA: """\
    serverless:
      kind: aws_lambda
      function: my-function       # its name or ARN
      region: eu-central-1        # also selects the price
      memory_mb: 3008             # as it is configured there; the price follows it
      max_concurrency: 20
      timeout: 30s
      auth: iam                   # credentials as AWS's own tools find them
""",
    FunctionKind.GOOGLE: """\
    serverless:
      kind: google_function
      url: https://my-function-abc123-ew.a.run.app
      credentials_file: ""        # a service account's key; empty: the metadata server
      memory_mb: 2048
      max_concurrency: 20
      timeout: 60s
""",
    FunctionKind.AZURE: """\
    serverless:
      kind: azure_function
      url: https://my-functions.azurewebsites.net
      # key_file: function-key    # a file with the function's key; or identity, see the reference
      route_prefix: /api
      max_concurrency: 20
""",
    FunctionKind.HTTP: """\
    serverless:
      kind: http_function         # Knative, OpenFaaS, or any other URL
      url: http://function.example
      # headers: {authorization: "Bearer ${FUNCTION_TOKEN}"}
      max_concurrency: 20
      price:                      # what a call costs you: no list price is known
        usd_per_request: 0
        usd_per_gb_s: 0.000005
""",
}
_POOLS = {
    PoolKind.NONE: "",
    PoolKind.PROCESS: """\
    pool:
      kind: process               # worker processes on this machine, started as they pay
      max_replicas: 2
      concurrency: 4              # requests that one replica works on at once
      service_time_ms: 50         # expected, until it has been measured
""",
    PoolKind.DOCKER: """\
    pool:
      kind: docker                # containers of this machine's engine, started as they pay
      image: my-worker:1.0        # anything that serves the protocol that clients speak
      port: 8000                  # where the container serves
      max_replicas: 2
      concurrency: 4
      # memory: 1GiB              # limit of a replica
""",
    PoolKind.KUBERNETES: """\
    pool:
      kind: kubernetes            # pods of a Deployment, whose size the gateway sets
      namespace: default
      service: my-worker          # its endpoints are the replicas
      deployment: my-worker
      max_replicas: 5
      concurrency: 4
""",
    PoolKind.STATIC: """\
    pool:
      kind: static                # servers that somebody else runs
      urls: [http://127.0.0.1:8000]
      concurrency: 4              # requests that one of them works on at once
""",
}
_RULES = """\
# The first rule whose conditions all hold decides.
rules:
  # - name: bulk
  #   match: {header: {x-priority: bulk}}
  #   route: pool
  - name: default
    match: {}
    route: auto                   # the cheapest place that meets the deadline
"""
