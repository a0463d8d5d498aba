"""What Azure Functions looks for: `app` in function_app.py."""

from workers.azure import app

__all__ = ["app"]
