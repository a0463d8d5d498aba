from pathlib import Path
from typing import Any

import pytest

from workers.function_host.settings import (
    MAX_FUNCTIONS,
    FunctionSpec,
    SettingsError,
    parse_functions,
)


def _document(**settings: Any) -> dict[str, Any]:
    return {"functions": [{"name": "f", "handler": "m.h", **settings}]}


def _errors(document: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_functions(document)
    return caught.value.errors


def test_defaults_are_filled_in() -> None:
    assert parse_functions(_document()) == [
        FunctionSpec(
            name="f",
            handler="m.h",
            environment={},
            memory_mb=1769,
            timeout_s=30.0,
            max_concurrency=10,
            idle_s=300.0,
            init_timeout_s=30.0,
            working_dir=None,
        )
    ]


def test_everything_given_is_taken(tmp_path: Path) -> None:
    (spec,) = parse_functions(
        _document(
            environment={"A": "b"},
            memory_mb=128,
            timeout_s=900,
            max_concurrency=1000,
            idle_s=0,
            init_timeout_s=0.05,
            working_dir=str(tmp_path),
        )
    )
    assert spec == FunctionSpec("f", "m.h", {"A": "b"}, 128, 900.0, 1000, 0.0, 0.05, str(tmp_path))


def test_null_means_default() -> None:
    assert parse_functions(_document(working_dir=None, idle_s=None)) == parse_functions(_document())


def test_an_empty_set_is_a_set() -> None:
    assert parse_functions({"functions": []}) == []


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"name": ""}, "functions[0].name = '', must be 1 to 140"),
        ({"name": "a/b"}, "functions[0].name = 'a/b', must be"),
        ({"name": "a\n"}, "functions[0].name = 'a\\n', must be"),
        ({"name": "x" * 141}, "functions[0].name = 'xxx"),
        ({"handler": "nodot"}, "functions[0].handler = 'nodot', must be module.function"),
        ({"handler": "m.h; rm"}, "functions[0].handler = 'm.h; rm', must be"),
        ({"memory_mb": 127}, "memory_mb = 127, must be a whole number in 128..10240"),
        ({"memory_mb": 10241}, "memory_mb = 10241, must be a whole number in 128..10240"),
        ({"memory_mb": 256.5}, "memory_mb = 256.5, must be a whole number"),
        ({"memory_mb": True}, "memory_mb = True, must be a whole number"),
        ({"memory_mb": "256"}, "memory_mb = '256', must be a whole number"),
        ({"timeout_s": 0}, "timeout_s = 0, must be a number in 0.05..900"),
        ({"timeout_s": 901}, "timeout_s = 901, must be a number in 0.05..900"),
        ({"timeout_s": float("nan")}, "timeout_s = nan, must be a number"),
        ({"timeout_s": float("inf")}, "timeout_s = inf, must be a number"),
        ({"max_concurrency": 0}, "max_concurrency = 0, must be a whole number in 1..1000"),
        ({"idle_s": -1}, "idle_s = -1, must be a number in 0..86400"),
        ({"init_timeout_s": 10**400}, "init_timeout_s = 1000"),
        ({"environment": []}, "environment = [], must be an object of strings"),
        ({"environment": {"A": 1}}, "environment.A must be a string"),
        ({"environment": {"A": "\0"}}, "environment.A must be a string without NUL"),
        ({"environment": {"A=B": ""}}, "environment has the key 'A=B'"),
        ({"environment": {"A": "x" * 5000}}, "environment has 5001 characters"),
        ({"environment": {"_HANDLER": "x"}}, "environment._HANDLER is reserved"),
        ({"environment": {"PYTHONPATH": "x"}}, "environment.PYTHONPATH is reserved"),
        ({"environment": {"AWS_LAMBDA_RUNTIME_API": "x"}}, "AWS_LAMBDA_RUNTIME_API is reserved"),
        ({"working_dir": "tests"}, "working_dir = 'tests', must be the absolute path"),
        ({"working_dir": "/nonexistent"}, "working_dir = '/nonexistent', must be"),
        ({"working_dir": 7}, "working_dir = 7, must be"),
        ({"working_dir": "/a:b\0"}, "working_dir = '/a:b\\x00', must be"),
        ({"timeout": 3}, "functions[0].timeout is not a known key"),
    ],
)
def test_one_wrong_value_is_one_error(settings: dict[str, Any], error: str) -> None:
    (found,) = _errors(_document(**settings))
    assert error in found


@pytest.mark.parametrize(
    "document", [None, [], "x", {}, {"functions": [], "more": 1}, {"functions": {}}, 3]
)
def test_a_document_of_another_shape_is_refused(document: object) -> None:
    assert len(_errors(document)) == 1


def test_entries_that_are_no_objects_and_repeated_names_are_refused() -> None:
    one = {"name": "f", "handler": "m.h"}
    assert _errors({"functions": [one, 3, one]}) == [
        "functions[1] must be an object",
        "functions: name = 'f' is declared more than once",
    ]


def test_all_errors_come_at_once_but_not_without_end() -> None:
    assert len(_errors(_document(name=1, handler=2, idle_s="x", foo=1))) == 4
    assert len(_errors({"functions": [{"bad": 1}] * 100})) == 50


def test_the_number_of_functions_is_bounded() -> None:
    entries = [{"name": f"f{i}", "handler": "m.h"} for i in range(MAX_FUNCTIONS + 1)]
    assert len(parse_functions({"functions": entries[:-1]})) == MAX_FUNCTIONS
    assert "at most 256" in _errors({"functions": entries})[0]
