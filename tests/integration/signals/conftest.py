from tests.fakes.valkey import valkey_server

__all__ = ["valkey_server"]
