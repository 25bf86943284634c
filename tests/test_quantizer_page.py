"""The report as a page: complete in itself, escaped, and refused where libraries are missing."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from support.breaking_model import accuracy, model, samples

import graphkiln
from graphkiln.cli.quantize_command import command
from graphkiln.passes.ranges import Range
from graphkiln.quantizer import page
from graphkiln.quantizer.page import ReportError

pytest.importorskip("matplotlib")
NAME = '<script src=\'http://x\'>alert("1")</script>{{ 7 * 7 }} {"a": [1]} $x_1$ &amp;'
IMAGE = "data:image/svg+xml;base64,"


class Page(HTMLParser):
    """Tags with their attributes, and the cells of all tables as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []

    @property
    def images(self) -> list[str]:
        return [str(attrs["src"]) for tag, attrs in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def found() -> graphkiln.Quantized:
    net = model()
    net.graph.node[0].name = NAME
    ranges = {NAME: Range(0, 1)}
    return graphkiln.quantize(
        net, samples(), metric=accuracy, max_drop=0.05, method="percentile", share=0.99,
        ranges=ranges, jobs=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shown(found: graphkiln.Quantized) -> Page:
    return Page(page.page(found))


def test_everything_is_there(found: graphkiln.Quantized, shown: Page) -> None:
    assert found.score is not None and found.float_score is not None
    for told in (
        "2 static int8, 1 float", f"{found.score:.6g}, in floats {found.float_score:.6g}",
        found.source.sha256, "left for accuracy", *found.warnings,
    ):  # fmt: skip
        assert told in shown.texts
    for row in found.layers:
        assert {row["layer"], row["op"], row["scheme"]} <= set(shown.texts)
        assert f"{row['alone']:.1f}" in shown.texts
    for row in found.tensors:
        assert {row["tensor"], f"{row['high']:.4g}", f"{row['clipped']:.3%}"} <= set(shown.texts)
        assert 0.005 < row["clipped"] < 0.02
    assert len(shown.images) == 1 + len(found.tensors)


def test_names_are_text(found: graphkiln.Quantized, shown: Page) -> None:
    assert NAME in shown.texts and any("<script" in w for w in found.warnings)
    assert {tag for tag, _ in shown.tags}.isdisjoint({"script", "link", "iframe", "object"})


def test_the_page_needs_nothing_else(found: graphkiln.Quantized, shown: Page) -> None:
    for _tag, attrs in shown.tags:
        assert not any(k.startswith("on") for k in attrs)
        assert attrs.get("src", IMAGE).startswith(IMAGE) and "href" not in attrs
    assert not re.search(r"@import|url\(", page.page(found))


def test_plots_are_images_of_what_was_seen(found: graphkiln.Quantized, shown: Page) -> None:
    pictures = [base64.b64decode(i.removeprefix(IMAGE)) for i in shown.images]
    assert len(set(pictures)) == len(pictures)
    for picture in pictures:
        assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert b"<script" not in pictures[0]


def test_the_same_report_gives_the_same_page(found: graphkiln.Quantized, tmp_path: Path) -> None:
    found.save_report(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text("utf-8") == page.page(found)


def test_islands_are_there_once_the_model_is_compiled(found: graphkiln.Quantized) -> None:
    island = {"ops": ["Softmax"], "onnx": ["<b>", "c"], "reason": "it takes no <bytes>"}
    texts = Page(page.page(replace(found, islands=[island]))).texts
    assert {"Float islands", "Softmax", "<b>, c", "it takes no <bytes>"} <= set(texts)
    assert "Float islands" not in Page(page.page(found)).texts


def test_weights_only_has_no_tensors() -> None:
    shown = Page(page.page(graphkiln.quantize(model(), scheme="int8-weights", block=16, jobs=1)))
    assert "Layers" in shown.texts and "Tensors" not in shown.texts


def test_missing_libraries_are_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch, found: graphkiln.Quantized, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "_LIBRARIES", ("jinja2", "no_such_library"))
    told = r"needs no_such_library: pip install 'graphkiln\[report\]'"
    with pytest.raises(ReportError, match=told):
        found.save_report(tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []
    arguments = ["none.onnx", "-o", str(tmp_path / "m.kiln"), "--report", str(tmp_path / "r.html")]
    done = CliRunner().invoke(command, arguments)
    assert isinstance(done.exception, ReportError)
