from tests.fakes.valkey import valkey_server
from tests.integration.gateway.conftest import made_up_credentials

__all__ = ["made_up_credentials", "valkey_server"]
