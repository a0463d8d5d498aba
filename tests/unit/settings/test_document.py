import pytest
import yaml

from router.settings.document import MAX_NODES, ScalarNode, parse, plain
from tests.unit.settings.loading import MODEL, load_config, problems_of

ENVIRONMENT = {"NAME": "value", "EMPTY": "", "NUMBER": "7", "LONG": "x" * 5000}


def value_of(text: str) -> object:
    document = parse(text, ENVIRONMENT, "f")
    assert document.problems == ()
    return plain(document.root)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("no", "no"), ("true", True), ("False", False), ("null", None), ("~", None),
        ("7", 7), ("-7", -7), ("1.5", 1.5), ("1e3", 1000.0), ("010", 10), ("1:30", "1:30"),
        ("0x10", "0x10"), ("1_000", "1_000"), (".inf", ".inf"), ("2026-11-01", "2026-11-01"),
        ("'7'", "7"), ('"7"', "7"), ("!!str 7", "7"), ("9" * 40, "9" * 40),
        ("${NAME}", "value"), ("a-${NAME}-${NUMBER}", "a-value-7"), ("${NUMBER}", 7),
        ("'${NUMBER}'", "7"), ("${NONE:-8}", 8), ("${NONE:-}", ""), ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""), ("$${NAME}", "${NAME}"), ("$$", "$"), ("$LATEST", "$LATEST"),
        ("a$", "a$"), ("${NAME:-x}", "value"), ("[a, {b: c}]", ["a", {"b": "c"}]),
        ("{1: x}", {"1": "x"}), ("[&x {a: 1}, *x]", [{"a": 1}, {"a": 1}]),
    ],
)  # fmt: skip
def test_values_follow_yaml_1_2_and_the_environment(text: str, value: object) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "f: is empty"),
        ("# only a comment\n", "f: is empty"),
        (b"a: \xff", "f:1: is not UTF-8 text (byte 3)"),
        (b"a: 1\nb: \xe9\n", "f:2: is not UTF-8 text (byte 8)"),
        ("a: 1\nb: \x00", "f:2: contains the character \\x00"),
        ("a: \ud800", "f:1: is not UTF-8 text (byte 3)"),
        ("a: 1\n\tb: 2", "f:2: a tab cannot indent YAML; use spaces"),
        ("a: [1", "f:1: is not valid YAML: "),
        (
            "server: {listen: ${X}}",
            "f:1: is not valid YAML: did not find expected ',' or '}'; inside",
        ),
        ("a: 1\nb: *gone", "f:2: *gone names no anchor before it"),
        ("a: &x [*x]", "f:1: *x names no anchor before it"),
        ("a: 1\n---\nb: 1", "f:2: must be one document (no ---)"),
        ("[" * 500, "f:1: is nested more than 32 levels deep"),
        ("<<: {a: 1}", "f:1: merge keys (<<) are not supported: write the keys out"),
        ("? [a]\n: 1", "f:1: a key must be plain text"),
        ("x" * (1024 * 1024 + 1), "f: is larger than 1048576 bytes"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_configuration_file_says_why_and_where(content: str | bytes, told: str) -> None:
    (problem,) = problems_of(content)
    assert problem.replace("router.yaml", "f").startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2", "f:2: a is given twice (first on line 1)"),
        ("x: [{b: 1, b: 2}]", "f:1: x[0].b is given twice (first on line 1)"),
        ("a: ${NONE}", "f:1: a needs the environment variable NONE, which is not set"),
        ("a: ${NONE", "f:1: a has an unfinished ${...}"),
        ("a: ${1}", "f:1: a has an unfinished ${...}"),
        ("a: ${LONG}", "f:1: a is longer than 4096 characters"),
        ("a: !!python/object:os.system x", "f:1: a has the tag tag:yaml.org,2002:python/object"),
        ("a: !!binary aGk=", "f:1: a has the tag tag:yaml.org,2002:binary: tags are not supported"),
        ("a: !secret x", "f:1: a has the tag !secret: tags are not supported"),
    ],
)
def test_a_wrong_entry_does_not_hide_the_others(text: str, told: str) -> None:
    document = parse(f"{text}\nlast: ${{ALSO}}", ENVIRONMENT, "f")
    first, last = [str(problem) for problem in document.problems]
    assert first.startswith(told)
    assert "last needs the environment variable ALSO" in last


def test_a_missing_variable_is_the_only_problem_of_its_key() -> None:
    (problem,) = problems_of(f"server: {{processes: '${{NONE}}'}}\n{MODEL}")
    assert problem.endswith(
        "server.processes needs the environment variable NONE, which is not set"
    )


def test_the_parser_without_libyaml_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a: &x [1, '2', {b: '${NAME}'}]\nc: *x\nd:\n  - e:\n", "a: 1\n\tb: 2", "a: 1\na: 2"]
    fast = [parse(text, ENVIRONMENT, "f") for text in texts]
    monkeypatch.setattr("router.settings.document._PARSER", yaml.SafeLoader)
    assert [parse(text, ENVIRONMENT, "f") for text in texts] == fast


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    document = parse("\n".join(levels), {}, "f")
    assert f"has more than {MAX_NODES} values" in str(document.problems[0])


def test_depth_cannot_grow_through_aliases() -> None:
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 2000)]
    document = parse("\n".join(levels), {}, "f")
    assert "is nested more than 32 levels deep" in str(document.problems[0])


def test_lines_are_those_of_the_keys() -> None:
    document = parse("a:\n  - b: 1\n    c:\n      - 2\n", {}, "f")
    assert document.line(("a", 0, "c")) == 3
    assert document.line(("a", 0, "c", 0)) == 4
    assert document.line(("a", 0, "missing")) == 2
    assert document.line(("a", 7)) == 1
    node = document.node(("a", 0, "b"))
    assert isinstance(node, ScalarNode)
    assert (node.text, node.line) == ("1", 2)


def test_a_byte_order_mark_is_no_content() -> None:
    assert load_config(b"\xef\xbb\xbf" + MODEL.encode()).settings.models[0].name == "m"
