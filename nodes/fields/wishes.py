"""Several target prompts in one field, and how the edits that they ask for are shown together."""

from __future__ import annotations

import math

from ...stem_kernels.prompt_words import folded
from .shared import check_target_prompt

SEPARATOR = "---"
MOST = 15  # a grid of four by four, with the source
_LONGEST = 40


def read_targets(source: str, text: str, purpose: str) -> list[str]:
    """The target prompts of a field, which lines of `---` separate.

    Raises:
        ValueError: one of them is empty or the source prompt, or there are too many.
    """
    targets, lines = [], []
    for line in [*text.splitlines(), SEPARATOR]:
        if line.strip() == SEPARATOR:
            targets.append("\n".join(lines).strip())
            lines = []
        else:
            lines.append(line)
    if len(targets) > MOST:
        raise ValueError(f"{purpose}: there are {len(targets)} target prompts; a grid has room for {MOST}.")
    for number, target in enumerate(targets, start=1):
        which = "the target prompt" if len(targets) == 1 else f"target prompt {number} of {len(targets)}"
        check_target_prompt(target, purpose, which)
        if target.split() == source.split():
            raise ValueError(
                f"{purpose}: {which} is the source prompt, so nothing would change. Write what the edited video should "
                "show."
            )
    return targets


def captions(source: str, targets: list[str]) -> list[str]:
    """What to write above each edit, without commas: the words of its prompt that the source prompt has not."""
    known = {folded(word) for word in source.split()}
    found = []
    for number, target in enumerate(targets, start=1):
        words = [word.strip(".,;").replace(",", "/") for word in target.split()]
        new = " ".join(word for word in words if folded(word) not in known)
        found.append(new[:_LONGEST].strip() or f"edit {number}")
    return found


def grid_rows(count: int) -> list[range]:
    """Which of `count` pictures stand in each row of a grid; rows differ by one at most, none has more than four."""
    columns = count if count <= 3 else math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    starts = [math.ceil(row * count / rows) for row in range(rows + 1)]
    return [range(*between) for between in zip(starts, starts[1:], strict=False)]
