"""Scenes: what they say about their pictures is true, readable and split."""

from __future__ import annotations

import importlib
import json
import random
import string
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mezzo.train.data import fonts, language, sheet, vocabulary
from mezzo.train.data.fonts import Face, Split
from mezzo.train.data.material import Lexicon, Material
from mezzo.train.data.picture import KINDS, Canvas, Picture
from mezzo.train.data.scenes import bar_charts, chart_parts, common, pie_charts
from mezzo.train.data.vocabulary import Halves

SCENES = {
    "receipts": "receipt", "invoices": "invoice", "forms": "form", "tables": "table", "cards": "card", "signs": "sign",
    "screens": "screen", "bar_charts": "bar_chart", "line_charts": "line_chart", "pie_charts": "pie_chart",
}  # fmt: skip
SIZES = ((160, 128), (128, 160), (384, 384), (384, 160), (200, 640))
SPLITS: tuple[Split, ...] = ("train", "held_out")
LEXICON = Lexicon(
    ("the", "apple", "river", "Stone", "walk", "bright", "cloud", "seven", "market", "paper"),
    ("lantern", "violet", "harbor", "copper", "meadow", "quiet", "falcon", "timber"),
)


@cache
def few_faces() -> tuple[Face, ...]:
    """Sorting all fonts of a machine takes longer than these tests: take the first few that are found."""
    found: list[Face] = []
    for path in fonts._packaged_fonts() or fonts._font_files():
        family = fonts._usable_family(path)
        found += [Face(family, str(path))] if family is not None else []
        if len(found) == 12:
            break
    return tuple(found)


@pytest.fixture(autouse=True)
def few_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    if not few_faces():
        pytest.skip("this machine has no fonts")
    monkeypatch.setattr(fonts, "faces", lambda _: tuple((face,) for face in few_faces()))


def module(name: str) -> ModuleType:
    return importlib.import_module(f"mezzo.train.data.scenes.{name}")


def draw(name: str, size: tuple[int, int], split: Split, seed: int) -> Canvas:
    canvas = getattr(module(name), SCENES[name])(Material(random.Random(seed), split, LEXICON), *size)
    assert isinstance(canvas, Canvas)
    return canvas


@cache
def canvases(name: str, seeds: int = 4) -> tuple[Canvas, ...]:
    return tuple(draw(name, size, split, seed) for size in SIZES for split in SPLITS for seed in range(seeds))


@pytest.mark.parametrize("name", SCENES)
def test_one_seed_gives_one_picture(name: str) -> None:
    first, second, other = (draw(name, (256, 224), "train", seed).finish() for seed in (5, 5, 6))
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.areas, second.areas)
    assert (first.glyphs, first.turns) == (second.glyphs, second.turns)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("name", SCENES)
def test_glyphs_are_inside_and_lines_apart(name: str) -> None:
    for canvas in canvases(name):
        assert canvas.glyphs
        for glyph in canvas.glyphs:
            assert 0 <= glyph.x < canvas.width
            assert 0 <= glyph.y < canvas.height
        lines = np.array([glyph.line for glyph in canvas.glyphs])
        points = np.array([(glyph.x, glyph.y) for glyph in canvas.glyphs])
        apart = np.abs(points[:, None] - points[None])
        near = (apart[..., 0] < 3) & (apart[..., 1] < 7) & (lines[:, None] != lines[None])
        assert not near.any(), [(canvas.glyphs[a], canvas.glyphs[b]) for a, b in np.argwhere(near)[:2]]


@pytest.mark.parametrize("name", SCENES)
def test_answers_are_short_and_enough(name: str) -> None:
    for canvas in canvases(name):
        assert 2 <= len(canvas.turns) <= 5
        assert len({turn.question for turn in canvas.turns}) == len(canvas.turns)
        for turn in canvas.turns:
            assert turn.answer
            assert len(turn.answer) <= 64
            assert (turn.question + turn.answer).isascii()
            assert "{" not in turn.question
            assert turn.skill


READ = {  # skills whose answer stands in the picture
    "receipt_total", "receipt_date", "receipt_item", "receipt_shop", "receipt_tax", "invoice_number", "invoice_date",
    "invoice_due", "invoice_customer", "invoice_seller", "invoice_total", "invoice_line", "form_field", "form_title",
    "table_cell", "table_extreme", "table_head", "card_field", "sign", "chart_extreme", "chart_title", "chart_compare",
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_what_is_read_stands_in_the_picture(name: str) -> None:
    asked = 0
    for canvas in canvases(name):
        written = written_lines(canvas)
        for turn in canvas.turns:
            if turn.skill in READ:
                asked += 1
                assert any(turn.answer in line for line in (*written, " ".join(written))), (turn, written)
    assert asked or name == "screens"


def written_lines(canvas: Canvas) -> list[str]:
    lines = [""] * canvas.num_lines
    for glyph in canvas.glyphs:
        lines[glyph.line] += glyph.char
    return lines


def test_total_of_a_receipt_is_the_sum_of_what_stands_on_it() -> None:
    checked = 0
    for seed in range(40):
        canvas = draw("receipts", (384, 384), "train", seed)
        written = written_lines(canvas)
        amounts = [
            int(line.replace(",", "").replace(".", "").strip(string.ascii_uppercase + "$ "))
            for line in written
            if is_money(line)
        ]
        for turn in canvas.turns:
            if turn.skill == "receipt_total" and "Subtotal" not in written:
                checked += 1
                assert turn.answer == written[written.index(turn.answer)]
                assert sum(amounts[:-1]) == amounts[-1]
    assert checked > 3


def is_money(line: str) -> bool:
    bare = line.removeprefix("$").removeprefix("EUR ").removesuffix(" EUR").removesuffix(" USD")
    whole, point, part = bare.replace(",", "").rpartition(".")
    return bool(point) and whole.isdigit() and part.isdigit() and len(part) == 2


def test_highest_bar_is_the_one_that_is_painted_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[str], list[int], list[bool]]] = []
    ask = chart_parts.ask_values

    def spy(
        questions: common.Questions,
        material: Material,
        names: list[str],
        numbers: list[int],
        known: list[bool],
    ) -> None:
        drawn.append((names, numbers, known))
        ask(questions, material, names, numbers, known)

    monkeypatch.setattr(chart_parts, "ask_values", spy)
    checked = 0
    for seed in range(40):
        canvas = bar_charts.bar_chart(Material(random.Random(seed), "train", LEXICON), 384, 300)
        names, numbers, known = drawn[-1]
        areas = np.asarray(canvas.areas) // 16 == KINDS.index("bar")
        lengths = bar_lengths(areas)
        if len(lengths) == len(names):
            checked += 1
            assert np.argsort(lengths).tolist() == np.argsort(numbers).tolist()
            unit = max(lengths) / max(numbers)
            assert np.allclose(lengths, np.array(numbers) * unit, atol=3)
        ordered = sorted(numbers)
        assert all(b > a for a, b in pairwise(ordered))
        for turn in canvas.turns:
            if turn.skill == "chart_count":
                assert turn.answer == str(len(names))
            if turn.skill == "chart_value" and turn.answer.isdigit() and turn.answer not in names:
                assert known[numbers.index(int(turn.answer))]
    assert checked > 20


def bar_lengths(areas: np.ndarray) -> list[int]:
    """Return how long each bar is, standing ones from left to right, lying ones from the top."""
    rows = areas[np.flatnonzero(areas.any(axis=1))[-1]]
    columns = areas[:, np.flatnonzero(areas.any(axis=0))[0]]
    is_standing = np.count_nonzero(np.diff(rows.astype(int)) == 1) > np.count_nonzero(
        np.diff(columns.astype(int)) == 1
    )
    turned = areas.T if is_standing else areas
    full = turned.sum(axis=1)
    found, inside = [], False
    for length in full:
        if length and not inside:
            found.append(0)
        inside = bool(length)
        if inside:
            found[-1] = max(found[-1], int(length))
    return found


def test_shares_of_a_pie_come_to_a_hundred_and_differ() -> None:
    for seed in range(200):
        count = 2 + seed % 5
        shares = pie_charts._shares(Material(random.Random(seed), "train", LEXICON), count)
        assert sum(shares) == 100
        ordered = sorted(shares)
        assert len(shares) == count
        assert ordered[0] >= 7
        assert all(b - a >= 3 for a, b in pairwise(ordered))


def test_halves_share_nothing() -> None:
    modules = [module(name) for name in SCENES] + [chart_parts, vocabulary, language]
    halves = {name: value for m in modules for name, value in vars(m).items() if isinstance(value, Halves)}
    assert len(halves) > 60
    for name, value in halves.items():
        assert not set(value.train) & set(value.held_out), name
        assert len(set(value.held_out)) == len(value.held_out), name


def test_wordings_differ_from_split_to_split() -> None:
    asked: dict[Split, set[str]] = {"train": set(), "held_out": set()}
    for name in SCENES:
        for split in SPLITS:
            asked[split] |= {
                t.question for seed in range(5) for t in draw(name, (200, 200), split, seed).turns
            }
    assert not asked["train"] & asked["held_out"]


def test_prompts_are_many_different_and_split() -> None:
    train, held_out = (language.prompts(split) for split in SPLITS)
    assert len(train) == len(set(train)) == 4000
    assert len(held_out) > 2000
    assert not set(train) & set(held_out)
    assert train == language.prompts("train")
    assert train != language.prompts("train", seed=1)
    assert not any("{name}" in p or "{city}" in p for p in train + held_out)


def test_sheet_shows_every_picture() -> None:
    pictures: list[Picture] = [draw("signs", (160, 128), "train", seed).finish() for seed in range(5)]
    image = np.asarray(sheet.sheet(pictures, columns=3))
    assert np.array_equal(image[12:140, 12:172], pictures[0].pixels)
    assert image.shape[0] > 2 * 128
    assert np.array_equal(image, np.asarray(sheet.sheet(pictures, columns=3)))


def test_made_up_words_are_no_words_of_the_examination(tmp_path: Path) -> None:
    material = Material(random.Random(1), "train", LEXICON)
    made_up = {material.spliced_word(9).lower() for _ in range(300)}
    assert max(map(len, made_up)) <= 9
    assert len(made_up - set(LEXICON.train)) > 100
    vocabulary = {"model": {"vocab": {f"Ġ{word}": number for number, word in enumerate(made_up)}}}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(vocabulary))
    assert not Lexicon.from_tokenizer(path).held_out
