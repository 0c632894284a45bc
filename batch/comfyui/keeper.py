"""Ends a process and its children when whoever started it is gone; a killed parent cannot do that itself.

Run as `python keeper.py PID [FOLDER]` with a pipe as its standard input, which closes when the parent ends, however it
ends. Without this a killed worker would leave a ComfyUI behind that holds its GPU, and FOLDER on its disk.
"""

import shutil
import sys

import psutil


def kill_tree(pid: int) -> None:
    """Kills a process and all that it has started; none that is gone already is an error."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass


if __name__ == "__main__":
    sys.stdin.buffer.read()
    kill_tree(int(sys.argv[1]))
    for folder in sys.argv[2:]:
        shutil.rmtree(folder, ignore_errors=True)
