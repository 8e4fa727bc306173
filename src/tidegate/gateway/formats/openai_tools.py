"""Tools that an operator has killed are not offered to the model; pure.

The rest of the request is served. Only a request that must use a killed tool is refused. What
stands in the conversation already (calls of the tool, and their results) is left as it is.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.base import RequestError


def drop_tools(fields: dict[str, bytes], killed: frozenset[str]) -> None:
    """Take the tools named in ``killed`` out of the request. Raises RequestError 503 when it
    insists on one of them."""
    for offered, choice in (("tools", "tool_choice"), ("functions", "function_call")):
        tools = _list(fields.get(offered), offered)
        kept = [tool for tool in tools if _name(tool) not in killed]
        gone = [_name(tool) for tool in tools if _name(tool) in killed]
        _check_choice(fields, choice, killed, gone, none_left=not kept)
        if not gone:
            continue
        if kept:
            fields[offered] = msgspec.json.encode(kept)
            continue
        for name in (offered, choice):
            fields.pop(name, None)
        if offered == "tools":
            fields.pop("parallel_tool_calls", None)


def _check_choice(
    fields: dict[str, bytes], name: str, killed: frozenset[str], gone: list[str], none_left: bool
) -> None:
    raw = fields.get(name)
    if raw is None:
        return
    choice = _read(raw, name)
    if choice == "required" and none_left and gone:
        raise _refusal(gone, name)
    if not isinstance(choice, dict):
        return
    if choice.get("type") == "allowed_tools":
        _check_allowed(fields, name, choice, killed)
    elif (forced := _name(choice)) in killed:
        raise _refusal([forced], name)


def _check_allowed(
    fields: dict[str, bytes], name: str, choice: dict[str, Any], killed: frozenset[str]
) -> None:
    allowed = choice.get("allowed_tools")
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
        return
    kept = [tool for tool in allowed["tools"] if _name(tool) not in killed]
    if len(kept) == len(allowed["tools"]):
        return
    if kept:
        allowed["tools"] = kept
        fields[name] = msgspec.json.encode(choice)
    elif allowed.get("mode") == "required":
        raise _refusal([_name(tool) for tool in allowed["tools"]], name)
    else:  # it may use none of the others either
        fields[name] = b'"none"'


def _list(raw: bytes | None, name: str) -> list[Any]:
    value = None if raw is None else _read(raw, name)
    return value if isinstance(value, list) else []


def _read(raw: bytes, name: str) -> Any:
    """The value of a field. Numbers that are none (``1e999``) and nesting without end were passed
    over when the body was read."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(
            400,
            "request_invalid",
            f"{name} cannot be read: {error}",
            cure="send the types that the OpenAI API reference documents",
            param=name,
        ) from None


def _name(tool: Any) -> str:
    """Of a tool as it is offered or chosen; empty for what is none."""
    if not isinstance(tool, dict):
        return ""
    for value in (tool.get("function"), tool.get("custom"), tool):
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return str(value["name"])
    return ""


def _refusal(names: list[str], param: str) -> RequestError:
    return RequestError(
        503,
        "tool_killed",
        f"the request must use {', '.join(names)[:200]}, switched off by an operator",
        cure="leave the choice of the tool to the model, or wait until an operator lifts the kill",
        param=param,
    )
