"""nginx with kept-alive upstream connections, else its defaults: large bodies go to disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.systems.system import Running, Site, server
from tests.benchmarks.tools import Tools, first_line

# One process, as every other system here; without a master there is nothing that outlives it.
_CONFIG = """
daemon off;
master_process off;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 16000; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    upstream model {{
        server {upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """The reference: every ratio is to this one."""

    name: str = "nginx"
    is_exact: bool = True

    def takes(self, scenario: Scenario) -> bool:
        """Takes any HTTP."""
        return bool(scenario)

    def version(self, tools: Tools) -> str:
        """As the program says."""
        return first_line([tools.debian("nginx", "nginx-light"), "-v"]).removeprefix(
            "nginx version: "
        )

    @contextmanager
    def run(self, site: Site, tools: Tools) -> Iterator[Running]:
        """One worker process."""
        config = site.folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(folder=site.folder, port=site.port, upstream=site.upstream)
        )
        program = tools.debian("nginx", "nginx-light")
        with server([program, "-p", str(site.folder), "-c", str(config)], site) as running:
            yield running
