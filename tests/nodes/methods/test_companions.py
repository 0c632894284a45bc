"""What other nodes put on the MODEL: it works as in the host, or is refused by name (docs/companions.md)."""

from __future__ import annotations

import copy
import functools

import comfy.model_management
import comfy.model_sampling
import comfy.sd
import comfy.utils
import pytest
import torch
import torch._dynamo
from comfy.ldm.modules.attention import optimized_attention
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_eps import TemporalScoreRescaling
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_lumina2 import RenormCFG
from comfy_extras.nodes_model_merging import ModelMergeSimple
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_perpneg import PerpNeg
from comfy_extras.nodes_sag import SelfAttentionGuidance
from comfy_extras.nodes_tomesd import TomePatchModel
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.edit import edit as edit_by_fatezero
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.layer_map import self_attention_layers
from comfyui_stem.nodes.methods.seams.refusals import check_calls, check_conditioning, check_model
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings
from comfyui_stem.nodes.methods.tokenflow.edit import edit as edit_by_tokenflow
from comfyui_stem.stem_kernels.ddim import alpha_of, move_preserving
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.host.tiny_checkpoint import TINY_TEXT_WIDTH
from comfyui_stem.tools.measured.errors import relative_error as relative

FRAMES, STEPS, GUIDANCE = 2, 2, 3.0
STEM = StemSettings(em=EMSettings(num_bases=8))
WEIGHT = "diffusion_model.output_blocks.9.1.transformer_blocks.0.attn1.to_v.weight"
# Attention over all frames and no injection: what the host computes in one batch, where every frame is a keyframe.
EVERY_FRAME_A_KEYFRAME = TokenFlowSettings(
    cfg=GUIDANCE, batch_size=1, weights="surrounding", attention_injection=0.0, feature_injection=0.0
)


@pytest.fixture(scope="module")
def clip(video):
    return video[:FRAMES]


@pytest.fixture(scope="module")
def inversion(loaded, clip):
    with torch.inference_mode():
        return invert(with_stem(loaded.model), loaded.prompt("a hill"), clip, STEPS, "next")


def with_stem(model, frames_per_batch=None):
    return install(model, StemSelfAttention.from_settings(STEM, frames_per_batch))


class Runs:
    """Every sampler of the pack, as a function of its MODEL; results are LATENT samples."""

    def __init__(self, loaded, clip, inversion):
        self.loaded, self.clip, self.inversion = loaded, clip, inversion
        self.prompts = loaded.prompt("a castle"), loaded.prompt("rain")
        self.known = {}

    def plain(self, name, *arguments):
        """What the MODEL gives without any companion, computed once."""
        if (name, arguments) not in self.known:
            self.known[name, arguments] = getattr(self, name)(self.loaded.model, *arguments)
        return self.known[name, arguments]

    def ddim(self, model):
        return invert(model, self.inversion.source, self.clip, STEPS, "next").trajectory

    def stem(self, model):
        return self.ddim(with_stem(model))

    def stem_in_batches(self, model):
        return self.ddim(with_stem(model, 1))

    def reconstruction(self, model):
        return reconstruct(self.inversion, with_stem(model), self.inversion.source)

    def guided(self, model, method):
        return reconstruct(self.inversion, install(model, method), *self.prompts, GUIDANCE)

    def tokenflow(self, model):
        return edit_by_tokenflow(model, self.inversion, *self.prompts, EVERY_FRAME_A_KEYFRAME)

    def fatezero(self, model, window=0.0, inversion=None):
        """Without windows nothing is taken from the source."""
        clip = self.loaded.clip
        source, target = (read_prompt(clip, text, "a", "Test") for text in ("a hill", "a castle"))
        words = read_words(source, target, WordWishes(window=window), STEPS, "Test").control
        settings = FateZeroSettings(cfg=GUIDANCE, self_window=window)
        return edit_by_fatezero(model, inversion or self.inversion, *self.prompts, words, settings).samples


@pytest.fixture(scope="module")
def runs(loaded, clip, inversion):
    return Runs(loaded, clip, inversion)


def node(kind, *arguments):
    """The first output of a node of the host."""
    return kind.execute(*arguments)[0]


def lora():
    """A LoRA file's tensors, for one weight."""
    generator = torch.Generator().manual_seed(2)
    name = "lora_unet_up_blocks_3_attentions_0_transformer_blocks_0_attn1_to_v"
    return {
        f"{name}.lora_up.weight": torch.randn(32, 4, generator=generator) / 2,
        f"{name}.lora_down.weight": torch.randn(4, 32, generator=generator) / 2,
        f"{name}.alpha": torch.tensor(4.0),
    }


def with_lora(model):
    model, _ = comfy.sd.load_lora_for_models(model, None, lora(), 0.5, 0.5)
    return model


def with_override(model):
    """As the nodes of SageAttention do, with attention that is off by more than rounding."""

    def override(attention, q, *more, **options):
        return attention(0.5 * q, *more, **options)

    clone = model.clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = override
    return clone


@functools.cache
def other_checkpoint(model):
    """A MODEL of the same family with other weights."""
    base = model.model.model_config.get_model({}, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(4)
    for weight in base.diffusion_model.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
    return type(model)(base, load_device=model.load_device, offload_device=model.offload_device)


COMPANIONS = {
    "LoRA": with_lora,
    "FreeU V2": lambda model: FreeU_V2().patch(model, 1.3, 1.4, 0.9, 0.2)[0],
    "attention override": with_override,
}
# Like one of the above; the inversion is enough.
LIKE_OTHERS = {
    "FreeU": lambda model: FreeU().patch(model, 1.1, 1.2, 0.9, 0.2)[0],
    "merging": lambda model: ModelMergeSimple().merge(model, other_checkpoint(model), 0.7)[0],
}


@pytest.fixture
def network(loaded):
    """A copy of the bare network, with the checkpoint's own weights."""
    comfy.model_management.unload_all_models()
    return copy.deepcopy(loaded.model.model.diffusion_model)


@pytest.mark.parametrize("name", [*COMPANIONS, *LIKE_OTHERS])
def test_an_inversion_is_the_recursion_by_hand_with_what_the_companion_does(loaded, runs, network, name):
    model = (COMPANIONS | LIKE_OTHERS)[name](loaded.model)
    ours = runs.ddim(model)
    assert relative(ours, runs.plain("ddim")) > 1e-3
    if name == "LoRA":
        up, down, _ = lora().values()
        network.get_parameter(WEIGHT.removeprefix("diffusion_model.")).add_(0.5 * up @ down)
    if name == "merging":
        theirs = other_checkpoint(loaded.model).model.diffusion_model.state_dict()
        for key, weight in network.state_dict().items():
            weight.mul_(0.7).add_(0.3 * theirs[key])
    z, context = loaded.model.model.process_latent_in(runs.clip), runs.inversion.source[0][0].expand(FRAMES, -1, -1)
    alphas = alpha_of(torch.tensor(runs.inversion.sigmas).double())
    for i, timestep in enumerate(runs.inversion.timesteps):
        options = {**model.model_options["transformer_options"], "cond_or_uncond": [0]}
        noise = network(z, torch.full((FRAMES,), float(timestep)), context=context, transformer_options=options)
        z = move_preserving(z, noise, float(alphas[i]), float(alphas[i + 1]))
        assert relative(ours[i + 1], z) < 1e-4


@pytest.mark.parametrize("name", COMPANIONS)
def test_edits_are_what_the_host_computes_itself_with_the_companion(loaded, runs, name):
    model = COMPANIONS[name](loaded.model)
    by_tokenflow, by_fatezero = runs.tokenflow(model), runs.fatezero(model)
    assert relative(by_tokenflow, runs.guided(model, FrameContextAttention(None))) < 1e-5
    assert relative(by_fatezero, runs.guided(model, FrameContextAttention((0,)))) < 1e-5
    assert relative(by_tokenflow, runs.plain("tokenflow")) > 1e-3
    assert relative(by_fatezero, runs.plain("fatezero")) > 1e-3
    assert relative(runs.fatezero(model, 1.0), runs.plain("fatezero", 1.0)) > 1e-3


@pytest.mark.parametrize("name", COMPANIONS)
def test_stem_inversion_and_reconstruction_have_the_companion_in_batches_too(loaded, runs, name):
    model = COMPANIONS[name](loaded.model)
    whole = runs.stem(model)
    assert relative(runs.stem_in_batches(model), whole) < 1e-5
    assert relative(whole, runs.plain("stem")) > 1e-3
    assert relative(runs.reconstruction(model), runs.plain("reconstruction")) > 1e-3


def image_prompt(model, images, adds_tokens=False):
    """As IP-Adapters do it: keys and values of image tokens in cross-attention, the first images for the first rows."""
    embeddings = torch.randn(images, 4, TINY_TEXT_WIDTH, generator=torch.Generator().manual_seed(1))

    def tokens(rows, extra_options):
        groups = len(extra_options["cond_or_uncond"])
        return comfy.utils.repeat_to_batch_size(embeddings, rows // groups).repeat(groups, 1, 1)

    def replace(q, k, v, extra_options):
        heads, image = extra_options["n_heads"], tokens(len(q), extra_options)
        image = image.repeat(1, 1, -(-q.shape[-1] // TINY_TEXT_WIDTH))[..., : q.shape[-1]]
        return optimized_attention(q, k, v, heads) + optimized_attention(q, image, image, heads)

    def patch(n, context, value, extra_options):
        context = torch.cat([context, tokens(len(n), extra_options)], dim=1)
        return n, context, context

    clone = model.clone()
    if adds_tokens:
        clone.set_model_attn2_patch(patch)
    else:
        for layer in self_attention_layers(model.model.diffusion_model):
            clone.set_model_attn2_replace(replace, layer.block, layer.number)
    return clone


@pytest.mark.parametrize("adds_tokens", [False, True])
def test_an_image_prompt_works_where_all_frames_have_the_same(loaded, runs, adds_tokens):
    model = image_prompt(loaded.model, 1, adds_tokens)
    edited = runs.tokenflow(model)
    assert relative(edited, runs.guided(model, FrameContextAttention(None))) < 1e-5
    assert relative(edited, runs.plain("tokenflow")) > 1e-3
    assert relative(runs.stem_in_batches(model), runs.stem(model)) < 1e-5


@pytest.mark.parametrize("adds_tokens", [False, True])
def test_an_image_prompt_for_each_frame_works_where_all_frames_come_together_only(loaded, runs, adds_tokens):
    each, one = (image_prompt(loaded.model, images, adds_tokens) for images in (FRAMES, 1))
    whole = runs.stem(each)
    assert torch.isfinite(whole).all() and relative(whole, runs.stem(one)) > 1e-4
    with pytest.raises(ValueError, match=r"STEM Bases: another node's patch \(.*image_prompt.*one image for all"):
        runs.stem_in_batches(each)
    with pytest.raises(ValueError, match=r"TokenFlow Edit: another node's patch \(.*image_prompt.*one image for all"):
        runs.tokenflow(each)


@pytest.mark.parametrize(
    ("adds_tokens", "found"), [(False, "cross-attention of block .* is already replaced"), (True, "reads 81 tokens")]
)
def test_fatezero_refuses_an_image_prompt(loaded, runs, adds_tokens, found):
    model = image_prompt(loaded.model, 1, adds_tokens)
    with pytest.raises(ValueError, match=f"FateZero Edit: .*{found}"):
        runs.fatezero(model)
    inversion = invert(model, runs.inversion.source, runs.clip, 1, "next")
    with pytest.raises(ValueError, match=f"FateZero Edit.*{found}.*MODEL that the INVERSION|MODEL that.*{found}"):
        runs.fatezero(loaded.model, 1.0, inversion)


@pytest.mark.parametrize(("kind", "fields"), [(TomePatchModel, [0.5]), (HyperTile, [32, 2, 0, False])])
def test_token_merging_and_tiling_are_refused_by_every_method(loaded, runs, kind, fields):
    model = node(kind, loaded.model, *fields)
    for run in (runs.stem, runs.reconstruction, runs.tokenflow, runs.fatezero):
        with pytest.raises(ValueError, match="changes the tokens that self-attention reads"):
            run(model)
    torch.manual_seed(0)  # they draw from the global generator
    assert relative(runs.ddim(model), runs.plain("ddim")) > 1e-4


GUIDANCE_NODES = {
    "perturbed attention": lambda loaded: node(PerturbedAttentionGuidance, loaded.model, 3.0),
    "self-attention": lambda loaded: node(SelfAttentionGuidance, loaded.model, 0.5, 2.0),
    "perpendicular negative": lambda loaded: node(PerpNeg, loaded.model, loaded.prompt(""), 1.0),
}


@pytest.mark.parametrize("name", GUIDANCE_NODES)
def test_nodes_that_change_guidance_have_nothing_to_do_without_it(loaded, runs, name):
    model = GUIDANCE_NODES[name](loaded)
    assert relative(runs.ddim(model), runs.plain("ddim")) < 1e-5
    if name != "self-attention":  # it also replaces the attention of a layer
        assert torch.equal(runs.stem(model), runs.plain("stem"))
        assert torch.equal(runs.reconstruction(model), runs.plain("reconstruction"))


@pytest.mark.parametrize("name", GUIDANCE_NODES)
def test_guidance_that_runs_the_network_once_more_is_refused_by_edits(loaded, runs, name):
    model = GUIDANCE_NODES[name](loaded)
    for run in (runs.tokenflow, runs.fatezero):
        with pytest.raises(ValueError, match="already replaced by another node's patch|another node runs the model"):
            run(model)


@pytest.mark.parametrize("kind", [(RenormCFG, 100.0, 1.0), (TemporalScoreRescaling, 0.95, 1.0)])
def test_guidance_for_one_picture_at_a_time_is_refused_by_its_name(loaded, runs, kind):
    model = node(kind[0], loaded.model, *kind[1:])
    runs.ddim(model)  # has no guidance
    reconstructed = functools.partial(runs.guided, method=FrameContextAttention((0,)))
    for run in (runs.tokenflow, runs.fatezero, reconstructed):
        with pytest.raises(
            ValueError, match=r"another node's patch \(comfy_extras.nodes_(lumina2|eps)\..* one picture at a time"
        ):
            run(model)


def test_perturbed_attention_is_refused_where_bases_are_read_with_guidance(loaded, runs):
    model = GUIDANCE_NODES["perturbed attention"](loaded)
    with pytest.raises(ValueError, match=r"self-attention of block middle 0 is already replaced by .*nodes_pag"):
        runs.guided(model, StemSelfAttention.from_settings(STEM))


@pytest.mark.parametrize("kind", [EasyCacheNode, LazyCacheNode])
def test_nodes_that_skip_steps_are_refused(loaded, kind):
    model = node(kind, loaded.model, 0.2, 0.15, 0.95, False)
    with pytest.raises(ValueError, match="carries EasyCache or LazyCache, which skip calls"):
        check_model(model, "Test")


def test_a_wrapper_of_the_networks_calls_is_refused_by_edits(loaded):
    def cached(apply_model, call):
        return apply_model(call["input"], call["timestep"], **call["c"])

    model = loaded.model.clone()
    check_calls(model, "Test")
    model.set_model_unet_function_wrapper(cached)
    with pytest.raises(ValueError, match=r"Test: another node's patch \(.*cached\) wraps the calls .*DeepCache"):
        check_calls(model, "Test")


@pytest.mark.parametrize("sampling", ["lcm", "x0", "edm"])
def test_another_formula_of_the_clean_latent_is_refused(loaded, sampling):
    class LCM(comfy.model_sampling.EPS):
        def calculate_denoised(self, sigma, model_output, model_input):
            return model_input

    kinds = {"lcm": LCM, "x0": comfy.model_sampling.X0, "edm": comfy.model_sampling.EDM}
    patched = type("Sampling", (comfy.model_sampling.ModelSamplingDiscrete, kinds[sampling]), {})
    model = loaded.model.clone()
    model.add_object_patch("model_sampling", patched(model.model.model_config))
    with pytest.raises(ValueError, match=r"samples with ModelSamplingDiscrete, \w+, but DDIM inversion is defined"):
        check_model(model, "Test")


def test_a_conditioning_that_holds_an_image_for_each_frame_is_refused(loaded):
    ((embedding, options),) = loaded.prompt("a tree")
    inpainting = [[embedding, {**options, "concat_latent_image": torch.zeros(FRAMES, 4, 8, 8)}]]
    with pytest.raises(ValueError, match="uses an image to inpaint or to follow"):
        check_conditioning(inpainting, "positive", "Test", FRAMES)


@pytest.fixture(scope="module")
def loaded_as(checkpoint):
    """The checkpoint's MODEL with weights of another type."""

    def load(dtype=None):
        options = {"dtype": dtype} if dtype else {}
        return comfy.sd.load_checkpoint_guess_config(checkpoint, False, False, model_options=options)[0]

    return load


EVERY = {"stem_in_batches": (), "tokenflow": (), "fatezero": (1.0,)}


@pytest.mark.parametrize(("weights", "computed", "tolerance"), [("float8_e4m3fn", None, 0.2), (None, "bfloat16", 0.1)])
def test_weights_and_arithmetic_of_other_types_work(runs, loaded_as, weights, computed, tolerance):
    model = loaded_as(weights and getattr(torch, weights))
    if computed:
        model.set_model_compute_dtype(getattr(torch, computed))
    for name, arguments in EVERY.items():
        found = getattr(runs, name)(model, *arguments)
        assert torch.isfinite(found).all() and 1e-5 < relative(found, runs.plain(name, *arguments)) < tolerance


def test_weights_that_are_brought_to_the_device_for_each_call_work_with_a_lora(loaded, runs, loaded_as, monkeypatch):
    expected = {name: getattr(runs, name)(with_lora(loaded.model), *arguments) for name, arguments in EVERY.items()}
    # as --lowvram and --novram do
    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NO_VRAM)
    model = with_lora(loaded_as())
    for name, arguments in EVERY.items():
        assert relative(getattr(runs, name)(model, *arguments), expected[name]) < 1e-5
        assert model.model.model_lowvram and model.model.lowvram_patch_counter == 1


def test_a_compiled_network_gives_the_same(loaded, runs):
    compiled = loaded.model.clone()
    # One block, because tracing takes long, and without code: what matters is how the patches in it are traced.
    set_torch_compile_wrapper(compiled, backend="eager", keys=["diffusion_model.middle_block.1.transformer_blocks.0"])
    torch._dynamo.utils.counters.clear()
    assert relative(runs.stem(compiled), runs.plain("stem")) < 1e-6
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
