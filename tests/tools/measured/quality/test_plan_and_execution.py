"""The plan, the store of results, and how a run goes on where another stopped."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import pytest
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools import locations
from comfyui_stem.tools.measured.quality import methods, sources
from comfyui_stem.tools.measured.quality.clips import held_out_cases
from comfyui_stem.tools.measured.quality.execution import do, pending
from comfyui_stem.tools.measured.quality.plan import CFG, STUDIES, Settings, items, share
from comfyui_stem.tools.measured.quality.store import Store, code_digest
from comfyui_stem.tools.measured.quality.variants import (
    BASELINE,
    BETWEEN,
    CANDIDATES,
    CHANGES,
    CONVENTIONS,
    DEFAULT,
    FATEZERO,
    FOR_TOKENFLOW,
    LITERAL,
    LITERAL_CHANGES,
    MAIN,
    PRESETS,
    SIZES,
    STEM_EDITED,
    changed,
    full_grid,
)

SETTINGS = Settings(frames=4, steps=2, checkpoint="c", classifier="", code="x")


SEEDS = [0, 1]


@pytest.fixture(scope="module")
def work():
    cases = held_out_cases(4)
    return list(dict.fromkeys(item for study in STUDIES for item in items(study, cases, SEEDS)))


def test_the_grid_holds_every_combination_once():
    grid = full_grid()
    assert len(set(grid)) == len(grid) == len(CONVENTIONS) * (3 + len(PRESETS) * len(SIZES))
    assert set(MAIN) <= set(grid)
    assert len({variant.label for variant in grid}) == len(grid)


def of(study, clips=4):
    return items(study, held_out_cases(clips), SEEDS)


def test_the_main_inversions_are_edited_on_every_clip():
    edited = [item for item in of("main") if item.kind == "variant"]
    assert len(edited) == 4 * ((len(MAIN) + 1) * len(SEEDS) + len(CANDIDATES))
    assert all("tokenflow" in item.editors for item in edited)
    assert [item.case.index for item in of("main") if item.kind == "reference"] == [0, 1, 2, 3]


def test_another_seed_does_again_only_what_it_changes():
    for item in (item for item in of("main") if item.kind == "variant"):
        depends = item.variant.seeded or item.seed == SEEDS[0]
        assert item.scales == ((1.0,) if depends else ())
        assert ("fatezero" in item.editors) == (depends and item.variant in FATEZERO)


def test_every_inversion_of_the_grid_is_edited_by_tokenflow():
    found = [item for study in ("main", "edits_next", "edits_current") for item in of(study)]
    edited = {item.variant for item in found if item.kind == "variant" and "tokenflow" in item.editors}
    assert edited == {*full_grid(), FOR_TOKENFLOW, *CANDIDATES}
    for convention in CONVENTIONS:
        editors = {item.variant: item.editors for item in of(f"edits_{convention}")}
        assert all(used in editors[BASELINE] for used in itertools.chain(*editors.values()))


@pytest.mark.parametrize(
    ("study", "variants", "scale"),
    [("grid", full_grid(), 1.0), ("changes", changed(), 1.0), ("guided", MAIN, CFG)],
)
def test_inversions_are_reconstructed_with_every_seed_that_they_depend_on(study, variants, scale):
    found = of(study)
    expected = [(v, seed) for v in variants for seed in (SEEDS if v.seeded else SEEDS[:1])]
    assert [(item.variant, item.seed) for item in found] == 4 * expected
    assert all(item.scales == (scale,) and not item.edited for item in found)


def test_edits_with_bases_are_beside_the_usual_ones_of_the_same_inversions():
    assert {item.variant for item in of("stem_edits")} == set(STEM_EDITED)
    assert all(item.editors == ("tokenflow", "tokenflow_stem") for item in of("stem_edits"))


def test_the_fits_are_watched_on_few_clips():
    assert {item.case.index for item in of("health")} == {0, 1}


def test_every_change_names_settings_that_exist():
    stem, em = ({field.name for field in fields(kind)} for kind in (StemSettings, EMSettings))
    changes = (*CHANGES.values(), *LITERAL_CHANGES.values())
    assert all(change.keys() <= stem | em for change in changes)
    assert not {name for change in changes for name in change} & stem & em
    for variant in (*changed()[1:], *BETWEEN[1:]):
        unchanged = replace(variant, change="")
        assert methods.method_of(variant, 3).settings != methods.method_of(unchanged, 3).settings


def test_the_changes_of_the_printed_form_together_make_the_default():
    literal, default = (methods.method_of(variant, 3).settings for variant in (LITERAL, DEFAULT))
    names = {name: value for change in LITERAL_CHANGES.values() for name, value in change.items()}
    em = replace(literal.em, **{name: value for name, value in names.items() if hasattr(literal.em, name)})
    assert replace(literal, em=em, initialisation=names["initialisation"], preset="paper") == default


def test_the_preset_for_tokenflow_is_the_printed_form_without_empty_bases():
    without_empty = replace(LITERAL, change="empty bases left out")
    literal, preset = (methods.method_of(variant, 3).settings for variant in (without_empty, FOR_TOKENFLOW))
    assert replace(literal, preset="tokenflow") == preset


def test_a_key_depends_on_the_item_and_on_every_setting(work):
    assert len({item.key(SETTINGS) for item in work}) == len(work)
    for field in fields(Settings):
        value = getattr(SETTINGS, field.name)
        other = replace(SETTINGS, **{field.name: value * 2 if isinstance(value, int) else value + "y"})
        assert work[0].key(other) != work[0].key(SETTINGS)


def test_a_key_does_not_depend_on_how_much_else_is_asked_for(work):
    fewer = [item for study in STUDIES for item in items(study, held_out_cases(1), [0])]
    assert {item.key(SETTINGS) for item in fewer} <= {item.key(SETTINGS) for item in work}


def test_workers_share_everything_once(work):
    parts = [share(work, n, 3) for n in range(3)]
    assert sum(map(len, parts)) == len(work)
    assert {item for part in parts for item in part} == set(work)


def test_an_interrupted_run_goes_on_where_it_stopped(work, tmp_path):
    ran = []

    def interrupted(item):
        if len(ran) == 5:
            raise KeyboardInterrupt
        ran.append(item)
        return {"measured": [item.label]}

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        do(work, SETTINGS, store, interrupted, quiet=True)
    # a process that is killed while it writes leaves half a line
    with store.file.open("a") as file:
        file.write('{"key": "half')

    def goes_on(item):
        ran.append(item)
        return {"measured": [item.label]}

    do(work, SETTINGS, store, goes_on, quiet=True)
    assert ran == work
    assert pending(work, SETTINGS, store) == []
    results = Store(tmp_path).load()
    assert all(results[item.key(SETTINGS)]["measured"] == [item.label] for item in work)
    assert len(pending(work, replace(SETTINGS, steps=3), store)) == len(work)


def test_results_of_other_processes_are_seen(tmp_path):
    Store(tmp_path, ".0").add("a", {"n": 1})
    Store(tmp_path, ".1").add("b", {"n": 2})
    assert Store(tmp_path).load() == {"a": {"n": 1}, "b": {"n": 2}}


def test_published_results_are_gone_on_with_on_another_machine(work, tmp_path):
    published = tmp_path / "docs" / "runs.jsonl"
    here, keys = Store(tmp_path / "here", published=published), [item.key(SETTINGS) for item in work]
    here.add("of other settings", {"measured": [], "seconds": 1.0})
    for key in keys[:3]:
        here.add(key, {"measured": [{"cfg": None, "metrics": {"psnr": 1 / 3}}], "seconds": 2.0})
    here.publish(keys)
    there = Store(tmp_path / "there", published=published)
    assert list(there.load()) == keys[:3]
    assert there.load()[keys[0]]["measured"] == [{"cfg": None, "metrics": {"psnr": 0.333333}}]
    do(work, SETTINGS, there, lambda item: {"measured": []}, quiet=True)
    there.publish(keys)
    assert list(Store(tmp_path / "nowhere", published=published).load()) == keys


def test_comments_do_not_change_the_fingerprint_of_code_and_what_it_does_changes_it(tmp_path):
    file = tmp_path / "code.py"

    def of(text):
        file.write_text(text)
        return code_digest([file], tmp_path)

    plain = of("def f(x):\n    return x + 1\n")
    assert of('"""Module."""\n\ndef f(x):\n    """Adds."""\n    return (x + 1)  # one\n') == plain
    assert of("def f(x):\n    return x + 2\n") != plain


def test_the_fingerprint_covers_the_product_in_all_its_folders_and_not_how_results_are_shown():
    covered = {file.relative_to(locations.ROOT).as_posix() for file in sources()}
    product = {
        file.relative_to(locations.ROOT).as_posix() for file in (locations.ROOT / "nodes" / "methods").rglob("*.py")
    }
    assert product <= covered and "nodes/methods/stem/attention.py" in product
    assert {"stem_kernels/em.py", "stem_kernels/backends/eager.py", "nodes/metrics/warping.py"} <= covered
    quality = {name.rpartition("/")[2] for name in covered if name.startswith("tools/measured/quality/")}
    assert {"runner.py", "measures.py", "variants.py"} <= quality and not quality & {"report.py", "summary.py"}
