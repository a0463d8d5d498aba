import pytest

from router.settings.masking import is_secret_name, mask_secrets, mask_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:pw@h:6379/0", "redis://user:***@h:6379/0"),
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("redis://token@h/0", "redis://***@h/0"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=***&db=1"),
        ("http://[::1", "http://[::1"),
        ("http://h/a", "http://h/a"),
        ("plain", "plain"),
    ],
)
def test_urls_are_shown_without_credentials(text: str, shown: str) -> None:
    masked = mask_url(text)
    assert masked == shown or (text == "http://[::1" and masked == "***")
    assert "pw" not in masked


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("API_TOKEN", True), ("password", True), ("DB_PASSWD", True), ("AWS_SECRET_KEY", True),
        ("x-api-key", True), ("apikey", True), ("Authorization", True), ("KEY", True),
        ("sha256", True), ("monkey", False), ("keyboard", False), ("OMP_NUM_THREADS", False),
    ],
)  # fmt: skip
def test_names_tell_what_is_secret(name: str, *, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_user_named_values_and_arguments_are_masked_in_place() -> None:
    settings = {
        "models": [
            {
                "env": {"TOKEN": "t", "PLAIN": "p", "URL": "redis://u:pw@h"},
                "command": ["run", "--secret", "s", "--key=k", "--port", "1"],
            }
        ],
        "header": {"authorization": "Bearer b", "x-team": "a"},
        "api_keys_file": "/etc/keys.yaml",
        "count": 3,
    }
    assert mask_secrets(settings) == {
        "models": [
            {
                "env": {"TOKEN": "***", "PLAIN": "p", "URL": "redis://u:***@h"},
                "command": ["run", "--secret", "***", "--key=***", "--port", "1"],
            }
        ],
        "header": {"authorization": "***", "x-team": "a"},
        "api_keys_file": "/etc/keys.yaml",
        "count": 3,
    }
