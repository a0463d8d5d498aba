"""The admin port's token: what a file may hold, what is compared, what `check` says of its file."""

from pathlib import Path

import pytest

from router.settings.admin_token import AdminToken, AdminTokenError
from router.settings.loader import ConfigError, load
from tests.unit.settings.loading import MODEL

TOKEN = "5f" * 16


def configure(folder: Path, content: str | None, mode: int = 0o600) -> Path:
    file = folder / "router.yaml"
    file.write_text(f"server:\n  admin_token_file: admin.token\n{MODEL}")
    if content is not None:
        (folder / "admin.token").write_text(content)
        (folder / "admin.token").chmod(mode)
    return file


@pytest.mark.parametrize("content", [TOKEN, f"{TOKEN}\n", f" \t{TOKEN}\r\n"])
def test_blanks_around_it_do_not_matter(content: str) -> None:
    assert AdminToken.read(content.encode()).matches(TOKEN)


@pytest.mark.parametrize(
    "presented", ["", TOKEN[:-1], f"{TOKEN}0", TOKEN.upper(), "\udcff" * 32, "é" * 32]
)
def test_no_other_one_is_taken(presented: str) -> None:
    assert not AdminToken.read(TOKEN.encode()).matches(presented)


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"x" * 31, b"x" * 4097, f"{TOKEN} {TOKEN}".encode(), b"\xff" * 40],
    ids=["empty", "short", "a character less", "huge", "two words", "no text"],
)
def test_what_is_no_token_is_refused_and_not_quoted(content: bytes) -> None:
    with pytest.raises(AdminTokenError) as error:
        AdminToken.read(content)
    assert "32..4096 visible" in str(error.value)
    assert not content or content.decode("latin-1") not in str(error.value)


def test_it_is_not_shown() -> None:
    token = AdminToken.read(TOKEN.encode())
    assert "digest" not in repr(token)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "admin.token: cannot be read: No such file"), ("x", "admin.token: must hold one")],
    ids=["missing", "too short"],
)
def test_a_file_without_a_token_is_an_error_with_its_line(
    tmp_path: Path, content: str | None, told: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(configure(tmp_path, content), {})
    (problem,) = error.value.problems
    assert (problem.line, problem.key) == (2, "server.admin_token_file")
    assert told in problem.message


def test_a_new_token_is_a_new_configuration(tmp_path: Path) -> None:
    first = load(configure(tmp_path, TOKEN), {})
    second = load(configure(tmp_path, TOKEN + "0"), {})
    assert first.content_hash != second.content_hash
    assert second.admin_token is not None
    assert second.admin_token.matches(TOKEN + "0")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_for_everybody_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    warnings = load(configure(tmp_path, TOKEN, mode), {}).warnings
    assert any("can be read by everybody" in warning.message for warning in warnings) is warned


@pytest.mark.parametrize(
    ("listen", "token", "warned"),
    [
        ("127.0.0.1:9090", False, False),
        ("localhost:9090", False, False),
        ("'[::1]:9090'", False, False),
        ("0.0.0.0:9090", False, True),
        ("'[::]:9090'", False, True),
        ("10.1.2.3:9090", False, True),
        ("0.0.0.0:9090", True, False),
    ],
)
def test_a_port_for_others_without_a_token_is_warned_of(
    tmp_path: Path, listen: str, token: bool, warned: bool
) -> None:
    (tmp_path / "t").write_text(TOKEN)
    (tmp_path / "t").chmod(0o600)
    file = tmp_path / "router.yaml"
    named = "  admin_token_file: t\n" if token else ""
    file.write_text(f"server:\n  admin_listen: {listen}\n{named}{MODEL}")
    found = [w for w in load(file, {}).warnings if w.key == "server.admin_listen"]
    assert bool(found) is warned
    assert all("set server.admin_token_file" in str(warning) for warning in found)
