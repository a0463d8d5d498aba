import pytest
from pydantic_core import PydanticCustomError

from router.settings.template import Path, Template

FIELDS: dict[Path, object] = {("id",): "1", ("data",): {"a": [1]}, ("data", "n"): 2.5,
                              ("data", "yes"): True, ("data", "none"): None}  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"a": "text", "b": [1, None, True]}, {"a": "text", "b": [1, None, True]}),
        (["{{ data }}", "{{id}}"], [{"a": [1]}, "1"]),
        ({"a": "{{ id }}/{{ data.n }} {{ data.yes }} {{ data.none }}"}, {"a": "1/2.5 true null"}),
        ({"{{ id }}": "{ id } }}"}, {"{{ id }}": "{ id } }}"}),
    ],
)
def test_references_are_filled_in(tree: object, expected: object):
    assert Template.read(tree).filled(FIELDS.__getitem__) == expected


@pytest.mark.parametrize("text", ["{{ data.missing }}", "x {{ data }}"])
def test_what_cannot_be_filled_in_is_an_error(text: str):
    with pytest.raises(LookupError):
        Template.read([text]).filled(FIELDS.__getitem__)


def deep(levels: int) -> object:
    return [deep(levels - 1)] if levels else "x"


@pytest.mark.parametrize(
    "tree",
    [
        "{{ data }}",
        1,
        None,
        ["{{ data"],
        ["{{ data.a() }}"],
        ["{{ data['a'] }}"],
        ["{{ a | b }}"],
        ["{% if data %}{{"],
        ["{{ data." + "a." * 20 + "a }}"],
        ["x" * 5000],
        ["{{ id }}"] * 101,
        [0] * 1001,
        deep(17),
    ],
)
def test_what_is_no_template_is_refused(tree: object):
    with pytest.raises(PydanticCustomError):
        Template.read(tree)


def test_nothing_in_an_event_is_taken_for_a_reference():
    template = Template.read({"a": "{{ id }}", "b": "<{{ id }}>"})
    assert template.filled(lambda _: "{{ data }}") == {"a": "{{ data }}", "b": "<{{ data }}>"}
