"""Help pages and locales: up to date, complete in every language, with a picture each."""

from __future__ import annotations

import json

import pytest
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.tools.shipped import pages as node_pages
from comfyui_stem.tools.shipped.pages import DOCS, LOCALES, definition, files
from comfyui_stem.tools.shipped.pages.page import WORDS, page
from PIL import Image

LANGUAGES = ("en", "zh")


@pytest.fixture(scope="module")
def english():
    return {schema.node_id: definition(schema) for schema in node_pages.schemas()}


def definitions(language):
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def shape(texts):
    """The keys at every level."""
    return {key: shape(value) if isinstance(value, dict) else None for key, value in texts.items()}


def test_make_pages_would_change_nothing():
    for file, text in files().items():
        assert file.read_text(encoding="utf-8") == text, f"{file.name}: run make pages"
    pages = {file for file in files() if file.suffix == ".md"}
    assert pages == set(DOCS.rglob("*.md"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_of_every_node_is_there_in_every_language(english, language):
    assert {folder.name for folder in LOCALES.iterdir()} == set(LANGUAGES) == set(WORDS)
    assert shape(definitions(language)) == shape(english)


def test_every_chinese_tooltip_is_chinese_and_a_whole_sentence(english):
    for node, chinese in definitions("zh").items():
        texts = [chinese["description"], *(field["tooltip"] for field in chinese["inputs"].values())]
        texts += [output["tooltip"] for output in chinese["outputs"].values()]
        for text in texts:
            assert text.endswith("。"), (node, text)
            assert any("\u4e00" <= letter <= "\u9fff" for letter in text), (node, text)


def test_options_are_named_in_other_languages_as_the_fields_show_them(english):
    options = {
        ("STEMBases", "preset"): tuple(PRESETS),
        ("STEMBases", "scope"): ("all_frames", "anchor_frames", "frame_chunks"),
        ("STEMInversionSampler", "noise_convention"): ("next", "current"),
        ("STEMTokenFlowEdit", "start_noise"): ("trajectory", "renoised", "shared"),
        ("STEMFateZeroEdit", "control"): ("replace", "refine", "auto"),
    }
    for (node, field), names in options.items():
        for language in LANGUAGES:
            assert all(name in definitions(language)[node]["inputs"][field]["tooltip"] for name in names)


def test_every_node_has_a_picture_that_is_small(english):
    for node in english:
        file = DOCS / "pictures" / f"{node}.jpg"
        assert file.stat().st_size < 150_000
        assert min(Image.open(file).size) > 50
    assert len(list((DOCS / "pictures").iterdir())) == len(english)


def test_a_page_has_a_row_for_every_input_and_output(english):
    for schema in node_pages.schemas():
        text = page(schema.node_id, english[schema.node_id], schema, "en")
        assert text.count("\n| ") == len(schema.inputs) + len(schema.outputs) + 4
        for field in schema.inputs:
            assert f"| {field.id} |" in text or f" (`{field.id}`) |" in text


def test_what_would_break_a_table_is_escaped(english):
    schema = next(schema for schema in node_pages.schemas() if schema.node_id == "STEMVideoLoad")
    texts = json.loads(json.dumps(english[schema.node_id]))
    texts["inputs"]["file"]["tooltip"] = "a | b\nc"
    assert "a \\| b c" in page(schema.node_id, texts, schema, "en")
