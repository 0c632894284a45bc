"""The client against a small server that speaks the host's protocol."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from aiohttp import web
from comfyui_stem.batch.comfyui import client as client_module
from comfyui_stem.batch.comfyui.client import HostClient, HostError, HostLost

PROMPT = {"1": {"class_type": "Loader", "inputs": {}}, "2": {"class_type": "SaveImage", "inputs": {}}}
SUCCESS = [
    ("executing", {"node": "1", "prompt_id": "p"}),
    ("executing", {"node": "9", "prompt_id": "somebody else's"}),
    ("progress", {"node": "1", "value": 1, "max": 2, "prompt_id": "p"}),
    ("executing", {"node": "2", "prompt_id": "p"}),
    ("execution_success", {"prompt_id": "p"}),
]


class FakeHost:
    """Plays `script` to the websocket once a workflow is queued; then closes it, or stays silent where `silent`."""

    def __init__(self, script, silent=False, node_errors=None):
        self.script, self.silent, self.node_errors = script, silent, node_errors or {}
        self.uploads, self.interrupts, self.deleted, self.history_asked = {}, 0, [], 0
        self.queued, self.messages = asyncio.Event(), []

    async def socket(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "status", "data": {}})
        await socket.send_bytes(b"a preview")
        await self.queued.wait()
        for kind, data in self.script:
            await socket.send_json({"type": kind, "data": data})
        while self.silent:
            await asyncio.sleep(0.05)
        return socket

    async def prompt(self, request):
        if (await request.json())["prompt"] is None:
            return web.json_response({"error": {"message": "no prompt"}, "node_errors": {}}, status=400)
        self.queued.set()
        return web.json_response({"prompt_id": "p", "node_errors": self.node_errors})

    async def history(self, request):
        self.history_asked += 1
        late = self.history_asked < 3
        record = {"outputs": {"2": {"images": [{"filename": "a.png"}]}}, "status": {"messages": self.messages}}
        return web.json_response({} if late or (self.silent and not self.messages) else {"p": record})

    async def upload(self, request):
        form = await request.post()
        self.uploads[form["image"].filename] = form["image"].file.read()
        return web.json_response({"name": form["image"].filename, "subfolder": "", "type": "input"})

    async def view(self, request):
        return web.Response(body=repr(sorted(request.query.items())).encode())

    async def interrupt(self, request):
        self.interrupts += 1
        return web.Response()

    async def delete(self, request):
        self.deleted += (await request.json())["delete"]
        return web.Response()

    def application(self):
        application = web.Application(client_max_size=8 << 20)
        application.add_routes(
            [
                web.get("/ws", self.socket),
                web.post("/prompt", self.prompt),
                web.get("/history/p", self.history),
                web.post("/upload/image", self.upload),
                web.get("/view", self.view),
                web.post("/interrupt", self.interrupt),
                web.post("/queue", self.delete),
            ]
        )
        return application


@pytest.fixture
def serve():
    """Serves a FakeHost from a thread of its own; gives a client of it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runners = []

    async def start(host):
        runner = web.AppRunner(host.application(), shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner.addresses[0][1]

    def client(host):
        return HostClient(f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(start(host), loop).result(10)}")

    yield client
    for runner in runners:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_run_gives_events_outputs_and_times_and_ignores_other_runs(serve):
    events = []
    result = serve(FakeHost(SUCCESS)).run(PROMPT, events.append, timeout=20)
    assert [(event.kind, event.node) for event in events] == [
        ("started", "1"),
        ("progress", "1"),
        ("finished", "1"),
        ("started", "2"),
        ("finished", "2"),
    ]
    assert result.outputs == {"2": {"images": [{"filename": "a.png"}]}}
    assert set(result.seconds_by_node) == {"1", "2"}
    assert (result.status, result.error) == ("success", None)


FAILURE = [
    ("executing", {"node": "1", "prompt_id": "p"}),
    ("execution_error", {"node_id": "1", "exception_type": "E", "exception_message": "why", "prompt_id": "p"}),
]


def test_a_failed_run_raises_the_nodes_own_words(serve):
    with pytest.raises(HostError, match="Loader .node 1. failed: E: why"):
        serve(FakeHost(FAILURE)).run(PROMPT, timeout=20)


def test_a_failed_run_can_be_looked_at_instead(serve):
    result = serve(FakeHost(FAILURE)).run(PROMPT, timeout=20, check=False)
    assert result.status == "error" and "why" in result.error


def test_a_refused_workflow_raises(serve):
    with pytest.raises(HostError, match="refused the workflow: no prompt"):
        serve(FakeHost([])).queue(None)


def test_a_workflow_that_the_host_would_run_in_part_is_taken_back(serve):
    problem = {"message": "Required input is missing", "details": "model"}
    host = FakeHost([], node_errors={"2": {"errors": [problem]}})
    with pytest.raises(HostError, match="SaveImage .node 2.: Required input is missing: model"):
        serve(host).queue(PROMPT)
    assert (host.deleted, host.interrupts) == (["p"], 1)


def test_a_host_that_goes_away_is_noticed(serve):
    with pytest.raises(HostLost, match="closed the connection"):
        serve(FakeHost(SUCCESS[:2])).run(PROMPT, timeout=20)


def test_a_host_that_takes_connections_and_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(client_module, "REQUEST_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = HostClient(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(HostLost, match="has not answered for 0.3 s"):
            client.run(PROMPT, timeout=20)


@pytest.mark.parametrize(
    ("end", "status"),
    [(("execution_success", {}), "success"), (("execution_error", {"exception_message": "why"}), "error")],
)
def test_the_end_of_a_run_is_seen_where_the_websocket_has_gone_silent(serve, monkeypatch, end, status):
    monkeypatch.setattr(client_module, "QUIET_SECONDS", 0.05)
    host = FakeHost(SUCCESS[:1], silent=True)
    host.messages = [("execution_start", {}), end]
    result = serve(host).run(PROMPT, timeout=20, check=False)
    assert (result.status, bool(result.error)) == (status, status == "error")
    assert result.outputs
    host.silent = False


def test_a_node_without_progress_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(client_module, "QUIET_SECONDS", 0.05)
    host = FakeHost(SUCCESS[:1], silent=True)
    with pytest.raises(HostLost, match="no progress for 0.3 s"):
        serve(host).run(PROMPT, timeout=20, stall=0.3)
    host.silent = False


def test_a_run_that_takes_too_long_is_interrupted(serve):
    host = FakeHost(SUCCESS[:1], silent=True)
    with pytest.raises(TimeoutError, match="did not end in 0.3 s"):
        serve(host).run(PROMPT, timeout=0.3)
    assert host.interrupts == 1
    host.silent = False


def test_a_callback_may_interrupt(serve):
    host = FakeHost([*SUCCESS[:1], ("execution_interrupted", {"node_id": "1", "prompt_id": "p"})])
    client = serve(host)
    result = client.run(PROMPT, lambda event: client.interrupt(), timeout=20, check=False)
    assert result.status == "interrupted"
    assert host.interrupts == 2  # once as the node started, once as it finished


def test_a_file_is_uploaded_whole_under_its_name(serve, tmp_path):
    host = FakeHost([])
    file = tmp_path / "a person's clip.mp4"
    file.write_bytes(bytes(range(256)) * 8000)
    assert serve(host).upload(file) == file.name
    assert host.uploads == {file.name: file.read_bytes()}


def test_a_file_is_asked_for_by_name_folder_and_kind(serve):
    file = {"filename": "a&b.png", "subfolder": "demo", "type": "output", "extra": "x"}
    seen = serve(FakeHost([])).view(file).decode()
    assert seen == repr([("filename", "a&b.png"), ("subfolder", "demo"), ("type", "output")])
