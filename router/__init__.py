"""An inference gateway: each request runs on a serverless function or on a warm pool."""

__version__ = "0.2.0"
