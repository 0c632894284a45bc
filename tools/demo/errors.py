"""The demo's own error."""

from __future__ import annotations


class DemoError(RuntimeError):
    """The demo cannot go on; the message says what was found and what to do."""
