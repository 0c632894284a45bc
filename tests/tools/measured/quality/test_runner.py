"""Items of the plan are run for real: the trained checkpoint, few frames, few steps."""

from __future__ import annotations

import statistics
from types import SimpleNamespace

import pytest
from comfyui_stem.nodes.methods.fatezero.presets import PRESETS
from comfyui_stem.nodes.tokenflow_edit import TokenFlowEdit
from comfyui_stem.tools import locations
from comfyui_stem.tools.host import loaded_model
from comfyui_stem.tools.measured.quality import runner as runner_module
from comfyui_stem.tools.measured.quality.clips import held_out_cases
from comfyui_stem.tools.measured.quality.frames_on_disk import load_frames
from comfyui_stem.tools.measured.quality.plan import EditorItem, EditorSetting, Item, Settings
from comfyui_stem.tools.measured.quality.runner import Runner
from comfyui_stem.tools.measured.quality.variants import BASELINE, stem

SETTINGS = Settings(frames=3, steps=2, checkpoint="", classifier="", code="")
(CASE,) = held_out_cases(1)
EDIT = {"psnr", "ssim", "psnr_inside", "psnr_outside", "warp_error", "warp_error_all", "consistency"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    loaded_model.prepare()
    runner = Runner(loaded_model.load(locations.TRAINED), SETTINGS, None, tmp_path_factory.mktemp("frames"))
    return lambda item: runner(item)["measured"], runner.pictures


def test_the_bounds_of_a_clip_need_no_inversion(run):
    measured, pictures = run
    item = Item("reference", CASE, editors=("tokenflow",), shown=True)
    vae, *edits = measured(item)
    assert vae["editor"] == "vae" and vae["metrics"]["psnr_vs_source"] > 25
    assert [one["editor"] for one in edits] == ["truth", "truth through the VAE", "no edit"]
    truth, through_vae, none = (one["metrics"] for one in edits)
    assert truth["warp_error"] < through_vae["warp_error"] and through_vae["psnr"] > none["psnr"] + 5
    for name in ("source", f"truth_{CASE.edits[0].kind}"):
        assert load_frames(pictures / f"{item.key(SETTINGS)}_{name}.png", 3).shape == (3, 128, 128, 3)


@pytest.mark.parametrize(("variant", "denoisers"), [(BASELINE, {"plain"}), (stem(32), {"plain", "same"})])
def test_an_inversion_is_reconstructed_by_every_denoiser_at_every_scale(run, variant, denoisers):
    found = run[0](Item("variant", CASE, variant, scales=(1.0, 7.5)))
    assert {(one["denoiser"], one["cfg"]) for one in found} == {(d, cfg) for d in denoisers for cfg in (1.0, 7.5)}
    assert len(found) == 2 * len(denoisers)
    for one in found:
        assert statistics.mean(one["psnr_by_frame"]) == pytest.approx(one["metrics"]["psnr_vs_vae"], abs=1e-3)
    with_guidance, without = (
        max(one["metrics"]["psnr_vs_vae"] for one in found if one["cfg"] == cfg) for cfg in (7.5, 1.0)
    )
    assert without > with_guidance


def test_inversions_are_compared_with_the_guidance_that_the_editors_ship_with(run, monkeypatch):
    settings = {}

    def noted(name):
        def edit(model, inversion, *more):
            settings[name] = more[-1]
            latents = model.model.process_latent_out(inversion.trajectory[0])
            return latents if name == "tokenflow" else SimpleNamespace(samples=latents)

        return edit

    monkeypatch.setattr(runner_module, "edit", noted("tokenflow"))
    monkeypatch.setattr(runner_module.fatezero, "edit", noted("fatezero"))
    run[0](Item("variant", CASE, BASELINE, editors=("tokenflow", "fatezero")))
    default = {one.id: getattr(one, "default", None) for one in TokenFlowEdit.define_schema().inputs}
    assert settings["tokenflow"].cfg_window == (default["cfg_start_percent"], default["cfg_end_percent"])
    preset = PRESETS[runner_module.fatezero.PRESET_OF[CASE.edits[0].kind]]
    assert (settings["fatezero"].cfg_window, settings["fatezero"].levels) == (preset.cfg_window, preset.levels)


@pytest.mark.parametrize("variant", [BASELINE, stem(8)])
def test_edits_with_bases_among_the_keyframes_are_other_edits(run, variant):
    usual, with_bases = run[0](Item("variant", CASE, variant, editors=("tokenflow", "tokenflow_stem")))
    assert (usual["editor"], with_bases["editor"]) == ("tokenflow", "tokenflow_stem")
    assert usual["edit"] == with_bases["edit"] == CASE.edits[0].kind
    assert set(usual["metrics"]) == set(with_bases["metrics"]) == EDIT
    assert usual["metrics"] != with_bases["metrics"]


def test_fatezero_edits_the_clip(run):
    (found,) = run[0](Item("variant", CASE, stem(32), editors=("fatezero",)))
    assert found["editor"] == "fatezero" and set(found["metrics"]) == EDIT


def test_every_fit_of_an_inversion_is_watched(run):
    found = [one["health"] for one in run[0](Item("health", CASE, stem(32)))]
    assert len(found) == 16 * SETTINGS.steps == len({(one["layer"], one["timestep"]) for one in found})
    assert all(0 < one["perplexity"] <= one["live"] + 1e-6 <= one["bases"] + 1e-5 for one in found)


def test_settings_of_an_editor_are_run_from_one_inversion_and_give_other_edits(run, monkeypatch):
    inversions = []
    real = runner_module.invert
    monkeypatch.setattr(runner_module, "invert", lambda *args: inversions.append(args[3]) or real(*args))
    settings = (
        EditorSetting("tokenflow", "as it is"),
        EditorSetting("tokenflow", "no guidance", (("cfg_window", (0.0, 0.0)),)),
        EditorSetting("fatezero", "as it is"),
        EditorSetting("fatezero", "more", (("window", 1.0), ("levels", (0, 1, 2, 3)), ("blend_latents", True))),
        EditorSetting("fatezero", "masked", (("masked", "pixels"),)),
        EditorSetting("fatezero", "more steps", (), 4),
    )
    found = [run[0](EditorItem("setting", CASE, stem(8), setting=setting)) for setting in settings]
    assert inversions == [SETTINGS.steps, 4]
    assert [one["editor"] for (one,) in found] == [setting.editor for setting in settings]
    assert ["psnr_kept" in one["metrics"] for (one,) in found] == [False] * 4 + [True, False]
    assert found[4][0]["metrics"]["psnr_kept"] == 100
    metrics = [tuple(one["metrics"].values()) for (one,) in found]
    assert len(set(metrics)) == len(settings)


def test_a_setting_that_changes_what_the_node_does_is_the_edit_of_the_other_studies(run):
    (usual,) = run[0](Item("variant", CASE, stem(8), editors=("tokenflow",)))
    shipped = EditorSetting("tokenflow", "as it ships", tuple(runner_module.TOKENFLOW_SHIPPED.items()))
    (found,) = run[0](EditorItem("setting", CASE, stem(8), setting=shipped))
    assert found["metrics"] == usual["metrics"]
