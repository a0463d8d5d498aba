"""YAML text to a tree that remembers lines and the text as written, with `${NAME}` filled in.

Built from PyYAML's events, so depth and size are bounded before anything is expanded, and an alias
costs nothing until it is counted. Scalars follow YAML 1.2 (`off` and `2026-11-01` are texts).
Knows no setting: what a key means is the schema's.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from router.settings.problems import MAX_PROBLEMS, KeyPath, Problem, printable, show_key, show_value
from router.settings.sources import MAX_FILE_BYTES

MAX_DEPTH = 32
MAX_NODES = 200_000
"""Most nodes after aliases are expanded: a thousand models with every key written out."""
MAX_EXPANDED_CHARS = 4096

# The C parser is about ten times faster; PyYAML built without libyaml has only the other one.
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NON_PRINTABLE = re.compile(
    "[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]{0,199})(:-([^{}]*))?\}|(\{))")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,18}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_STRING_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One value; `text` is what was written, with variables not yet filled in."""

    line: int
    text: str
    value: str | int | float | bool | None
    size: int = 1
    depth: int = 1


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list."""

    line: int
    items: tuple["Node", ...]
    size: int
    depth: int


@dataclass(frozen=True, slots=True)
class MappingNode:
    """Keys, each with its own line, and values."""

    line: int
    entries: dict[str, "Node"]
    key_lines: dict[str, int]
    size: int
    depth: int


Node = ScalarNode | SequenceNode | MappingNode


@dataclass(frozen=True, slots=True)
class Document:
    """A file's tree (None when there is none to speak of) and what was wrong with the file."""

    file: str
    root: Node | None
    problems: tuple[Problem, ...]

    @property
    def models(self) -> tuple[Node, ...]:
        """The nodes of the models; none where the file has no list of them."""
        models = self.node(("models",))
        return tuple(models.items) if isinstance(models, SequenceNode) else ()

    def node(self, path: KeyPath) -> Node | None:
        """The node at `path`, None if it is not there."""
        node = self.root
        for part in path:
            node = _child(node, part)
        return node

    def line(self, path: KeyPath) -> int:
        """The line of the key or item at `path`, or of the nearest thing around it that exists."""
        node, line = self.root, 1 if self.root is None else self.root.line
        for part in path:
            child = _child(node, part)
            if node is None or child is None:
                break
            line = node.key_lines[str(part)] if isinstance(node, MappingNode) else child.line
            node = child
        return line

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A problem at `path`, showing the value there if it is a scalar."""
        node = self.node(path)
        value = show_value(path, node.text) if isinstance(node, ScalarNode) else None
        return Problem(self.file, self.line(path), show_key(path), value, message)


def _child(node: Node | None, part: str | int) -> Node | None:
    if isinstance(node, MappingNode):
        return node.entries.get(str(part))
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.items):
        return node.items[part]
    return None


def plain(node: Node | None) -> Any:  # noqa: ANN401 - YAML data
    """The tree as dicts, lists and scalars."""
    if isinstance(node, MappingNode):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return None if node is None else node.value


def parse(content: bytes | str, environment: Mapping[str, str], file: str) -> Document:
    """Reads a file's content. Never raises: whatever is wrong is in the document's problems."""
    try:
        text = _decode(content)
        builder = _Builder(file, environment)
        root = builder.document(_events(text))
    except _Unreadable as error:
        return Document(file, None, (Problem(file, error.line, "", None, error.message),))
    return Document(file, root, tuple(builder.problems))


class _Unreadable(Exception):  # noqa: N818 - control flow inside this module
    def __init__(self, line: int | None, message: str) -> None:
        self.line = line
        self.message = message
        super().__init__(message)


def _decode(content: bytes | str) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise _Unreadable(None, f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1 if isinstance(content, bytes) else None
        raise _Unreadable(line, f"is not UTF-8 text (byte {error.start})") from None
    text = text.removeprefix("\ufeff")
    if found := _NON_PRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise _Unreadable(line, f"contains the character {printable(found[0])}")
    return text


def _events(text: str) -> Iterator[yaml.Event]:
    lines = text.splitlines()
    try:
        yield from yaml.parse(text, Loader=_PARSER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # The end of the file is reported as the line after the last.
        line = min(mark.line, len(lines) - 1) if mark else 0
        source = lines[line] if lines else ""
        if "\t" in source[: len(source) - len(source.lstrip())]:
            raise _Unreadable(line + 1, "a tab cannot indent YAML; use spaces") from None
        hint = '; inside { } and [ ], write "${NAME}" in quotes' if "${" in source else ""
        message = f"is not valid YAML: {error.problem or error.context}{hint}"
        raise _Unreadable(line + 1, message) from None
    except yaml.YAMLError:
        raise _Unreadable(None, "is not valid YAML") from None


@dataclass(slots=True)
class _Builder:
    """Builds one document; problems with single values are collected, others end it."""

    file: str
    environment: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)
    nodes: int = 0

    def document(self, events: Iterator[yaml.Event]) -> Node | None:
        """The root node of the only document; None for an empty file."""
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _Unreadable(_line(event), "must be one document (no ---)")
                root = self._node(next(events), events, ())
        return root

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            node = self._anchored(event, line)
            self._bound(node.size, len(path) + node.depth, line)
            return node
        self._bound(1, len(path) + 1, line)
        self._refuse_tag(event, path, line)
        if isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(line, events, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(line, events, path)
        else:
            node = self._scalar(event, path, line)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.anchors[anchor] = node
        return node

    def _anchored(self, event: yaml.AliasEvent, line: int) -> Node:
        anchor = event.anchor or ""
        node = self.anchors.get(anchor)
        if node is None:
            raise _Unreadable(line, f"*{printable(anchor)} names no anchor before it")
        return node

    def _bound(self, nodes: int, depth: int, line: int) -> None:
        if depth > MAX_DEPTH:
            raise _Unreadable(line, f"is nested more than {MAX_DEPTH} levels deep")
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _Unreadable(line, f"has more than {MAX_NODES} values (aliases expanded)")

    def _refuse_tag(self, event: yaml.Event, path: KeyPath, line: int) -> None:
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", _STRING_TAG):
            self._add(path, line, f"has the tag {printable(str(tag))}: tags are not supported")

    def _add(self, path: KeyPath, line: int, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(self.file, line, show_key(path), None, message))

    def _sequence(self, line: int, events: Iterator[yaml.Event], path: KeyPath) -> SequenceNode:
        items: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._node(event, events, (*path, len(items))))
        return SequenceNode(line, tuple(items), *_extent(items))

    def _mapping(self, line: int, events: Iterator[yaml.Event], path: KeyPath) -> MappingNode:
        entries: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key, key_line = self._key(event), _line(event)
            node = self._node(next(events), events, (*path, key))
            if key in entries:
                message = f"is given twice (first on line {key_lines[key]})"
                self._add((*path, key), key_line, message)
                continue
            entries[key], key_lines[key] = node, key_line
        return MappingNode(line, entries, key_lines, *_extent(entries.values()))

    @staticmethod
    def _key(event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise _Unreadable(_line(event), "a key must be plain text")
        if event.value == "<<":
            message = "merge keys (<<) are not supported: write the keys out"
            raise _Unreadable(_line(event), message)
        return str(event.value)

    def _scalar(self, event: yaml.Event, path: KeyPath, line: int) -> ScalarNode:
        written = str(getattr(event, "value", ""))
        text = self._fill_in(written, path, line)
        is_plain = bool(getattr(event, "implicit", (False,))[0])
        # A variable that is empty is an empty text, not YAML's null.
        is_null = is_plain and text == "" and written != ""
        return ScalarNode(line, written, _typed(text) if is_plain and not is_null else text)

    def _fill_in(self, text: str, path: KeyPath, line: int) -> str:
        if "$" not in text:
            return text
        filled = _VARIABLE.sub(lambda match: self._variable(match, path, line), text)
        if len(filled) > MAX_EXPANDED_CHARS:
            self._add(path, line, f"is longer than {MAX_EXPANDED_CHARS} characters")
            return ""
        return filled

    def _variable(self, match: re.Match[str], path: KeyPath, line: int) -> str:
        dollar, name, has_default, default, unfinished = match.groups()
        if dollar:
            return "$"
        if unfinished:
            self._add(path, line, "has an unfinished ${...}: write ${NAME}, ${NAME:-default} or $$")
            return ""
        value = self.environment.get(name, "")
        if value or (has_default and default is not None):
            return value or str(default)
        if name not in self.environment:
            self._add(path, line, f"needs the environment variable {name}, which is not set")
        return ""


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _extent(children: Collection[Node]) -> tuple[int, int]:
    size = 1 + sum(child.size for child in children)
    return size, 1 + max((child.depth for child in children), default=0)


def _typed(text: str) -> str | int | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
