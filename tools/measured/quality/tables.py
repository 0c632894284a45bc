"""Markdown tables of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from .. import markdown
from .clips import KINDS
from .editors_summary import BEFORE, METRICS, SHIPPED, score
from .summary import ALL_EDITS, COMPARED_WITH, IDENTITY
from .variants import BASELINE, CONVENTIONS, MAIN, PRESETS, Variant

Rows = Sequence[Mapping]
EDIT_COLUMNS = {
    "psnr": ("PSNR", 1),
    "ssim": ("SSIM", 3),
    "psnr_inside": ("PSNR inside", 1),
    "psnr_outside": ("PSNR outside", 1),
    "target_word": ("target word", 2),
    "kept_words": ("kept words", 2),
    "warp_error": ("warp error", 2),
    "warp_error_all": ("warp error, all pixels", 2),
    "consistency": ("consistency", 3),
}
BOUNDS = ("truth", "truth through the VAE", "no edit")

table = partial(markdown.table, numbers=True)


def find(rows: Rows, variant: Variant | None = None, **wanted: object) -> Mapping | None:
    """The row of a variant with these values."""
    if variant is not None:
        wanted |= {key: getattr(variant, key) for key in IDENTITY}
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def cell(row: Mapping | None, digits: int, name: str = "mean") -> str:
    """A mean with its interval, or a dash; name: "mean" or "gain"."""
    if row is None or name not in row:
        return "–"
    low, high = ("low", "high") if name == "mean" else (f"{name}_low", f"{name}_high")
    sign = "+" if name == "gain" else ""
    return f"{row[name]:{sign}.{digits}f} [{row[low]:{sign}.{digits}f}, {row[high]:{sign}.{digits}f}]"


def reconstruction(rows: Rows, cfg: float, variants: Iterable[Variant] = MAIN) -> str:
    """Inversions at a guidance scale."""

    def line(variant: Variant) -> list[str]:
        def of(metric: str, denoiser: str) -> Mapping | None:
            return find(rows, variant, editor="none", cfg=cfg, denoiser=denoiser, metric=metric)

        plain = of("psnr_vs_vae", "plain")
        return [
            variant.label,
            cell(plain, 2),
            cell(plain, 2, "gain"),
            cell(of("ssim_vs_vae", "plain"), 3),
            cell(of("psnr_vs_source", "plain"), 2),
            cell(of("psnr_vs_vae", "same"), 2),
            cell(of("psnr_vs_vae", "same"), 2, "gain"),
            cell(of("ssim_vs_vae", "same"), 3),
            cell(of("ssim_vs_vae", "same"), 4, "gain"),
        ]

    head = ["inversion", "PSNR", "gain over DDIM, 1 frame", "SSIM", "PSNR to source"]
    same = ["PSNR, same attention", "gain, same attention", "SSIM, same attention", "SSIM gain, same attention"]
    return table([*head, *same], map(line, variants))


def grid(rows: Rows, variants: Iterable[Variant]) -> str:
    """PSNR of every inversion, reconstructed without guidance by both denoisers, in both conventions."""
    names = {}
    for variant in variants:
        if variant.convention == CONVENTIONS[0]:
            names[variant.label] = [v for v in variants if v.label.split(" (")[0] == variant.label]

    def line(label: str) -> list[str]:
        return [label] + [
            cell(find(rows, v, editor="none", cfg=1.0, denoiser=denoiser, metric="psnr_vs_vae"), 2)
            for v in names[label]
            for denoiser in ("plain", "same")
        ]

    return table(["inversion", *(f"{c}, {d}" for c in CONVENTIONS for d in ("plain", "same"))], map(line, names))


def changes(rows: Rows, variants: Iterable[Variant]) -> str:
    """PSNR and SSIM of inversions, reconstructed without guidance by both denoisers."""

    def line(variant: Variant) -> list[str]:
        def of(metric: str, denoiser: str) -> Mapping | None:
            return find(rows, variant, editor="none", cfg=1.0, denoiser=denoiser, metric=metric)

        wanted = [(m, d) for d in ("plain", "same") for m in ("psnr_vs_vae", "ssim_vs_vae")]
        kind = "gain" if variant.change else "mean"
        return [variant.label, *(cell(of(m, d), 2 if m.startswith("psnr") else 4, kind) for m, d in wanted)]

    return table(["inversion", "PSNR", "SSIM", "PSNR, same attention", "SSIM, same attention"], map(line, variants))


def edits(rows: Rows, editor: str, variants: Iterable[Variant]) -> str:
    """All measures of an editor's edits, with what could be reached at best, and what no edit would have."""
    known = {row["metric"] for row in rows}
    columns = {name: column for name, column in EDIT_COLUMNS.items() if name in known}

    def line(name: str, of: Callable[[str], Mapping | None]) -> list[str]:
        return [name, *(cell(of(metric), digits) for metric, (_, digits) in columns.items())]

    body = [line(f"*{name}*", lambda m, n=name: find(rows, editor=n, edit=ALL_EDITS, metric=m)) for name in BOUNDS]
    body += [line(v.label, lambda m, v=v: find(rows, v, editor=editor, edit=ALL_EDITS, metric=m)) for v in variants]
    return table(["inversion", *(title for title, _ in columns.values())], body)


def edit_gains(rows: Rows, editor: str, variants: Iterable[Variant]) -> str:
    """Differences of an editor's edits to those from the first baseline, clip by clip."""
    known = {row["metric"] for row in rows}
    columns = {name: column for name, column in EDIT_COLUMNS.items() if name in known}
    body = [
        [v.label]
        + [
            cell(find(rows, v, editor=editor, edit=ALL_EDITS, metric=metric), digits + 1, "gain")
            for metric, (_, digits) in columns.items()
        ]
        for v in variants
        if v != BASELINE or editor in COMPARED_WITH
    ]
    return table(["inversion", *(title for title, _ in columns.values())], body)


def editor_settings(rows: Rows, editor: str, inversion: str, kind: str = ALL_EDITS) -> str:
    """Settings of an editor, the best first: what each gains over those of 0.1.0, whose numbers come first."""
    of = [row for row in rows if (row["editor"], row["inversion"], row["kind"]) == (editor, inversion, kind)]
    clips = {row["setting"]: row["clips"] for row in of if row["metric"] == "psnr"}
    columns = {name: EDIT_COLUMNS[name] for name in METRICS if any(row["metric"] == name for row in of)}

    def line(setting: str) -> list[str]:
        shown = f"**{setting}**" if setting == SHIPPED[editor] else setting
        name, more = ("mean", 0) if setting == BEFORE else ("gain", 1)
        cells = [
            cell(find(of, setting=setting, metric=metric), digits + more, name)
            for metric, (_, digits) in columns.items()
        ]
        rank = "" if setting == BEFORE else f"{score(of, editor, setting, kind):.2f}"
        return [shown, str(clips[setting]), rank, *cells]

    # those that stayed longest first; among them by score
    order = sorted(clips, key=lambda s: (s == BEFORE, clips[s], score(of, editor, s, kind)), reverse=True)
    head = ["setting", "clips", "score", *(title for title, _ in columns.values())]
    return table(head, map(line, order))


def masks(rows: Rows, editor: str, kind: str = ALL_EDITS) -> str:
    """An editor without and with a mask: what is kept outside, how close it is inside, and how steady the seam is."""
    of = [row for row in rows if (row["editor"], row["kind"]) == (editor, kind)]
    columns = {
        "psnr_kept": ("PSNR outside, to the source", 2),
        "psnr_inside": EDIT_COLUMNS["psnr_inside"],
        "warp_seam": ("warp error at the seam", 2),
        "warp_error": EDIT_COLUMNS["warp_error"],
        "target_word": EDIT_COLUMNS["target_word"],
        "kept_words": EDIT_COLUMNS["kept_words"],
    }
    body = [
        [setting, *(cell(find(of, setting=setting, metric=metric), digits) for metric, (_, digits) in columns.items())]
        for setting in dict.fromkeys(row["setting"] for row in of)
    ]
    return table(["", *(title for title, _ in columns.values())], body)


def edits_by_kind(rows: Rows, editor: str, variants: Iterable[Variant]) -> str:
    """PSNR inside, and the share of the target word where it was judged, for each kind of edit."""
    metrics = [m for m in ("psnr_inside", "target_word") if any(row["metric"] == m for row in rows)]
    head = ["inversion", *(f"{kind}: {EDIT_COLUMNS[m][0]}" for kind in KINDS for m in metrics)]
    body = [
        [v.label]
        + [
            cell(find(rows, v, editor=editor, edit=kind, metric=m), EDIT_COLUMNS[m][1])
            for kind in KINDS
            for m in metrics
        ]
        for v in variants
    ]
    return table(head, body)


def em_health(rows: Rows) -> str:
    """Of every preset and layer, the mean over steps and, in brackets, the smallest and largest."""
    names = {"live": 0, "perplexity": 1, "responsibility": 3, "norm": 1}
    body = []
    for preset in PRESETS:
        for layer in sorted({row["layer"] for row in rows if row["preset"] == preset}):
            steps = [row for row in rows if row["preset"] == preset and row["layer"] == layer]
            line = [preset, str(layer), f"{steps[0]['tokens']:.0f}", f"{steps[0]['bases']:.0f}"]
            for name, digits in names.items():
                seen = [row[name] for row in steps]
                low, mean, high = min(seen), sum(seen) / len(seen), max(seen)
                line.append(f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
            body.append(line)
    head = ["preset", "layer", "tokens", "bases", "live bases", "perplexity of the masses"]
    return table([*head, "largest responsibility", "length of tokens"], body)
