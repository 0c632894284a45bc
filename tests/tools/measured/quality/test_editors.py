"""The study of the editors' settings: every setting can be run, and a round takes what was best in the one before."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings
from comfyui_stem.tools.measured.quality import editors
from comfyui_stem.tools.measured.quality.clips import held_out_cases
from comfyui_stem.tools.measured.quality.editors import INVERSIONS, ROUNDS, SETTINGS, items
from comfyui_stem.tools.measured.quality.editors_summary import BEFORE, rows, score, survivors
from comfyui_stem.tools.measured.quality.plan import EditorItem, EditorSetting, Settings
from comfyui_stem.tools.measured.quality.summary import gain_of

ABOUT = Settings(frames=4, steps=2, checkpoint="c", classifier="", code="x")
CASES = held_out_cases(12)
FIELDS = {
    "tokenflow": {field.name for field in fields(TokenFlowSettings)},
    "fatezero": {field.name for field in fields(FateZeroSettings)} | {"window"},
}


def test_every_setting_changes_fields_of_its_editor_and_has_a_name_of_its_own():
    assert "window" in {field.name for field in fields(WordWishes)}
    for editor, tried in SETTINGS.items():
        assert all(one.editor == editor and dict(one.changes).keys() <= FIELDS[editor] for one in tried)
        assert all(one.changes or one.steps for one in tried)
        names = [BEFORE, *(one.name for one in tried)]
        assert len(set(names)) == len(names)
        whats = [(one.changes, one.steps) for one in tried]
        assert len(set(whats)) == len(whats)


def result(item, better=0.0, warp=5.0, words=1.0):
    """What a run would leave: `better` decibels more than the clip has."""
    metrics = {"psnr": 20 + item.case.index + better, "warp_error": warp + item.case.index, "target_word": words}
    return {"measured": [{"editor": item.setting.editor, "edit": w.kind, "metrics": metrics} for w in item.case.edits]}


@pytest.fixture
def tried(monkeypatch):
    """A few settings, by editor."""
    few = {editor: settings[:13] for editor, settings in SETTINGS.items()}
    monkeypatch.setattr(editors, "SETTINGS", few)
    return few


def by_number(item):
    """The later a setting is listed the better it is."""
    if item.setting.name == BEFORE:
        return result(item)
    return result(item, 0.01 * SETTINGS[item.setting.editor].index(item.setting))


def test_a_round_begins_when_the_one_before_is_done_with_what_was_best_there(tried):
    first = items(CASES, [0, 1], ABOUT, {})
    assert len(first) == ROUNDS[0].clips * sum(1 + len(settings) for settings in tried.values())
    assert {(item.setting.editor, item.variant) for item in first} == {(e, v[0]) for e, v in INVERSIONS.items()}
    results = {item.key(ABOUT): by_number(item) for item in first}
    assert items(CASES, [0, 1], ABOUT, dict(list(results.items())[:-1])) == first
    second = items(CASES, [0, 1], ABOUT, results)
    assert second[: len(first)] == first
    for editor, settings in tried.items():
        of_round = [item for item in second[len(first) :] if item.setting.editor == editor]
        assert {item.setting for item in of_round} == {*settings[-ROUNDS[1].kept :], EditorSetting(editor, BEFORE)}
        assert {item.case.index for item in of_round if item.variant == INVERSIONS[editor][0]} == set(range(6, 12))
        assert {item.case.index for item in of_round if item.variant == INVERSIONS[editor][1]} == set(range(12))


def test_the_last_round_has_two_seeds_where_a_seed_matters(tried):
    results = {}
    for _ in ROUNDS:
        work = items(CASES, [0, 1], ABOUT, results)
        results |= {item.key(ABOUT): by_number(item) for item in work}
    assert items(CASES, [0, 1], ABOUT, results) == work
    again = {(item.setting.editor, item.variant) for item in work if item.seed == 1}
    stem, ddim = INVERSIONS["tokenflow"]
    assert again == {("tokenflow", stem), ("tokenflow", ddim), ("fatezero", INVERSIONS["fatezero"][0])}


def done(*parts):
    """Results of settings on four clips; each part is a name and what `result` takes."""
    variant = INVERSIONS["tokenflow"][0]
    return [
        (item, result(item, **numbers))
        for name, numbers in parts
        for case in CASES[:4]
        for item in [EditorItem("setting", case, variant, setting=EditorSetting("tokenflow", name))]
    ]


def test_gains_are_differences_clip_by_clip():
    made = rows(done((BEFORE, {}), ("other", {"better": 0.5})))
    row = next(r for r in made if (r["setting"], r["metric"], r["kind"]) == ("other", "psnr", "all"))
    assert (row["gain"], row["gain_low"], row["gain_high"], row["clips"]) == pytest.approx((0.5, 0.5, 0.5, 4))
    assert not any("gain" in row for row in made if row["setting"] == BEFORE)
    assert gain_of({0: {(0, "style"): 3.0}, 1: {(0, "style"): 1.0}}, {0: {(0, "style"): 1.0}}).mean == 2.0


def test_a_score_counts_half_decibels_fifths_of_the_warp_error_and_lost_words():
    # the clips' warp errors are 5 to 8, so a fifth of their mean is 1.3
    parts = ("closer", {"better": 0.5}), ("steadier", {"warp": 5 - 1.3}), ("silent", {"words": 0.9})
    made = rows(done((BEFORE, {}), *parts))
    assert [score(made, "tokenflow", name) for name, _ in parts] == pytest.approx([1, 1, -2])


def test_words_that_are_gained_do_not_make_up_for_anything():
    made = rows(done((BEFORE, {"words": 0.8}), ("louder", {"words": 1.0})))
    assert score(made, "tokenflow", "louder") == pytest.approx(0)


def test_the_best_of_a_kind_stays_though_it_is_worse_overall():
    tried = [EditorSetting("tokenflow", name) for name in ("good", "better", "of objects")]
    found = done((BEFORE, {}), ("good", {"better": 1.0}), ("better", {"better": 2.0}), ("of objects", {}))
    found = [
        (item, result(item, 3.0))
        if item.setting.name == "of objects" and item.case.edits[0].kind == "object"
        else (item, one)
        for item, one in found
    ]
    assert [one.name for one in survivors(found, tried, 1)] == ["better", "of objects"]


def test_a_mask_is_tried_on_the_same_edits_with_latents_alone_and_with_pixels():
    items = editors.mask_items(CASES[:2], [0])
    assert len(items) == 2 * 2 * 3
    for editor in ("tokenflow", "fatezero"):
        of = [item.setting for item in items if item.setting.editor == editor and item.case.index == 0]
        assert [dict(setting.changes)["masked"] for setting in of] == ["no", "latents", "pixels"]
        assert len({tuple(change for change in setting.changes if change[0] != "masked") for setting in of}) == 1


def test_other_changes_and_steps_are_other_results():
    base = EditorItem("setting", CASES[0], INVERSIONS["tokenflow"][0], setting=EditorSetting("tokenflow", "x"))
    others = [replace(base.setting, changes=(("cfg", 3.0),)), replace(base.setting, steps=20)]
    keys = {replace(base, setting=setting).key(ABOUT) for setting in (base.setting, *others)}
    assert len(keys) == 3
    assert editors.items(CASES[:1], [0], ABOUT, {})[0].label.endswith("tokenflow as in 0.1.0")
