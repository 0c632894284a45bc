"""Drives a ComfyUI over HTTP: uploads, queues a workflow, follows it over the websocket, fetches what it made."""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from .events import Event, Follower, describe_rejection

REQUEST_SECONDS = 60
HISTORY_SECONDS = 30
CHUNK_BYTES = 1 << 20
# Without a message for this long, ComfyUI is asked whether the workflow has ended: its websocket may go silent.
QUIET_SECONDS = 20
# It computes nothing and leaves no file.
EMPTY_WORKFLOW = {
    "value": {"class_type": "PrimitiveInt", "inputs": {"value": 0}},
    "shown": {"class_type": "PreviewAny", "inputs": {"source": ["value", 0]}},
}


class HostError(RuntimeError):
    """The host is not there, refused a workflow or failed in it; the message is for a person."""


class HostLost(HostError):
    """The host has gone away or answers no more, which says nothing about the workflow that it ran."""


class OutOfTime(TimeoutError):
    """A workflow did not end in the time that it was given."""


@dataclass(frozen=True)
class Result:
    """What became of a workflow.

    outputs: what the output nodes reported, by node id and kind: {"7": {"images": [file, ...]}}; see HostClient.view.
    seconds_by_node: how long each node that was executed took, by node id.
    seconds_per_step: of nodes that tell their progress, by node id; without the first step, and loading before it.
    status: "success", "error" or "interrupted".
    error: None, or which node failed and why.
    """

    outputs: dict[str, dict[str, list]]
    seconds_by_node: dict[str, float]
    status: str
    error: str | None
    seconds_per_step: dict[str, float] = field(default_factory=dict)


class HostClient:
    """A client of the host at `url`, such as http://127.0.0.1:8188."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # A proxy that is set for the internet must not get requests for this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def request(self, path: str, data: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
        """GET, or POST when there is data (bytes, or an iterable of them); the answer's body."""
        request = urllib.request.Request(self.url + path, data, dict(headers or {}))
        with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
            return answer.read()

    def get_json(self, path: str) -> Any:
        """The JSON that a GET of this path answers."""
        return json.loads(self.request(path))

    def post_json(self, path: str, value: Any) -> Any:
        """Posts JSON; returns the JSON answered, or None for an empty answer."""
        answer = self.request(path, json.dumps(value).encode(), {"Content-Type": "application/json"})
        return json.loads(answer) if answer else None

    def object_info(self) -> dict[str, dict]:
        """The host's nodes by name."""
        return self.get_json("/object_info")

    def system_stats(self) -> dict:
        """The host's version and devices."""
        return self.get_json("/system_stats")

    def interrupt(self) -> None:
        """Asks the host to stop the workflow that it runs."""
        self.post_json("/interrupt", {})

    def forget_results(self) -> None:
        """Empties ComfyUI's cache of results and unloads its models, before any workflow that is queued after this.

        ComfyUI only notes the wish and heeds it between two workflows, possibly after the one that comes next; so an
        empty one comes next.
        """
        self.post_json("/free", {"free_memory": True})
        self.history(self.queue(EMPTY_WORKFLOW), timeout=None)

    def upload(self, file: Path) -> str:
        """Puts a file (a picture or a video) into the host's input folder; returns the name that it has there."""
        boundary = uuid.uuid4().hex
        name = file.name.replace('"', "_")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + file.stat().st_size + len(tail)),
        }
        try:
            answer = json.loads(self.request("/upload/image", pieces(head, file, tail), headers))
        except urllib.error.HTTPError as error:
            raise HostError(f"The host refused {file.name}: {error.code} {error.reason}.") from None
        return "/".join(part for part in (answer.get("subfolder"), answer["name"]) if part)

    def view(self, file: Mapping[str, str]) -> bytes:
        """The content of a file that an output node reported (filename, subfolder, type)."""
        keys = ("filename", "subfolder", "type")
        return self.request("/view?" + urllib.parse.urlencode({key: file.get(key, "") for key in keys}))

    def queue(self, prompt: Mapping[str, dict], client_id: str = "") -> str:
        """Queues a workflow in API form; returns its id. HostError says which node the host refuses, and why.

        The host would run the rest of a workflow when it refuses only some of the output nodes; here it is all or none.
        """
        try:
            answer = self.post_json("/prompt", {"prompt": prompt, "client_id": client_id})
        except urllib.error.HTTPError as error:
            raise HostError(describe_rejection(prompt, error.read())) from None
        if answer.get("node_errors"):
            self.post_json("/queue", {"delete": [answer["prompt_id"]]})
            self.post_json("/interrupt", {"prompt_id": answer["prompt_id"]})
            raise HostError(describe_rejection(prompt, json.dumps(answer).encode()))
        return answer["prompt_id"]

    def history(self, prompt_id: str, timeout: float | None = HISTORY_SECONDS) -> dict:
        """The host's record of a workflow that has ended; it may come a moment after the end is announced."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not (record := self.get_json(f"/history/{prompt_id}").get(prompt_id)):
            if time.monotonic() > deadline:
                raise HostError(f"The host has no record of the workflow {prompt_id}.")
            time.sleep(0.05)
        return record

    def run(
        self,
        prompt: Mapping[str, dict],
        on_event: Callable[[Event], None] | None = None,
        timeout: float | None = None,
        check: bool = True,
        stall: float = math.inf,
    ) -> Result:
        """Queues a workflow in API form and follows it to its end.

        on_event is called as nodes start, advance and finish; it may call `interrupt`. After `timeout` seconds the
        workflow is interrupted and OutOfTime raised. With `check` a workflow that does not succeed raises HostError.

        Raises:
            HostLost: the host has gone, or no node has started, advanced or finished for `stall` seconds.
        """
        result = asyncio.run(self._run(prompt, on_event or (lambda event: None), timeout, stall))
        if check and result.status != "success":
            raise HostError(result.error or f"The workflow ended as: {result.status}.")
        return result

    async def _run(
        self, prompt: Mapping, on_event: Callable[[Event], None], timeout: float | None, stall: float
    ) -> Result:
        follower = Follower(prompt)
        client_id = uuid.uuid4().hex
        endless = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=endless) as session:
            address = f"{self.url}/ws?clientId={client_id}"
            # previews of large pictures exceed any fixed limit of a message's size
            connecting = session.ws_connect(address, max_msg_size=0)
            try:
                socket = await asyncio.wait_for(connecting, REQUEST_SECONDS)
            except asyncio.TimeoutError:  # noqa: UP041 - Python 3.10 knows them as two classes
                raise HostLost(f"The host has not answered for {REQUEST_SECONDS} s.") from None
            async with socket:
                try:
                    prompt_id = self.queue(prompt, client_id)
                except OSError as error:
                    raise HostLost(f"The host answers no more: {error}") from None
                try:
                    await asyncio.wait_for(self._follow(socket, prompt_id, follower, on_event, stall), timeout)
                except asyncio.TimeoutError:  # noqa: UP041 - Python 3.10 knows them as two classes
                    self.interrupt()
                    raise OutOfTime(f"The workflow did not end in {timeout:g} s.") from None
        outputs = self.history(prompt_id)["outputs"]
        return Result(outputs, dict(follower.seconds), follower.status, follower.error, dict(follower.seconds_per_step))

    async def _follow(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        prompt_id: str,
        follower: Follower,
        on_event: Callable[[Event], None],
        stall: float,
    ) -> None:
        """Reads the websocket until the workflow has ended."""
        last = time.monotonic()
        while follower.status is None:
            try:
                message = await asyncio.wait_for(socket.receive(), min(QUIET_SECONDS, stall))
            except asyncio.TimeoutError:  # noqa: UP041 - Python 3.10 knows them as two classes
                try:
                    record = self.get_json(f"/history/{prompt_id}").get(prompt_id) or {}
                except OSError as error:
                    raise HostLost(f"The host answers no more: {error}") from None
                messages = record.get("status", {}).get("messages", [])
            else:
                if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                    raise HostLost("The host closed the connection before the workflow had ended; see its log.")
                content = json.loads(message.data) if message.type == aiohttp.WSMsgType.TEXT else {}
                messages = [(content.get("type", ""), content.get("data") or {})]
            for kind, data in messages:
                if data.get("prompt_id", prompt_id) != prompt_id:
                    continue
                for event in follower.handle(kind, data, time.monotonic()):
                    last = time.monotonic()
                    on_event(event)
            if follower.status is None and time.monotonic() - last > stall:
                raise HostLost(f"The host has made no progress for {stall:g} s.")


def pieces(head: bytes, file: Path, tail: bytes) -> Iterator[bytes]:
    """A file between two byte strings, a piece at a time."""
    yield head
    with file.open("rb") as content:
        while piece := content.read(CHUNK_BYTES):
            yield piece
    yield tail
