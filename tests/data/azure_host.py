"""The front of Azure Functions for one function app: keys, the route prefix, the app's function.

Run by the Python of an environment with `azure-functions`: azure_host.py PORT KEY, in the folder
of the app.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import azure.functions as func

sys.path.insert(0, str(Path.cwd()))
from function_app import app

(_function,) = app.get_functions()
_trigger = _function.get_trigger()
assert _trigger.route == "{*path}", _trigger.route
assert _trigger.auth_level is func.AuthLevel.FUNCTION, _trigger.auth_level
_methods = {str(method.value) for method in _trigger.methods}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.path.startswith("/api/") or self.command not in _methods:
            self.send(404)
        elif self.headers.get("x-functions-key") != sys.argv[2]:
            self.send(401)
        else:
            request = func.HttpRequest(
                method=self.command,
                url=f"http://{self.headers['host']}{self.path}",
                headers=dict(self.headers),
                route_params={"path": self.path.removeprefix("/api/")},
                body=body,
            )
            response = _function.get_user_function()(request)
            self.send(response.status_code, response.get_body(), dict(response.headers))

    do_GET = do_POST = answer  # noqa: N815  the library's names

    def send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
