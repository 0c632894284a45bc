"""What STEM self-attention remembers during a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ....stem_kernels.em import Bases
from ....stem_kernels.token_parts import Tokens
from ..seams.layer_map import AttentionLayer
from .fitting import FitKey, Fitting
from .scopes import Scope, SharedKeys


@dataclass
class StemRun:
    """State of a run.

    Attributes:
        timestep: ComfyUI's map from noise level to timestep.
        pending: bases on their way from `context` to `attend` of one layer, with the rows here that share them.
        previous: of a warm start, the bases of the step before, by layer, cond and chunk.
    """

    timestep: Callable[[Tensor], Tensor]
    pending: list[tuple[slice, SharedKeys]] = field(default_factory=list)
    previous: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    def fit(
        self,
        fitting: Fitting,
        scope: Scope,
        layer: AttentionLayer,
        extra_options: dict,
        features: Tokens,
        values: Sequence[Tokens] = (),
    ) -> Bases:
        """Bases of a scope in this call of a layer; see `Fitting.fit`."""
        key = FitKey(int(self.timestep(extra_options["sigmas"][:1])), layer.index, scope.chunk)
        if fitting.settings.warm_start == 0:
            return fitting.fit(features, key, values)
        place = (layer.index, extra_options["cond_or_uncond"][scope.group], scope.chunk)
        bases = fitting.fit(features, key, values, self.previous.get(place))
        self.previous[place] = bases.centres
        return bases
