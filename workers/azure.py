"""The front for Azure Functions, Python programming model v2: `workers.azure.app`.

Works when imported, like `lambda_handler`: loading the models is the function's start. Needs
`azure-functions`. ROUTE_PREFIX is the route prefix of the function app's host.json.
"""

import os
from urllib.parse import urlsplit

import azure.functions as func  # only in the function's package

from workers.function_environment import FunctionEnvironment

_environment = FunctionEnvironment(os.environ)
_prefix = os.environ.get("ROUTE_PREFIX", "/api")

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.function_name("infer")  # type: ignore[untyped-decorator]
@app.route(route="{*path}", methods=[func.HttpMethod.GET, func.HttpMethod.POST])  # type: ignore[untyped-decorator]
def infer(req: func.HttpRequest) -> func.HttpResponse:
    """Answer one request."""
    # From the URL, not the route's parameter, in which an encoded slash is no longer one.
    path = urlsplit(req.url).path.removeprefix(_prefix)
    reply = _environment.answer(req.method, path, dict(req.headers), req.get_body)
    return func.HttpResponse(reply.body, status_code=reply.status, headers=dict(reply.headers))
