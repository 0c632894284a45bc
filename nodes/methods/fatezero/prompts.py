"""A prompt read by ComfyUI's CLIP: its conditioning, and which tokens belong to which word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....stem_kernels.prompt_words import TokenizedPrompt, embedding_names, plain_prompt, tokenized_prompt
from ..inversion.inversion import Inversion

# Relative difference of a token's embedding. A word more or less moves some token by more than the second; a single
# other word, or a LoRA on the text encoder, by something between.
_SAME_PROMPT, _ANOTHER_PROMPT = 0.05, 0.5
# ComfyUI's names of the text encoders of SD 1.x (l), SD 2.x (h) and SDXL (l and g).
_ENCODERS = {"l", "h", "g"}


@dataclass(frozen=True)
class Prompt:
    """text: as typed; conditioning: CONDITIONING; tokenized: its words and tokens."""

    text: str
    conditioning: list
    tokenized: TokenizedPrompt


def encode(clip: Any, text: str) -> list:
    """CONDITIONING of a text, as ComfyUI's CLIP Text Encode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def read_prompt(clip: Any, text: str, role: str, purpose: str) -> Prompt:
    """Encode a prompt and find its words.

    Raises:
        ValueError: the prompt is longer than one block of tokens, has an embedding that ComfyUI would leave out, or
            this is not a CLIP of Stable Diffusion.
    """
    try:
        plain_prompt(text)  # what it refuses would break ComfyUI's tokenizer
    except ValueError as error:
        raise ValueError(f"{purpose}, {role} prompt: {error}") from None
    encoders = clip.tokenize(text, return_word_ids=True)
    if not encoders.keys() <= _ENCODERS:
        raise ValueError(
            f"{purpose}: this CLIP has the text encoders {', '.join(encoders)}, so its tokens are not those of the "
            "cross-attention of Stable Diffusion. Connect the CLIP of the checkpoint that MODEL comes from."
        )
    for name, blocks in encoders.items():
        _check_widths(clip, name, blocks, f"{purpose}, {role} prompt")
    # SDXL's two encoders read the same tokens and differ in how they fill up the block.
    blocks, *others = encoders.values()
    if any(_word_ids(other) != _word_ids(blocks) for other in others):
        raise ValueError(
            f"{purpose}, {role} prompt: the text encoders {' and '.join(encoders)} read different tokens, which "
            "happens with an embedding that only one of them knows. Remove it from the prompt."
        )
    texts = [_vocabulary_entry(clip, token) for token in blocks[0]]
    try:
        tokenized = tokenized_prompt(text, blocks, texts, _missing_embeddings(clip, text))
    except ValueError as error:
        raise ValueError(f"{purpose}, {role} prompt: {error}") from None
    return Prompt(text, encode(clip, text), tokenized)


def check_source_prompt(prompt: Prompt, inversion: Inversion, purpose: str) -> str:
    """What to tell the user if a source prompt is not quite the one that the video was inverted with, or "".

    Raises:
        ValueError: it is clearly another prompt.
    """
    ours, theirs = prompt.conditioning[0][0].float().cpu(), inversion.source[0][0].float().cpu()
    difference = float("inf")
    if ours.shape == theirs.shape:
        # Token by token; the start token is the same for every prompt, and large.
        difference = float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1))[:, 1:].max())
    if difference > _ANOTHER_PROMPT:
        raise ValueError(
            f"{purpose}: the source prompt '{prompt.text}' is not the one that the INVERSION was made with, so its "
            "words would be looked up in the attention of a different text. Type the prompt that is connected to the "
            "inversion sampler, and use the same CLIP."
        )
    if difference < _SAME_PROMPT:
        return ""
    return "note: the source prompt, or its CLIP, differs from the inversion's; words may be located less precisely"


def _check_widths(clip: Any, name: str, blocks: list, where: str) -> None:
    """ComfyUI drops embeddings of another width than a text encoder's, so that all words after them move up."""
    width = getattr(clip.cond_stage_model, f"clip_{name}").transformer.get_input_embeddings().weight.shape[1]
    others = {token.shape[-1] for block in blocks for token, *_ in block if not isinstance(token, int)} - {width}
    if others:
        raise ValueError(
            f"{where}: it has an embedding whose vectors have {others.pop()} numbers, but the text encoder clip_{name} "
            f"reads vectors of {width}, so ComfyUI would leave it out. Use an embedding made for this kind of "
            "checkpoint, or remove it from the prompt."
        )


def _missing_embeddings(clip: Any, text: str) -> set[str]:
    """Of the embeddings that a prompt asks for, those that ComfyUI leaves out, as they alone become no vector."""

    def known(name: str) -> bool:
        block = next(iter(clip.tokenize(f"embedding:{name}").values()))[0]
        return any(not isinstance(token, int) for token, _ in block)

    return {name for name in embedding_names(text) if not known(name)}


def _word_ids(blocks: list) -> list[list[int]]:
    return [[word_id for *_, word_id in block] for block in blocks]


def _vocabulary_entry(clip: Any, token: tuple) -> str:
    if not isinstance(token[0], int):
        return ""
    ((_, text),) = clip.tokenizer.untokenize([token])
    return text
