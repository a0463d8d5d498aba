import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from router.settings.webhook_secrets import WebhookSecrets, WebhookSecretsError

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 64).decode()
BODY = '{"type": "job.done", "é": 1}'.encode()


def headers(content: str, now: float) -> dict[str, str]:
    return dict(WebhookSecrets.read(content.encode()).headers("msg_1", now, BODY))


def test_the_official_package_verifies_what_is_signed():
    now = datetime.now(UTC).timestamp()
    signed = headers(NEW, now)
    assert Webhook(NEW).verify(BODY, signed)["type"] == "job.done"
    assert signed["webhook-signature"] == Webhook(NEW).sign(
        "msg_1", datetime.fromtimestamp(now, UTC), BODY.decode()
    )
    for broken in (BODY + b" ", b"{}"):
        with pytest.raises(WebhookVerificationError):
            Webhook(NEW).verify(broken, signed)


def test_while_secrets_are_changed_receivers_may_know_either():
    signed = headers(f"{NEW}\n{OLD}\n", datetime.now(UTC).timestamp())
    assert Webhook(NEW).verify(BODY, signed)
    assert Webhook(OLD).verify(BODY, signed)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"x" * 24).decode()).verify(BODY, signed)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not base64!",
        base64.b64encode(b"n" * 32).decode(),
        "whsec_" + base64.b64encode(b"n" * 23).decode(),
        "whsec_" + base64.b64encode(b"n" * 65).decode(),
        "whsec_!!!!",
        f"{NEW}\nwhsec_",
        "\n".join([NEW] * 11),
    ],
)
def test_what_is_no_secret_is_refused_and_not_quoted(content: str):
    with pytest.raises(WebhookSecretsError) as refused:
        WebhookSecrets.read(content.encode())
    assert not content or content not in str(refused.value)


def test_secrets_are_not_shown():
    assert "nnnn" not in repr(WebhookSecrets.read(NEW.encode()))
