"""What the Functions Framework looks for: `infer` in main.py."""

from workers.functions_framework import infer

__all__ = ["infer"]
