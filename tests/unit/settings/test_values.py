from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from router.settings.redis_address import RedisAddress
from router.settings.server import Origin
from router.settings.values import (
    BASE_DIR,
    Address,
    FilePath,
    OpenAIPath,
    PayloadRange,
    TextList,
    Url,
)


def read(annotation: Any, value: object) -> Any:
    context = {BASE_DIR: Path("/base")}
    return TypeAdapter(annotation).validate_python(value, context=context)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">1MiB", [1024**2 + 1, 10**12], [0, 1024**2]),
        (">=1MiB", [1024**2], [1024**2 - 1]),
        ("<1MiB", [0, 1024**2 - 1], [1024**2]),
        ("<=1MiB", [1024**2], [1024**2 + 1]),
        (["64KiB", "1MiB"], [65536, 1024**2], [65535, 1024**2 + 1]),
        ([0, 10], [0, 10], [11]),
    ],
)
def test_a_payload_condition_contains_its_sizes(
    text: object, inside: list[int], outside: list[int]
) -> None:
    found = PayloadRange.read(text)
    assert all(size in found for size in inside)
    assert not any(size in found for size in outside)
    assert PayloadRange.read(found.show()) == found


@pytest.mark.parametrize(
    "value",
    [
        "1MiB",
        "=1MiB",
        ">",
        "> x",
        "<0",
        ["2MiB", "1MiB"],
        ["1MiB"],
        [1, 2, 3],
        [-1, 5],
        7,
        None,
        {},
    ],
)
def test_a_payload_condition_without_a_size_left_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="a comparison such as"):
        read(PayloadRange, value)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:9090", "::1", 9090),
        ("localhost:0", "localhost", 0),
    ],
)
def test_an_address_has_host_and_port(text: str, host: str, port: int) -> None:
    address = read(Address, text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "value", [":80", "h", "h:", "h:65536", "h:-1", "::1:80", "a b:1", 8080, None, "h:80\n"]
)
def test_a_broken_address_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="host:port"):
        read(Address, value)


@pytest.mark.parametrize(
    "value",
    [
        "http://user:pw@host", "http://user@host", "ftp://host", "host:80", "http://", "http://[::1",
        "http://h:0", "http://h:99999", "http://h/?q=1", "http://h/#f", "http://h /", "", 7, None,
        "http://h/\x00", "http://" + "h" * 5000,
    ],
)  # fmt: skip
def test_a_replica_url_is_plain_http_without_credentials(value: object) -> None:
    with pytest.raises(ValidationError, match="a URL starting with http:// or https://"):
        read(Annotated[str, Url(("http", "https"))], value)


@pytest.mark.parametrize(
    "value", ["redis://u:p@h:6379/0", "unix:///run/redis.sock", "redis+cluster://a,b", ""]
)
def test_a_redis_url_may_have_credentials_or_be_empty(value: str) -> None:
    assert read(Annotated[str, RedisAddress()], value) == value


@pytest.mark.parametrize("value", ["http://h", "redis://h ", "redis://" + "h" * 5000, 7, None])
def test_what_is_no_redis_url_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="a URL starting with redis://"):
        read(Annotated[str, RedisAddress()], value)


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        (FilePath(), "../models", Path("/base/../models")),
        (FilePath(), "/srv/models", Path("/srv/models")),
        (FilePath(empty=True), "", None),
        (FilePath(words=("stderr", "off")), "off", "off"),
        (FilePath(words=("stderr", "off")), "access.log", Path("/base/access.log")),
    ],
)
def test_a_path_starts_at_the_configuration_file(
    kind: FilePath, value: str, path: Path | str | None
) -> None:
    assert read(Annotated[Path | str | None, kind], value) == path


@pytest.mark.parametrize("value", ["", "a\x00b", "x" * 5000, 7, None, ["a"]])
def test_what_is_no_path_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="a path relative to this file"):
        read(Annotated[Path, FilePath()], value)


@pytest.mark.parametrize(
    ("value", "texts"),
    [("a*", ("a*",)), (["a", "b"], ("a", "b")), (2, ("2",)), ([1, "2"], ("1", "2"))],
)
def test_one_text_or_a_list_is_a_tuple(value: object, texts: tuple[str, ...]) -> None:
    assert read(Annotated[tuple[str, ...], TextList()], value) == texts


@pytest.mark.parametrize("value", [1.1, True, [], [[]], {}, "", None, ["x"] * 101, "a\nb"])
def test_what_would_change_or_match_nothing_is_no_text_list(value: object) -> None:
    with pytest.raises(ValidationError, match=r"a text or a list of 1\.\.100 texts"):
        read(Annotated[tuple[str, ...], TextList()], value)


@pytest.mark.parametrize("path", ["/score", "/v1/score", "/v2/rerank", "/a/b/c/d/e", "/v1/a.b_c-d"])
def test_a_path_of_a_models_server_may_be_added(path: str) -> None:
    assert read(OpenAIPath, path) == path


@pytest.mark.parametrize(
    "path",
    [
        "score", "/", "/v1/", "/score?x", "/a//b", "/a/../b", "/a/.", "/%2e", "/a b", "/v1/models",
        "/v1/models/x", "/v2", "/v2/models/m/infer", "/v2/health", "/v2/repository/index",
        "/v2/systemsharedmemory", "/a/b/c/d/e/f", "", 7,
    ],
)  # fmt: skip
def test_a_path_that_others_have_or_nobody_can_is_refused(path: object) -> None:
    with pytest.raises(ValidationError, match=r"a path of 1\.\.5 parts|in quotes"):
        read(OpenAIPath, path)


@pytest.mark.parametrize(
    "origin", ["*", "https://a.example", "http://localhost:3000", "http://[::1]:80", "app://x"]
)
def test_an_origin_is_as_browsers_send_it(origin: str) -> None:
    assert read(Origin, origin) == origin


@pytest.mark.parametrize(
    "origin", ["null", "a.example", "https://A.example", "https://a/", "https://*.a", "", 7]
)
def test_another_origin_is_refused(origin: object) -> None:
    with pytest.raises(ValidationError, match="scheme://host"):
        read(Origin, origin)
