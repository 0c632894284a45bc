"""Prompts, sizes and settings at the ends of what is allowed, through the sampler and both editors."""

from __future__ import annotations

from functools import partial

from ... import locations
from ..host_under_test import HostUnderTest, Prompt
from .odd_input import RESULT, OddInput, clip_in

SAMPLER = "STEM Inversion Sampler"
TOKENFLOW = "TokenFlow Edit"
FATEZERO = "FateZero Edit"
SOURCE, TARGET = "a red apple on a table", "a green apple on a table"
FATEZERO_FIELDS = {
    "negative_prompt": "", "preset": "attribute", "cfg": 4.0, "control": "preset", "cross_window": "",
    "self_window": "", "word_windows": "", "word_weights": "", "reweighting": "within_window", "blend_self": "preset",
    "blend_latents": False, "source_blend_words": "", "target_blend_words": "", "threshold": 0.0,
    "latent_window": "0.2-0.8", "accumulate_masks": False, "mask_resizing": "nearest",
    "own_attention": "as the inversion", "frames": "0, mid", "fusion_levels": "1, 2, 3", "fuse_unconditional": False,
    "steps": 0, "tail": "alpha0",
}  # fmt: skip
TOKENFLOW_FIELDS = {
    "cfg": 4.0, "batch_size": 2, "attention_injection": 0.5, "feature_injection": 0.8, "seed": 1,
    "weights": "reference", "keyframes": "random", "source_rows": "true", "edit_attention": "extended", "start": 1.0,
    "start_noise": "trajectory", "steps": 0, "tail": "alpha0",
}  # fmt: skip


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}


def inversion_of(
    host: HostUnderTest,
    inversion: dict | None = None,
    source: str = SOURCE,
    frames: int = 3,
    size: tuple[int, int] = (64, 64),
    bases: int = 8,
    steps: int = 2,
    pictures: dict | None = None,
) -> Prompt:
    """A clip, inverted and reconstructed; `inversion` is another node that gives one, `pictures` one that gives a clip.

    size: width and height.
    """
    clip = node(
        "STEMVideoLoad", file=clip_in(host, "good.mp4"), start_unit="frame", start=0, frame_cap=frames, every_nth=1,
        target_fps=0, width=size[0], height=size[1], fit="crop",
    )  # fmt: skip
    sampler = node(
        "STEMInversionSampler", model=["bases", 0], positive=["source", 0], latent=["latent", 0], steps=steps,
        noise_convention="next",
    )  # fmt: skip
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=locations.from_environment().checkpoint.name),
        "source": node("CLIPTextEncode", text=source, clip=["model", 1]),
        "clip": pictures or clip,
        "latent": node("VAEEncode", pixels=["clip", 0], vae=["model", 2]),
        "bases": node(
            "STEMBases", model=["model", 0], preset="paper", num_bases=bases, temperature=0, iterations=0, seed=0
        ),
        "sampler": inversion or sampler,
        "edit": node("STEMReconstruct", inversion=["sampler", 0], steps=0, tail="alpha0", cfg=1.0),
        "pixels": node("VAEDecode", samples=["edit", 0], vae=["model", 2]),
        RESULT: node("SaveImage", images=["pixels", 0], filename_prefix="edit"),
    }


def edited(editor: str, host: HostUnderTest, target: str = TARGET, source: str = SOURCE, **others: object) -> Prompt:
    """An edit of the inverted clip."""
    changes = others.pop("changes", {})
    prompt = inversion_of(host, source=source, **others)
    common = {"model": ["model", 0], "inversion": ["sampler", 0]}
    if editor == TOKENFLOW:
        prompt["target"] = node("CLIPTextEncode", text=target, clip=["model", 1])
        prompt["negative"] = node("CLIPTextEncode", text="", clip=["model", 1])
        fields = TOKENFLOW_FIELDS | {"positive": ["target", 0], "negative": ["negative", 0]}
        prompt["edit"] = node("STEMTokenFlowEdit", **common, **fields | changes)
    elif editor == FATEZERO:
        fields = FATEZERO_FIELDS | {"source_prompt": source, "target_prompt": target, "clip": ["model", 1]}
        prompt["edit"] = node("STEMFateZeroEdit", **common, **fields | changes)
    return prompt


def good_edit(host: HostUnderTest) -> Prompt:
    return edited(FATEZERO, host)


def words(count: int) -> str:
    """A prompt of as many tokens."""
    return " ".join(["cat"] * count)


def case(name: str, editor: str, shape: tuple[int, int, int] | None = (3, 64, 64), **others: object) -> OddInput:
    says, quick = others.pop("says", ""), others.pop("quick", False)
    through = SAMPLER if editor == SAMPLER else f"{SAMPLER}, {editor}"
    return OddInput(name, through, partial(edited, editor, **others), good_edit, shape, says, quick=quick)


TOO_LONG = "prompt: The prompt fills .* blocks of tokens.*Shorten the prompt to 75 tokens"
PROMPTS = {
    "0 tokens": "",
    "75 tokens": words(75),
    "77 tokens": words(77),
    "78 tokens": words(78),
    "500 tokens": words(500),
    "a weight, (word:1.4)": "a (red:1.4) apple on a ((table))",
    "a weight of 0 and a bracket without its partner": "a (red:0) apple (on a table",
    "Chinese": "一个 红色的 苹果 在桌子上",
    "Arabic": "تفاحة حمراء على الطاولة",
    "emoji": "🍎 on a 🪑, 👩‍👩‍👧",
}
TOO_LONG_FOR_WORDS = ("77 tokens", "78 tokens", "500 tokens")
QUICK_PROMPTS = {
    ("0 tokens", FATEZERO),
    ("75 tokens", FATEZERO),
    ("500 tokens", TOKENFLOW),
    ("a weight, (word:1.4)", FATEZERO),
    ("Arabic", FATEZERO),
    ("emoji", FATEZERO),
}


def prompt_case(name: str, text: str, editor: str) -> OddInput:
    if editor == FATEZERO and name in TOO_LONG_FOR_WORDS:
        return case(f"prompts: {name}", editor, None, source=text, target=text, says=TOO_LONG, quick=True)
    target = " ".join([*text.split()[:-1], "dog"])  # as many tokens
    return case(f"prompts: {name}", editor, source=text, target=target, quick=(name, editor) in QUICK_PROMPTS)


def emptied(width: int, height: int, frames: int = 2) -> dict:
    return node("EmptyImage", width=width, height=height, batch_size=frames, color=8421504)


SIZES = (
    case("pictures of 72×56", TOKENFLOW, (3, 56, 72), size=(72, 56), quick=True),
    case("pictures of 72×56", FATEZERO, (3, 56, 72), size=(72, 56), quick=True),
    case("70×59 asked of Video Load", TOKENFLOW, (3, 56, 64), size=(70, 59)),
    case("pictures of 70×59 from another node", FATEZERO, (2, 56, 64), pictures=emptied(70, 59)),
    case("pictures of 32×32", TOKENFLOW, (3, 32, 32), size=(32, 32), quick=True),
    case("pictures of 32×32", FATEZERO, (3, 32, 32), size=(32, 32), quick=True),
    case("1 frame", TOKENFLOW, (1, 64, 64), frames=1, quick=True),
    case("1 frame", FATEZERO, (1, 64, 64), frames=1, quick=True),
    case("2 frames", TOKENFLOW, (2, 64, 64), frames=2),
    case("2 frames", FATEZERO, (2, 64, 64), frames=2),
    case("7 frames", TOKENFLOW, (7, 64, 64), frames=7),
    case("7 frames", FATEZERO, (7, 64, 64), frames=7),
    case("1 base", TOKENFLOW, bases=1),
    case("1 base", FATEZERO, bases=1, quick=True),
    case("4,096 bases, more than tokens", TOKENFLOW, bases=4096),
    case("4,096 bases, more than tokens", FATEZERO, bases=4096, quick=True),
)
MANY_STEPS = {"steps": 999, "frames": 1, "size": (32, 32), "changes": {"steps": 9}}
STEPS = (
    case("1 step", TOKENFLOW, steps=1, quick=True),
    case("1 step", FATEZERO, steps=1, quick=True),
    case("999 steps, 9 of them in the edit", TOKENFLOW, (1, 32, 32), **MANY_STEPS),
    case("999 steps, 9 of them in the edit", FATEZERO, (1, 32, 32), **MANY_STEPS),
    case("1,000 steps", SAMPLER, None, steps=1000, says="Value 1000 bigger than max of 999", quick=True),
    case("0 steps", SAMPLER, None, steps=0, says="Value 0 smaller than min of 1", quick=True),
)
SETTINGS = {
    "a weight for a word that is not there": ({"word_weights": "dog: 3"}, "'dog' is not in the target prompt"),
    "a weight that is not a number": ({"word_weights": "green: much"}, "word_weights has 'green: much'; write a word"),
    "a weight that is not finite": ({"word_weights": "green: nan"}, "weight of 'green' is nan"),
    "a word with two weights": ({"word_weights": "green: 2, green: 3"}, "word_weights has 'green' twice"),
    "a window above 1": ({"cross_window": "1.5"}, "The cross-attention window runs from 0 to 1.5"),
    "a window that ends before it begins": ({"self_window": "0.7-0.2"}, "starts at 0.7 and ends at 0.2"),
    "brackets 3,000 deep": ({"target_prompt": "(" * 3000 + "apple" + ")" * 3000}, "hundreds of nested brackets"),
    "a level that is none": ({"fusion_levels": "1, 9"}, "fusion_levels is '1, 9'"),
    "a frame that is none": ({"own_attention": "spatiotemporal", "frames": "next"}, "'next' is not a frame"),
}
EDITS: tuple[OddInput, ...] = (
    *(prompt_case(name, text, editor) for name, text in PROMPTS.items() for editor in (TOKENFLOW, FATEZERO)),
    *SIZES,
    *STEPS,
    *(case(name, FATEZERO, None, changes=changes, says=says, quick=True) for name, (changes, says) in SETTINGS.items()),
    case("a frame offset of 30 digits", FATEZERO, changes={"own_attention": "spatiotemporal", "frames": "9" * 30}),
)
