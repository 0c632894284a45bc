"""A host process, played by small scripts in the place of main.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from comfyui_stem.batch.comfyui import keeper
from comfyui_stem.batch.comfyui.client import HostError
from comfyui_stem.batch.comfyui.process import HostProcess, failed_imports, free_port, link, peak_resident_bytes

SERVER = """
import http.server, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
print(LOG, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def process(tmp_path, script, **options):
    host = tmp_path / "host"
    host.mkdir()
    (host / "main.py").write_text(script)
    pack = tmp_path / "checkout"
    pack.mkdir()
    (pack / "marker").touch()
    return HostProcess(tmp_path / "base", host, Path(sys.executable), {"The-Pack": pack}, **options)


def is_running(pid):
    return Path(f"/proc/{pid}").exists() if Path("/proc").exists() else None


def test_a_host_serves_its_base_folder_and_is_gone_afterwards(tmp_path):
    model = tmp_path / "tiny.safetensors"
    model.touch()
    models = {"checkpoints": [model], "clip_vision": [model]}
    host = process(tmp_path, SERVER.replace("LOG", "'ready'"), models=models, extra_args=["--cpu"])
    with host:
        pid = host.process.pid
        assert host.client.object_info() == {}
        assert (host.base / "custom_nodes" / "The-Pack" / "marker").exists()
        assert all((host.base / "models" / folder / "tiny.safetensors").exists() for folder in models)
        assert {"--listen", "127.0.0.1", "--cpu"} <= set(host.command)
    assert host.process.poll() is not None
    assert not is_running(pid)
    assert host.peak_memory_mb() > 1
    host.stop()


def test_when_whoever_started_a_host_is_killed_the_host_its_children_and_its_files_go_too(tmp_path):
    child = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    )
    host = process(tmp_path, f"{child}\nsys.stdout.flush()\n{SERVER.replace('LOG', repr('ready'))}")
    script = f"""
import sys
sys.path.insert(0, {str(Path(keeper.__file__).parents[2])!r})
from batch.comfyui.process import HostProcess
host = HostProcess({str(host.base)!r}, {str(tmp_path / "host")!r}, sys.executable, {{}}, temporary=True).start()
print(host.process.pid, host.log_text().split()[0], flush=True)
sys.stdin.read()
"""
    starter = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in starter.stdout.readline().split()]
    assert len(pids) == 2 and all(map(psutil.pid_exists, pids))
    starter.kill()
    starter.communicate()
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
    assert not any(map(psutil.pid_exists, pids))
    deadline = time.monotonic() + 10
    while host.base.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_host_with_its_own_packs_and_models_gets_folders_for_files_alone(tmp_path):
    (tmp_path / "host").mkdir()
    host = HostProcess(tmp_path / "base", tmp_path / "host", Path(sys.executable), None)
    assert "--base-directory" not in host.command
    assert host.command[host.command.index("--output-directory") + 1] == str(tmp_path / "base" / "output")


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to ignore")
def test_a_host_that_was_started_in_the_background_of_a_shell_is_stopped_at_once(tmp_path):
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        host = process(tmp_path, SERVER.replace("LOG", "'ready'"))
        with host:
            pass
        assert host.process.returncode == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_host_that_ends_shows_its_log(tmp_path):
    with pytest.raises(HostError, match="(?s)ended with status 7.*no such option"):
        process(tmp_path, "print('no such option'); raise SystemExit(7)").start()


def test_a_host_that_never_serves_is_stopped(tmp_path):
    host = process(tmp_path, "import time; print('thinking', flush=True); time.sleep(600)")
    with pytest.raises(HostError, match="(?s)not get ready in time.*thinking"):
        host.start(timeout=5)
    assert host.process.poll() is not None


def test_a_pack_that_does_not_import_is_an_error_and_the_host_is_stopped(tmp_path):
    log = repr("ImportError: no cv2\\n   0.1 seconds (IMPORT FAILED): /base/custom_nodes/The-Pack")
    host = process(tmp_path, SERVER.replace("LOG", log.replace("\\\\", "\\")))
    with pytest.raises(HostError, match="(?s)could not import The-Pack.*no cv2"):
        host.start()
    assert host.process.poll() is not None


def test_another_packs_failed_import_is_not_ours():
    log = "   0.0 seconds (IMPORT FAILED): /b/custom_nodes/Other\n   0.2 seconds: C:\\b\\custom_nodes\\Mine"
    assert failed_imports(log, {"Mine": Path()}) == []
    assert failed_imports(log.replace(": C", " (IMPORT FAILED): C"), {"Mine": Path()}) == ["Mine"]


def test_the_hosts_module_path_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    host = process(tmp_path, "", environment={"OMP_NUM_THREADS": "2"})
    assert not {"PYTHONPATH", "PYTHONSAFEPATH"} & set(host.environment)
    assert host.environment["OMP_NUM_THREADS"] == "2"
    assert host.environment["HF_HUB_OFFLINE"] == "1"


def test_a_link_replaces_an_earlier_link_but_no_real_file(tmp_path):
    old, new, target = tmp_path / "old", tmp_path / "new", tmp_path / "target"
    old.write_text("old")
    new.write_text("new")
    link(old, target)
    link(new, target)
    assert target.read_text() == "new"
    link(tmp_path / "old", new)
    assert new.read_text() == "new"


def test_ports_and_memory_are_read_from_the_system():
    assert 1024 <= free_port() < 65536
    assert peak_resident_bytes(os.getpid()) > 10_000_000
