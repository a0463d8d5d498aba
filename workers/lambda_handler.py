"""The AWS Lambda front: `workers.lambda_handler.handler`.

Unlike every other module this one works when imported: with MODEL_NAME set the model is loaded
then, so that loading is the function's init time; otherwise every model of MODEL_REPOSITORY is
served, each loaded on first use. A failing load fails the init, with its reason in the log.
"""

import os
from collections.abc import Mapping
from typing import Any

from workers.direct import load_catalog
from workers.http_events import serve

_catalog = load_catalog(os.environ)


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Answer one HTTP event; AWS's context is not needed."""
    del context
    return serve(_catalog, event)
