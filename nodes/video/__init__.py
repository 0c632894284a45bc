"""Reading clips: which frames, decoding, resizing, sound. Knows nothing of ComfyUI or of any model."""


class VideoError(ValueError):
    """A clip cannot be read as asked. The message says what was found, why it cannot work and what to do."""

    __module__ = "builtins"  # ComfyUI shows it in front of the message, where a path of modules helps nobody


class BrokenStreamError(Exception):
    """The decoder met data it cannot read. The frames before it have been handed over; the message is FFmpeg's."""
