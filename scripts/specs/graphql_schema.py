"""A GraphQL schema cut down to what documents and their variables use, and the check against it."""

from collections.abc import Iterator
from typing import Any

import graphql as gql

from qlaud_actors.connectors.model import Action, Connector
from specs.sent import requests

Used = dict[str, set[str]]
"""Fields by type."""


def problems(schema: gql.GraphQLSchema, connector: Connector, action: Action) -> list[str]:
    """What the schema says against a document and the variables that are sent with it."""
    document = gql.parse(action.document or "")
    found = [error.message for error in gql.validate(schema, document)]
    if found:
        return found
    for definition in document.definitions:
        assert isinstance(definition, gql.OperationDefinitionNode)
        for variables in _variables(connector, action):
            given = gql.execution.values.get_variable_values(
                schema, definition.variable_definitions or (), variables
            )
            found += [error.message for error in given] if isinstance(given, list) else []
    return list(dict.fromkeys(found))


def cut_down(schema: gql.GraphQLSchema, documents: list[tuple[Connector, Action]], extra: list[str]) -> str:
    """The schema's text with only the types, fields and enums that the documents use."""
    used: Used = {}
    for connector, action in documents:
        _note_document(schema, used, action.document or "")
        for variables in _variables(connector, action):
            for definition in gql.parse(action.document or "").definitions:
                _note_variables(schema, used, definition, variables)
    for document in extra:
        _note_document(schema, used, document)
    return "\n\n".join(_printed(schema, used))


def _variables(connector: Connector, action: Action) -> Iterator[dict[str, Any]]:
    for built in requests(connector, action):
        yield built.body["variables"]


def _note_document(schema: gql.GraphQLSchema, used: Used, text: str) -> None:
    info = gql.TypeInfo(schema)

    class Notes(gql.Visitor):
        def enter_field(self, node: gql.FieldNode, *_: Any) -> None:
            parent, definition = info.get_parent_type(), info.get_field_def()
            if parent and definition and not node.name.value.startswith("__"):
                used.setdefault(parent.name, set()).add(node.name.value)
                for argument in node.arguments or ():
                    used[parent.name].add(f"{node.name.value}.{argument.name.value}")

        def enter_object_field(self, node: gql.ObjectFieldNode, *_: Any) -> None:
            if parent := gql.get_named_type(info.get_parent_input_type()):
                used.setdefault(parent.name, set()).add(node.name.value)

    gql.visit(gql.parse(text), gql.TypeInfoVisitor(info, Notes()))


def _note_variables(schema: gql.GraphQLSchema, used: Used, definition: Any, variables: Any) -> None:
    for variable in definition.variable_definitions or ():
        kind = gql.type_from_ast(schema, variable.type)
        _note_value(used, kind, variables.get(variable.variable.name.value))


def _note_value(used: Used, kind: Any, value: Any) -> None:
    named = gql.get_named_type(kind)
    used.setdefault(named.name, set())
    if isinstance(value, list):
        for item in value:
            _note_value(used, kind, item)
    elif isinstance(named, gql.GraphQLInputObjectType):
        for name in value or ():
            if name in named.fields:
                used[named.name].add(name)
                _note_value(used, named.fields[name].type, value[name])


def _printed(schema: gql.GraphQLSchema, used: Used) -> Iterator[str]:
    """Types in order of name, with every type that a kept field or argument needs."""
    waiting, done = sorted(used), set()
    texts = {}
    while waiting:
        name = waiting.pop()
        kind = schema.type_map[name]
        if name in done or gql.is_specified_scalar_type(kind):
            continue
        done.add(name)
        if isinstance(kind, gql.GraphQLScalarType):
            texts[name] = f"scalar {name}"
        elif isinstance(kind, gql.GraphQLEnumType):
            texts[name] = _block("enum", name, list(kind.values))
        else:
            word = "input" if isinstance(kind, gql.GraphQLInputObjectType) else "type"
            word = "interface" if isinstance(kind, gql.GraphQLInterfaceType) else word
            rows, needed = _rows(kind, used.get(name, set()))
            texts[name] = _block(word, name, rows)
            waiting += needed
    yield from (texts[name] for name in sorted(texts))


def _rows(kind: Any, kept: set[str]) -> tuple[list[str], list[str]]:
    rows, needed = [], []
    for name, part in kind.fields.items():
        required = isinstance(kind, gql.GraphQLInputObjectType) and gql.is_required_input_field(part)
        if name not in kept and not required:
            continue
        arguments = {
            key: argument for key, argument in getattr(part, "args", {}).items()
            if f"{name}.{key}" in kept or gql.is_required_argument(argument)
        }  # fmt: skip
        listed = ", ".join(f"{key}: {argument.type}" for key, argument in arguments.items())
        rows.append(f"{name}({listed}): {part.type}" if listed else f"{name}: {part.type}")
        needed += [gql.get_named_type(used.type).name for used in (part, *arguments.values())]
    return rows or ["_: Boolean"], needed


def _block(word: str, name: str, rows: list[str]) -> str:
    return f"{word} {name} {{\n" + "\n".join(f"  {row}" for row in rows) + "\n}"
