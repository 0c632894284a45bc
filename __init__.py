"""STEM Inversion for ComfyUI: edit a real video by text, without training."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension, io

from .nodes.bases_preview import BasesPreview
from .nodes.compare_videos import CompareVideos
from .nodes.edit_video import EditVideo
from .nodes.fatezero_edit import FateZeroEdit
from .nodes.feature_pca import FeaturePCA
from .nodes.folders import show_example
from .nodes.frame_context import FrameContext
from .nodes.inversion_sampler import InversionSampler
from .nodes.load_inversion import LoadInversion
from .nodes.methods.seams.comfyui_versions import register_replacements
from .nodes.reconstruct import Reconstruct
from .nodes.save_inversion import SaveInversion
from .nodes.stem_bases import StemBases
from .nodes.tokenflow_edit import TokenFlowEdit
from .nodes.video_flow import VideoFlow
from .nodes.video_load import VideoLoad
from .nodes.video_metrics import VideoMetrics
from .nodes.word_attention import WordAttention

# Old names of nodes, for workflows that still use them: arguments of `register_replacements`. None has been renamed.
RENAMED_NODES: tuple[dict[str, Any], ...] = ()
# Help pages; the host serves them to its page.
WEB_DIRECTORY = "./web"


class StemInversionExtension(ComfyExtension):
    """The pack, as the host sees it."""

    async def on_load(self) -> None:
        await register_replacements(RENAMED_NODES)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            EditVideo,
            VideoLoad,
            StemBases,
            FrameContext,
            InversionSampler,
            SaveInversion,
            LoadInversion,
            Reconstruct,
            TokenFlowEdit,
            FateZeroEdit,
            VideoFlow,
            VideoMetrics,
            CompareVideos,
            BasesPreview,
            FeaturePCA,
            WordAttention,
        ]


async def comfy_entrypoint() -> StemInversionExtension:
    """The host's way into the pack."""
    show_example()
    return StemInversionExtension()
