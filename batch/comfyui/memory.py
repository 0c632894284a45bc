"""How much memory a running ComfyUI uses."""

from __future__ import annotations

from .process import HostProcess


class Memory:
    """The largest memory use that was seen; `look` while ComfyUI runs. Its process is looked at since its start."""

    def __init__(self, host: HostProcess) -> None:
        self.host = host
        self.reserved_mb = 0.0

    def look(self) -> None:
        """Notes what ComfyUI uses now, on its accelerator too."""
        self.host.peak_memory_mb()
        if "--cpu" not in self.host.command:
            try:
                device = self.host.client.system_stats()["devices"][0]
            except OSError:
                # whoever runs the workflow finds out whether ComfyUI is still there
                return
            self.reserved_mb = max(self.reserved_mb, device.get("torch_vram_total", 0) / 1e6)

    def as_dict(self) -> dict[str, float]:
        """peak_memory_mb: ComfyUI's largest resident memory; device_memory_mb: torch's there, on a GPU."""
        peak = {"peak_memory_mb": round(self.host.peak_memory_mb(), 1)}
        return peak | ({"device_memory_mb": round(self.reserved_mb, 1)} if self.reserved_mb else {})
