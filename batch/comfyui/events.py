"""What the host's messages about a running workflow mean."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A node "started", advanced ("progress": `value` of `maximum`) or "finished" (after `seconds`)."""

    kind: str
    node: str
    title: str
    value: float = 0
    maximum: float = 0
    seconds: float = 0


def title_of(prompt: Mapping[str, dict], node: str) -> str:
    """The title that a node has in the workflow, else its class; nodes that the host adds have only their id."""
    entry = prompt.get(node, {})
    return entry.get("_meta", {}).get("title") or entry.get("class_type") or f"node {node}"


def name_of(prompt: Mapping[str, dict], node: str) -> str:
    """A node for a message: its title, class and id."""
    title, kind = title_of(prompt, node), prompt.get(node, {}).get("class_type")
    return f"{title} (node {node})" if kind in (None, title) else f"{title} ({kind}, node {node})"


class Follower:
    """Turns the host's messages into events and keeps the time of each node.

    status: None while the workflow runs, then "success", "error" or "interrupted".
    seconds: by node id. A node that the host resumes later has the sum of its times.
    seconds_per_step: by node id, of nodes that have told their progress at two times.
    """

    def __init__(self, prompt: Mapping[str, dict]) -> None:
        self.prompt = prompt
        self.seconds: dict[str, float] = {}
        self.seconds_per_step: dict[str, float] = {}
        self.status: str | None = None
        self.error: str | None = None
        self._running: tuple[str, float] | None = None
        self._bars: dict[str, tuple[float, float, float, float]] = {}

    def handle(self, kind: str, data: Mapping, now: float) -> list[Event]:
        """The events that a message of the host stands for; `now` in seconds, of any steady clock."""
        if kind == "executing":
            events = self._finish(now)
            if (node := data.get("node")) is not None:
                self._running = (node, now)
                events.append(Event("started", node, title_of(self.prompt, node)))
            return events
        if kind == "progress" and self._running and data.get("max"):
            node = data.get("node") or self._running[0]
            self._pace(node, data["value"], data["max"], now)
            return [Event("progress", node, title_of(self.prompt, node), data["value"], data["max"])]
        if kind == "execution_success":
            self.status = "success"
            return self._finish(now)
        if kind == "execution_interrupted":
            self.status = "interrupted"
            self.error = f"The workflow was interrupted in {name_of(self.prompt, str(data.get('node_id')))}."
            return self._finish(now)
        if kind == "execution_error":
            self.status = "error"
            self.error = describe_failure(self.prompt, data)
            return self._finish(now)
        return []

    def _pace(self, node: str, value: float, maximum: float, now: float) -> None:
        """Steps are timed from the end of the first, before which models are loaded; not every step is told."""
        first, since, last, of = self._bars.get(node, (value, now, math.inf, maximum))
        if value <= last or of != maximum:
            first, since = value, now
        else:
            self.seconds_per_step[node] = (now - since) / (value - first)
        if value > 0:
            self._bars[node] = (first, since, value, maximum)

    def _finish(self, now: float) -> list[Event]:
        if self._running is None:
            return []
        (node, started), self._running = self._running, None
        self.seconds[node] = self.seconds.get(node, 0.0) + now - started
        return [Event("finished", node, title_of(self.prompt, node), seconds=now - started)]


def describe_failure(prompt: Mapping[str, dict], data: Mapping) -> str:
    """The host's execution_error as a sentence: the node, then the exception's own words."""
    name = name_of(prompt, str(data.get("node_id")))
    return f"{name} failed: {data.get('exception_type')}: {str(data.get('exception_message')).strip()}"


def describe_rejection(prompt: Mapping[str, dict], body: bytes) -> str:
    """The host's refusal to queue a workflow, a line for each thing that it names."""
    try:
        answer = json.loads(body)
    except ValueError:
        return f"The host refused the workflow: {body[:500].decode(errors='replace')}"
    error = answer.get("error") or {}
    if isinstance(error, str):
        error = {"message": error}
    reasons = " ".join(filter(None, (error.get("message"), error.get("details")))) or "some nodes are not right."
    lines = [f"The host refused the workflow: {reasons}"]
    for node, problems in (answer.get("node_errors") or {}).items():
        for problem in problems.get("errors", []):
            lines.append(f"  {name_of(prompt, node)}: {problem.get('message')}: {problem.get('details')}")
    return "\n".join(lines)
