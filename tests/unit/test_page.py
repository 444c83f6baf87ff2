"""The built report: files, page, escaping, determinism."""

import json
import os
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from magbench import reports
from magbench.records import CaseRecord, Switch
from magbench.reports.page import prompts
from magbench.store import RunStore
from tests.synthetic_run import HOSTILE, make_run, make_sweep, run_record, sweep_record


class Page(HTMLParser):
    """Collects elements, and refuses unbalanced ones."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "hr", "line", "path", "use", "rect", "circle"})

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    keep = pytest.MonkeyPatch()
    keep.setattr(os, "fsync", lambda descriptor: None)
    yield make_run(tmp_path_factory.mktemp("run"), cases=3)
    keep.undo()


@pytest.fixture(scope="module")
def built(store):
    return reports.build(store)


@pytest.fixture(scope="module")
def page(built):
    return Page(built["report.html"].read_text(encoding="utf-8"))


def test_everything_is_written_where_it_says(store, built):
    assert list(built)[-1] == "report.html"
    assert all(path == store.root / name and path.stat().st_size for name, path in built.items())
    assert {"results.json", "efficiency.json", "tables/mag-bench.tex", "tables/long-horizon.md", "tables/samples.csv",
            "plots/long-horizon.svg", "plots/mag-bench.png", "plots/mag-bench.cost.svg"} <= set(built)  # fmt: skip


def test_building_again_gives_the_same_bytes(store, built):
    before = {name: path.read_bytes() for name, path in built.items()}
    again = reports.build(RunStore.open(store.root))
    assert {name: path.read_bytes() for name, path in again.items()} == before


def test_results_are_strict_json_about_quality_alone(built):
    def refuse(name):
        raise AssertionError(name)

    results = json.loads(built["results.json"].read_text(), parse_constant=refuse)
    text = built["results.json"].read_text()
    assert not any(word in text for word in ("efficiency", "2026-01-02", "an ordinary one", "fps", "past_peak"))
    row = next(r for r in results["tracks"]["long-horizon"]["rows"] if r["label"] == "memrope")
    assert row["cells"]["appearance_drift@default/end"]["state"] == "value"
    efficiency = json.loads(built["efficiency.json"].read_text(), parse_constant=refuse)
    assert efficiency["tracks"]["long-horizon"]["full"]["cost"]["past_frames"] == {"peak": 117, "mean": 58.5}
    assert "efficiency@default/fps" in efficiency["tracks"]["long-horizon"]["full"]["cells"]


def test_hostile_prompt_is_text(page, built):
    assert len(page.all("script")) == 1
    assert HOSTILE in "".join(page.words)
    assert not page.open


def test_a_schedule_is_told_and_is_text():
    case = CaseRecord(id="a", track="long-horizon", prompt="one", frames=30, schedule=({"at": 1.5, "prompt": HOSTILE},))
    assert prompts(case) == f"one · from 1.5 s: {HOSTILE}"
    cut = case.model_copy(update={"schedule": (Switch(at=2, prompt="two", cut=True),)})
    assert prompts(cut) == "one · cut at 2 s: two"


def test_page_is_offline_and_every_link_leads_somewhere(store, page):
    links = [a.get("src") or a.get("href") or a.get("xlink:href") for _, a in page.found]
    ids = {a["id"] for _, a in page.found if "id" in a}
    for link in filter(None, links):
        assert "://" not in link
        if link.startswith("#"):
            assert link[1:] in ids, link
        else:
            assert (store.root / unquote(link)).is_file(), link


def test_ids_are_unique(page):
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(ids) == len(set(ids))


def test_videos_wait_to_be_looked_at(page):
    videos = page.all("video")
    assert len(videos) == 2 * 3 * 5 - 3
    assert all(v["preload"] == "none" and "muted" in v for v in videos)
    assert all(i["loading"] == "lazy" for i in page.all("img"))


def test_failures_missing_weights_and_limits_are_on_the_page(page):
    text = " ".join("".join(page.words).split())
    assert "no evidence about Wan" in text
    assert "weights fetch lpips" in text
    assert "not applicable: history is longer than the trained span" in text
    assert "Does it still know what it saw?" in text


def test_incomplete_run_says_how_to_continue(store, tmp_path):
    other = RunStore.create(tmp_path, run_record(status="interrupted", command="magbench run --out 'x y'"))
    text = "".join(Page(reports.build(other)["report.html"].read_text()).words)
    assert "This run is interrupted." in text
    assert "magbench run --out 'x y'" in text


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    keep = pytest.MonkeyPatch()
    keep.setattr(os, "fsync", lambda descriptor: None)
    yield reports.build(make_run(tmp_path_factory.mktemp("sweep"), run=sweep_record(), made=make_sweep(cases=2)))
    keep.undo()


def test_a_sweep_is_drawn_and_its_players_stay_few(swept):
    page = Page(swept["report.html"].read_text(encoding="utf-8"))
    text = " ".join("".join(page.words).split())
    assert {"plots/budget-long-horizon.svg", "plots/budget-long-horizon.png"} <= set(swept)
    assert "By budget" in text and "not drawn: mag:budget=2: mag can't use a budget of 2 frames." in text
    assert "of each method one budget is shown: 9 past frames, or where it has no video there, its own" in text
    assert len(page.all("video")) == 2 * 5
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert "fifo:window=21" in swept["tables/curves.csv"].read_text()
    assert "fifo:window=21" not in swept["plots/long-horizon.svg"].read_text()


def test_samples_without_a_video_are_told_once_per_reason(swept):
    page = Page(swept["report.html"].read_text(encoding="utf-8"))
    text = " ".join("".join(page.words).split())
    said = "not applicable: mag can't use a budget of 2 frames. (lon-00, seed 0; lon-01, seed 0)"
    assert text.count(said) == 1


def test_no_sweep_no_plot_by_budget(built):
    assert not any("budget" in name for name in built)
    assert "By budget" not in built["report.html"].read_text()


def test_given_history_is_marked_on_the_seek_bar(page):
    widths = [a["style"] for a in page.all("i")]
    assert widths[0] == "width: 63.64%"
    assert len(widths) == 3
