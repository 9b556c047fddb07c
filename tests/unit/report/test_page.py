import base64
import copy
import hashlib
import html.parser
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import studies
from ssl_framework import report
from ssl_framework.metrics import budget_in_words
from ssl_framework.report import style
from ssl_framework.report.page import charts, page
from ssl_framework.report.page.check import png_size
from ssl_framework.report.page.markup import Html, escape, tag

VOID = {"meta", "img", "br", "link", "input"}


class Node:
    def __init__(self, name, attributes, parent):
        self.name, self.attributes, self.parent, self.children = name, attributes, parent, []

    def find(self, name=None, **attributes):
        """All nodes below, in order, of this name and with these attributes."""
        for child in self.children:
            if isinstance(child, Node):
                if name in (None, child.name) and all(child.attributes.get(k.rstrip("_")) == v for k, v in attributes.items()):
                    yield child
                yield from child.find(name, **attributes)

    def text(self):
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)


class Tree(html.parser.HTMLParser):
    """Reads HTML strictly: each element closed where it belongs, no attribute twice."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.root = self.node = Node("root", {}, None)
        self.feed(text)
        self.close()
        assert self.node is self.root, f"<{self.node.name}> is never closed"

    def handle_starttag(self, name, attributes):
        assert len({key for key, _ in attributes}) == len(attributes), attributes
        made = Node(name, dict(attributes), self.node)
        self.node.children.append(made)
        if name not in VOID:
            self.node = made

    def handle_endtag(self, name):
        assert self.node.name == name, f"</{name}> closes <{self.node.name}>"
        self.node = self.node.parent

    def handle_data(self, data):
        self.node.children.append(data)

    def error(self, message):
        raise AssertionError(message)


def text_of(study, folder):
    return report.write_page(study, folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole():
    return studies.study(seeds=5, points=1000)


@pytest.fixture
def small():
    """A whole study that a test may change: all parts, few points."""
    return copy.deepcopy(_small())


def _small(cache=[]):  # noqa: B006  (made once)
    if not cache:
        cache.append(studies.study(seeds=2, points=40))
    return cache[0]


@pytest.fixture(scope="module")
def written(whole, tmp_path_factory):
    return text_of(whole, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def compared(whole, tmp_path_factory):
    other = copy.deepcopy(whole) | {"title": "Clothes"}
    other["verdicts"][0] |= {"verdict": "hurts", "gain": [-0.02, -0.03, -0.01]}
    path = report.write_comparison([whole, other], tmp_path_factory.mktemp("page") / "comparison.html")
    return path.read_text(encoding="utf-8")


def test_a_page_asks_and_a_comparison_names_its_studies(whole, written, compared):
    question = f"Does transfer pay? {whole['title']}"
    assert written.count(question) >= 2  # the window and the heading
    assert whole["title"] in compared
    assert "Does transfer pay?" not in compared


@pytest.fixture(params=["page", "comparison"])
def text(request):
    return request.getfixturevalue("written" if request.param == "page" else "compared")


def test_the_page_is_well_formed(text):
    tree = Tree(text).root
    assert text.startswith("<!doctype html>\n<html lang=")
    ids = [node.attributes["id"] for node in tree.find() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    known = set(ids)
    for node in tree.find():
        for key in ("aria-labelledby", "aria-describedby"):
            assert set(node.attributes.get(key, "").split()) <= known
        if node.attributes.get("href", "").startswith("#"):
            assert node.attributes["href"][1:] in known


def test_nothing_is_loaded_from_elsewhere(text):
    assert not re.search(r"https?://|url\(|@import|\beval\b|<link|<iframe|<object|<base", text)
    for node in Tree(text).root.find():
        for key, value in node.attributes.items():
            assert not key.startswith("on"), (node.name, key)
            if key in {"src", "href", "xlink:href", "srcset", "action", "poster", "data", "background"}:
                assert value.startswith(("#", "data:image/")), (node.name, key, value[:50])


def test_the_policy_allows_the_one_script_and_nothing_else(text):
    tree = Tree(text).root
    (policy,) = (m.attributes["content"] for m in tree.find("meta") if "http-equiv" in m.attributes)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = tree.find("script")
    digest = base64.b64encode(hashlib.sha256(script.text().encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    head = next(tree.find("head")).children
    assert [node.name for node in head[:2]] == ["meta", "meta"], "the policy stands before all that it rules"


HOSTILE = '<script>alert("1")</script>&amp;\'"><img src=x onerror=alert(1)>\u202e\x00\ud800'


KEPT = {"verdict", "data", "image", "budget", "measure", "censored"}


def hostile(value):
    """The study with every string hostile that may be any string."""
    if isinstance(value, dict):
        return {key: hostile(item) if key not in KEPT else item for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hostile(item) for item in value]
    return HOSTILE + value if isinstance(value, str) and not value.startswith("data:") else value


def test_hostile_names_are_shown_as_they_are(small, tmp_path):
    small = hostile(small)
    small["scratch"] = HOSTILE + "scratch"
    for key in ("robustness", "training", "environment"):
        small[key] = {HOSTILE + name: value for name, value in small[key].items()}
    for measured in small["robustness"].values():
        measured["corruptions"] = {HOSTILE + name: value for name, value in measured["corruptions"].items()}
    written = [text_of(small, tmp_path), report.write_comparison([small], tmp_path / "c.html").read_text(encoding="utf-8")]
    for text in written:
        tree = Tree(text).root
        assert len(list(tree.find("script"))) == 1
        assert not [node for node in tree.find() if "onerror" in node.attributes]
        assert all(node.attributes.get("src", "data:").startswith("data:") for node in tree.find("img"))
        assert HOSTILE[:60] in next(tree.find("h1")).text() + next(tree.find("table")).text()
        assert "\x00" not in text


def test_what_is_not_markup_is_escaped():
    assert (
        tag("p", "<b>", Html("<i></i>"), title='"x" & <y>') == '<p title="&quot;x&quot; &amp; &lt;y&gt;">&lt;b&gt;<i></i></p>'
    )
    assert tag("a", data_tip=None, hidden=True, x=1.25, y=3.0) == '<a hidden x="1.2" y="3"></a>'
    assert escape("a\x00b\ud800c") == "a\ufffdb\ufffdc"
    assert escape(None) == ""


SECTIONS = {
    "depth": "depth",
    "robustness": "robustness",
    "map": "map",
    "neighbours": "neighbours",
    "attention": "attention",
    "training": "training",
    "views": "views",
    "limits": "limits",
    "verdicts": "verdicts",
}
ORDER = [
    *("labels", "verdicts", "grid", "speed", "depth", "robustness", "map", "neighbours", "attention", "training", "views"),
    *("again", "glossary", "limits"),
]


def sections(text):
    return [node.attributes["id"] for node in Tree(text).root.find("section")]


def contents(text):
    return [link.attributes["href"][1:] for link in next(Tree(text).root.find("nav")).find("a")]


def test_sections_stand_in_order_and_in_the_contents(written):
    assert sections(written) == contents(written) == ORDER


@pytest.mark.parametrize("part", SECTIONS)
@pytest.mark.parametrize("how", ["absent", "None", "empty"])
def test_a_missing_part_leaves_its_section_out(part, how, small, tmp_path):
    if part == "map":  # whose thumbnails others show
        small.pop("neighbours")
        small.pop("views")
    whole = sections(text_of(small, tmp_path))
    if how == "absent" and part != "verdicts":
        small.pop(part)
    elif how == "None" and part != "verdicts":
        small[part] = None
    elif part == "map":
        small[part]["points"] = []
    elif part == "depth":
        small.pop(part)
    else:
        small[part] = type(small[part])()
    text = text_of(small, tmp_path)
    assert sections(text) == contents(text) == [name for name in whole if name != SECTIONS[part]]


def test_the_least_study_makes_a_page(tmp_path):
    row = {"method": "scratch", "budget": 1, "labels": 10, "seed": 0, "accuracy": 0.5}
    text = text_of({"title": "t", "sentence": "s", "verdicts": [], "rows": [row]}, tmp_path)
    assert sections(text) == ["labels", "grid", "glossary"]
    Tree(text)


def test_speed_and_commands_need_one_of_their_parts(small, tmp_path):
    del small["speed"]
    del small["commands"]
    assert {"speed", "again"} <= set(sections(text_of(small, tmp_path)))
    del small["pays_after_tasks"]
    del small["environment"]
    assert not {"speed", "again"} & set(sections(text_of(small, tmp_path)))


def cells(table):
    """Lines of a table as texts."""
    return [[cell.text() for cell in row.children if isinstance(cell, Node)] for row in table.find("tr")]


def test_the_grid_says_the_numbers_of_the_rows(written, whole):
    table = next(Tree(written).root.find("table", class_="grid-table"))
    head, *body = cells(table)
    assert head == [
        "Method",
        *(f"{b} label{'s' if b != 1 else ''}/class, {studies.LABELS[b]} in all" for b in (1, 4, 10)),
        "all labels, 1,150 in all",
    ]
    for (method, *line), name in zip(body, studies.METHODS, strict=True):
        assert method == name
        for shown, budget in zip(line, studies.BUDGETS, strict=True):
            values = [r["accuracy"] for r in whole["rows"] if (r["method"], r["budget"]) == (name, budget) and "na" not in r]
            if not values:
                assert shown == "n/a1"
                continue
            mean, half = re.match(r"([\d.]+) ± ([\d.]+)", shown).groups()
            assert float(mean) == pytest.approx(100 * np.mean(values), abs=0.0501)
            low, high = stats.t.interval(0.95, len(values) - 1, loc=0, scale=stats.sem(values))
            assert float(half) == pytest.approx(100 * (high - low) / 2, abs=0.0501)
            assert ("★" in shown) == (name == "fine-tune")
            assert ("stale" in shown) == (name == "low-rank" and budget == 4)
    (reason,) = next(Tree(written).root.find("ol", class_="notes")).find("li")
    assert reason.text() == "fewer labels than the layers that would learn"
    (missing,) = (cell for cell in table.find("td") if cell.text() == "n/a1")
    assert "fewer labels" in missing.attributes["title"]
    assert missing.attributes["tabindex"] == "0"


def number(text):
    return float(text.replace("−", "-").replace("+", "").replace(",", ""))


def test_the_verdicts_say_the_gains(written, whole):
    table = next(next(Tree(written).root.find("section", id="verdicts")).find("table"))
    for line, verdict in zip(cells(table)[1:], whole["verdicts"], strict=True):
        shown = [number(word) for word in re.findall(r"[−+][\d.]+", line[3])]
        assert shown == pytest.approx([100 * value for value in verdict["gain"]], abs=0.0501)
        assert verdict["verdict"] in line[1]
        assert line[2] == verdict["method"]
        assert line[4] == ("< 0.001" if verdict["p_holm"] < 0.001 else str(verdict["p_holm"]))
        assert line[5] == verdict["sentence"]


def test_the_answer_stands_first_with_three_numbers(written, whole):
    header = next(Tree(written).root.find("header"))
    assert next(header.find("h1")).text() == whole["sentence"]
    tiles = [tile.text() for tile in next(header.find("ul", class_="tiles")).find("li")]
    assert len(tiles) == 3
    assert tiles[0].startswith("+28.1 points")
    assert "(95 % interval +21.4 to +34.8)" in tiles[0]
    assert tiles[1] == "5.3×With pretraining, 10 labels do the work of about 53 from scratch (95 % interval 39 to 71)."
    assert tiles[2].startswith("4 tasks")
    assert "3 min 7 s" in tiles[2]
    answers = [item.text() for item in next(header.find("ul", class_="answers")).find("li")]
    words = [budget_in_words(verdict["budget"]) for verdict in sorted(whole["verdicts"], key=lambda one: one["labels"])]
    assert answers == [f"{word} {sign}" for word, sign in zip(words, [*["✓ pays"] * 3, "? no evidence"], strict=True)]


def test_only_the_first_sentence_is_the_heading(small, tmp_path):
    small["sentence"] = "Transfer pays at 2.5 % of the labels. At 1 label a class, it does not."
    header = next(Tree(text_of(small, tmp_path)).root.find("header"))
    assert next(header.find("h1")).text() == "Transfer pays at 2.5 % of the labels."
    assert next(header.find("p", class_="lead")).text() == "At 1 label a class, it does not."


def test_more_than_was_measured_is_no_factor(small, tmp_path):
    """ "More than once as many labels" says nothing; that the measured labels did not suffice does."""
    small["label_efficiency"][0]["ratio"] = {"value": 1.0, "censored": "above"}
    tiles = [tile.text() for tile in next(Tree(text_of(small, tmp_path)).root.find("ul", class_="tiles")).find("li")]
    assert tiles[1].startswith(f"> {small['label_efficiency'][0]['labels']} labels")


def test_time_that_is_not_shown_to_be_won_back_is_said_so(small, tmp_path):
    small["pays_after_tasks"] = None
    small["label_efficiency"][0]["ratio"] = {"value": 0.4, "censored": "below"}
    tiles = [tile.text() for tile in next(Tree(text_of(small, tmp_path)).root.find("ul", class_="tiles")).find("li")]
    assert tiles[1].startswith("< 0.40×")
    assert "fewer than 4 from scratch" in tiles[1]
    assert tiles[2].startswith("not shown")


def test_marks_of_the_chart_lie_where_their_numbers_are(written, whole):
    """The accuracy of each mark is read back from its place between two grid lines."""
    (chart,) = (
        c
        for c in next(Tree(written).root.find("section", id="labels")).find("svg")
        if c.attributes.get("viewbox") == "0 0 760 400"
    )
    ticks = {t.text(): float(t.attributes["y"]) - 4 for t in chart.find("text", class_="tick right")}
    (low, at_low), (high, at_high) = [(float(name), y) for name, y in ticks.items()][:: len(ticks) - 1]
    places = {t.text(): float(t.attributes["x"]) for t in chart.find("text", class_="tick middle")}
    seen = 0
    for mark in chart.find("use"):
        if "data-tip" not in mark.attributes:
            continue
        method, labels, said = re.match(r"(.*), ([\d,]+) labels?: ([\d.]+)", mark.attributes["data-tip"]).groups()
        budget = next(b for b, n in studies.LABELS.items() if f"{n:,}" == labels)
        mean = 100 * np.mean([r["accuracy"] for r in whole["rows"] if (r["method"], r["budget"]) == (method, budget)])
        y = float(mark.attributes["y"])
        read = low + (y - at_low) / (at_high - at_low) * (high - low)
        assert read == pytest.approx(mean, abs=0.05)
        assert float(said) == pytest.approx(mean, abs=0.0501)
        assert float(mark.attributes["x"]) == pytest.approx(places[labels], abs=0.11)
        seen += 1
    assert seen == 8 * 4 - 1
    x = np.array([places[f"{n:,}"] for n in studies.LABELS.values()])
    logs = np.log([*studies.LABELS.values()])
    assert np.diff(x) / np.diff(logs) == pytest.approx(np.full(3, (x[3] - x[0]) / (logs[3] - logs[0])), rel=0.01)


def test_bands_are_t_intervals(written, whole):
    (chart,) = (
        c
        for c in next(Tree(written).root.find("section", id="labels")).find("svg")
        if c.attributes.get("viewbox") == "0 0 760 400"
    )
    ticks = {float(t.text()): float(t.attributes["y"]) - 4 for t in chart.find("text", class_="tick right")}
    (low, at_low), (high, at_high) = [*ticks.items()][:: len(ticks) - 1]
    (group,) = chart.find("g", class_="series", **{"data-line": "scratch"})
    (band,) = group.find("path", class_="band strong")
    corners = [float(pair.split()[1]) for pair in band.attributes["d"].strip("MZ").split("L")]
    read = [low + (y - at_low) / (at_high - at_low) * (high - low) for y in corners]
    values = [[r["accuracy"] for r in whole["rows"] if (r["method"], r["budget"]) == ("scratch", b)] for b in studies.BUDGETS]
    ends = [stats.t.interval(0.95, len(v) - 1, loc=np.mean(v), scale=stats.sem(v)) for v in values]
    expected = [100 * high for _, high in ends] + [100 * low for low, _ in reversed(ends)]
    assert read == pytest.approx(expected, abs=0.05)


def hard(**changes):
    """As `ssl_framework.commands.story` gives it: a sweep holds what the clean images gave, at 0."""
    plain = {
        "clean": 0.7,
        "corruptions": {"fog": [0.6] * 5, "snow": [0.5] * 5},
        "fgsm": {"0": 0.7, "0.007843": 0.6, "0.03137": 0.4},
        "pgd": {"0": 0.7, "0.007843": 0.5, "0.03137": 0.1},
        "noise": {"0": 0.7, "0.007843": 0.69, "0.03137": 0.68},
        "label_noise": {"0.0": 0.7, "0.2": 0.6},
        "ece": 0.1,
        "ood_auroc": 0.9,
        "gradient_share": 0.98,
    }
    return {**plain, **changes}


def test_robustness_says_where_pretraining_does_not_help(small, tmp_path):
    better = hard(
        clean=0.8,
        corruptions={"fog": [0.56] * 5, "snow": [0.505] * 5},
        fgsm={"0": 0.8, "0.007843": 0.7, "0.03137": 0.45},
        pgd={"0": 0.8, "0.007843": 0.4, "0.03137": 0.2},
        label_noise={"0.0": 0.8, "0.2": 0.59},
        ece=0.05,
        ood_auroc=0.8,
    )
    small["robustness"] = {"scratch": hard(), "tuned": better}
    small["robustness_note"] = "After learning from 40 labels."
    section = next(Tree(text_of(small, tmp_path)).root.find("section", id="robustness"))
    said = next(section.find("li")).text()
    # clean, one-step at both sizes, many-step at the larger, calibration
    assert "better than scratch on 5 of 10 measures" in said
    assert "Worse: fog (−4.0 points), many-step attack of 2/255 (−10.0 points), 20% wrong labels (−1.0 points) and" in said
    assert "noticing unknown images (−0.10)" in said
    assert "No difference of a point: snow" in said
    summary, attacks, heat = (cells(table) for table in section.find("table"))
    assert summary[1:] == [["scratch", "70.0", "55.0", "10.0", "0.900"], ["tuned", "80.0", "53.2", "5.0", "0.800"]]
    assert attacks == [
        ["Method", "FGSM 2/255", "FGSM 8/255", "PGD 2/255", "PGD 8/255", "20% wrong labels"],
        ["scratch", "60.0", "40.0", "50.0", "10.0", "60.0"],
        ["tuned", "70.0", "45.0", "40.0", "20.0", "59.0"],
    ]
    assert heat == [["Corruption", "scratch", "tuned"], ["fog", "60.0", "56.0"], ["snow", "50.0", "50.5"]]
    assert "After learning from 40 labels." in section.text()
    ticks = {mark.text() for mark in section.find("text", class_="tick middle")}
    assert {"0", "2/255", "8/255", "20%"} <= ticks


def test_attacks_that_show_too_little_are_doubted(small, tmp_path):
    small["robustness"] = {"scratch": hard(), "tuned": hard(gradient_share=0.4, pgd={"0.03137": 0.6})}
    section = next(Tree(text_of(small, tmp_path)).root.find("section", id="robustness")).text()
    assert "only 40% of images had a gradient to attack by" in section
    assert "did less harm than the one-step attack at 8/255" in section
    small["robustness"] = {"scratch": hard(), "tuned": hard()}
    section = next(Tree(text_of(small, tmp_path)).root.find("section", id="robustness")).text()
    assert "gradient to attack" not in section
    assert "did less harm" not in section


def test_nothing_pretrained_on_harder_images_is_said_so(small, tmp_path):
    small["robustness"] = {"scratch": hard()}
    section = next(Tree(text_of(small, tmp_path)).root.find("section", id="robustness"))
    assert "No pretrained method was measured on harder images, scratch alone." in section.text()


def test_what_is_not_decided_has_no_big_number(small, tmp_path):
    """A gain over scratch that something simpler has as well would be read as the answer."""
    small["verdicts"][0] |= {"verdict": "no evidence", "rival": "raw_pixels"}
    root = Tree(text_of(small, tmp_path)).root
    decided = [one for one in small["verdicts"] if one["verdict"] in ("pays", "hurts")]
    answers = [item.text() for item in next(root.find("ul", class_="answers")).find("li")]
    assert answers[0].endswith("? beats scratch, not every simpler way")
    tiles = [tile.text() for lists in root.find("ul", class_="tiles") for tile in lists.find("li")]
    first = min(decided, key=lambda one: one["labels"]) if decided else None
    assert [tile for tile in tiles if "points" in tile] == (
        [] if first is None else [tile for tile in tiles if f"with {budget_in_words(first['budget'])}" in tile]
    )
    for one in small["verdicts"]:
        one["verdict"] = "no evidence"
    tiles = [
        tile.text() for lists in Tree(text_of(small, tmp_path)).root.find("ul", class_="tiles") for tile in lists.find("li")
    ]
    assert not any("points" in tile or "labels do the work" in tile for tile in tiles)


def test_what_was_not_judged_did_not_fail_to_pay(small, tmp_path):
    other = copy.deepcopy(small)
    for one in other["verdicts"]:
        one["verdict"] = "not judged"
    path = report.write_comparison([small, other], tmp_path / "c.html")
    judged = len(small["verdicts"])
    paid = sum(one["verdict"] == "pays" for one in small["verdicts"])
    title = next(Tree(path.read_text()).root.find("h1")).text()
    assert title.startswith(f"Pretraining paid in {paid} of {judged} comparison")
    assert title.endswith(f"; {judged} could not be judged.")


def test_large_views_and_attention_make_no_large_page(small, tmp_path):
    """As the command makes them of photographs of 224 pixels: reduced, and in few colours."""
    noise = torch.randint(0, 256, (8, 3, 96, 192), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    large = torch.randint(0, 256, (3, 224, 224), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    shrunk = report.picture(large, side=96, colours=64)
    assert png_size(shrunk) == (96, 96)
    assert len(shrunk) < 12_000 < len(report.picture(large)) / 10
    small["attention"] = [{"image": report.picture(pair, colours=64), "caption": "noise"} for pair in noise]
    small["views"] = [{"original": shrunk, "views": [shrunk] * 6}] * 5
    assert len(text_of(small, tmp_path).encode()) < 900_000


def test_every_run_is_listed_with_its_command(written, whole):
    table = next(Tree(written).root.find("table", class_="runs"))
    lines = cells(table)[1:]
    assert len(lines) == len(whole["rows"])
    for line, row in zip(lines, whole["rows"], strict=True):
        assert line[0] == row["method"]
        assert line[3] == ("n/a" if "na" in row else f"{100 * row['accuracy']:.2f}")
        assert line[8] == row.get("command", "")
    shown = [code.text() for code in next(Tree(written).root.find("section", id="again")).find("code")]
    assert shown[:2] == whole["commands"]


def test_the_comparison_shows_each_study(compared):
    tree = Tree(compared).root
    assert next(tree.find("h1")).text() == "Pretraining paid in 5 of 8 comparisons and hurt in 1."
    verdicts, *grids = (cells(table) for table in tree.find("table"))
    assert [line[0] for line in verdicts] == ["Study", "Handwritten digits, SimCLR on a micro ResNet", "Clothes"]
    assert verdicts[2][1] == "✗ hurts−2.0 (−3.0 to −1.0)fine-tune"
    assert len(grids) == 2
    for chart in next(tree.find("section", id="curves")).find("svg", role="group"):
        names = [group.attributes["data-line"] for group in chart.find("g", class_="series")]
        assert sorted(names) == ["chosen", "scratch"]
    with pytest.raises(ValueError, match="at least one study"):
        report.write_comparison([], "x.html")


@pytest.mark.parametrize("tone", [0, 1], ids=["light", "dark"])
def test_text_is_readable_in_both_themes(text, tone):
    colours = {name: pair[tone] for name, *pair in re.findall(r"--([\w-]+):\s*light-dark\((#\w{6}),\s*(#\w{6})\)", text)}
    pairs = [
        *(("ink", panel) for panel in ("paper", "panel")),
        *(("muted", panel) for panel in ("paper", "panel")),
        *(("link", "paper"), ("paper", "ink"), ("note", "paper")),
        *((kind, f"{kind}-panel") for kind in ("yes", "open", "no", "note")),
    ]
    for front, back in pairs:
        assert contrast(colours[front], colours[back]) >= 4.5, (front, back)
    for shade in range(6):  # .heat mixes nine per cent a shade
        mixed = [
            0.09 * shade * a + (1 - 0.09 * shade) * b for a, b in zip(rgb(colours["heat"]), rgb(colours["paper"]), strict=True)
        ]
        assert contrast(colours["ink"], mixed) >= 4.5
    used = set(re.findall(r"var\(--([\w-]+)\)", text)) - {"c", "h"}
    assert used <= colours.keys()
    assert all(contrast(colours[f"s{n}"], colours["paper"]) >= 3 for n in range(10))


def rgb(colour):
    return [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)] if isinstance(colour, str) else colour


def contrast(a, b):
    """WCAG 2.2, definitions of contrast ratio and relative luminance."""
    lights = [
        sum(
            w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for w, c in zip((0.2126, 0.7152, 0.0722), rgb(x), strict=True)
        )
        for x in (a, b)
    ]
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_headings_are_in_order(text):
    levels = [int(node.name[1]) for node in Tree(text).root.find() if re.fullmatch("h[1-6]", node.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_and_tables_have_names(text):
    tree = Tree(text).root
    assert next(tree.find("html")).attributes["lang"] == "en"
    for image in tree.find("img"):
        assert image.attributes["alt"].strip()
    for drawing in tree.find("svg"):
        title = next(drawing.find("title"), None)
        assert drawing.attributes.get("aria-hidden") == "true" or title.text().strip()
        if "data-hover" in drawing.attributes:
            assert next(drawing.find("desc")).text().strip()
    for table in tree.find("table"):
        assert table.children[0].name == "caption"
        assert table.children[0].text().strip()
        assert all(cell.attributes["scope"] in {"row", "col"} for cell in table.find("th"))
    for mark in tree.find("use"):
        assert ("data-tip" in mark.attributes) == ("aria-label" in mark.attributes)
    for button in tree.find("button"):
        assert button.text().strip()
        assert button.attributes["type"] == "button"


def test_paper_and_still_eyes_are_thought_of(text):
    (sheet,) = (node.text() for node in Tree(text).root.find("style"))
    printed = sheet[sheet.index("@media print") :]
    assert "color-scheme: light" in printed
    assert re.search(r"nav[^{}]*\{ display: none; \}", printed)
    assert re.search(r"\.narrow \{ display: none; \}", printed)
    assert "prefers-reduced-motion" in sheet


def test_a_whole_study_is_under_a_megabyte(whole, written, tmp_path):
    assert len(written.encode()) < 1_000_000
    assert len(whole["rows"]) > 8 * 4 * 5 - 10
    noise = torch.randint(0, 256, (1000, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    worst = copy.deepcopy(whole)
    worst["map"]["thumbnails"] = report.sprite(noise)._asdict()
    assert report.write_page(worst, tmp_path / "worst.html").stat().st_size < 1_000_000


def test_the_same_study_gives_the_same_bytes_and_json_changes_nothing(small, tmp_path):
    first = text_of(small, tmp_path)
    assert text_of(json.loads(json.dumps(small)), tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_writing_is_whole_or_not_at_all(small, tmp_path, monkeypatch):
    before = text_of(small, tmp_path)

    def torn(self, text, **options):
        self.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", torn)
    with pytest.raises(OSError, match="disk full"):
        report.write_page(small, tmp_path / "page.html")
    monkeypatch.undo()
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == before


def put(study, place, value):
    *path, last = place
    for key in path:
        study = study[key]
    study[last] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            ("verdicts", 1, "verdict"),
            "maybe",
            r"study\['verdicts'\]\[1\]\['verdict'\] is 'maybe': give 'pays' or 'no evidence' or 'hurts'",
        ),
        (("verdicts", 0, "gain"), [0.1, float("nan"), 0.2], r"\['gain'\]\[1\] is nan: a page shows finite numbers only"),
        (("verdicts", 0, "gain"), [0.1, 0.2], "has 2 values: give 3"),
        (("verdicts", 0, "p_holm"), float("inf"), "is inf"),
        (("verdicts", 0, "budget"), 1.5, "give a whole number or a string"),
        (("rows", 3, "accuracy"), float("nan"), r"study\['rows'\]\[3\]\['accuracy'\] is nan"),
        (("rows", 3, "accuracy"), 71.0, r"is 71.0: give a share in \[0, 1\], not per cent"),
        (("rows", 3, "accuracy"), "0.7", "is '0.7', a str: give a number"),
        (("rows", 3, "labels"), 0, "give the number of labels"),
        (("rows", 3, "seed"), True, "a bool: give a whole number"),
        (("rows",), [], "holds no accuracy: run the study first"),
        (("title",), 3, "give a string"),
        (("rows",), "many", "is a str: give a list"),
        (("robustness", "scratch"), [], "give a dict"),
        (("robustness", "scratch", "corruptions", "fog"), [0.5], "has 1 accuracies: give 5"),
        (("robustness", "scratch", "fgsm"), {"strong": 0.5}, "key 'strong', is 'strong', a str: give a number"),
        (("robustness", "scratch", "ece"), 7.0, "not per cent"),
        (("depth", "chosen"), 6, "keeps layer 6"),
        (("depth", "mean"), [], "0 means"),
        (("map", "points", 0), [0.0, 0.0, 10, 0], "is of class 10: there are 10 classes, from 0"),
        (("map", "points", 0), [0.0, 0.0, 1, 49], r"thumbnail 49: study\['map'\]\['thumbnails'\] holds 42"),
        (("map", "thumbnails", "columns"), 3, "not 3 columns of 8 pixels"),
        (("map", "thumbnails", "data"), "data:image/png;base64,AAAA", "is no PNG"),
        (("neighbours", 0, "query"), "http://example.org/a.png", "a page loads nothing"),
        (("neighbours", 0, "right"), [True], "6 answers and 1 of 'right'"),
        (("attention", 0, "image"), "javascript:alert(1)", "a page loads nothing"),
        (("training", "train/loss"), [[1, float("-inf")]], "is -inf"),
        (("colour",), "red", "'colour', which no section shows"),
    ],
)
def test_what_cannot_be_shown_is_named_with_its_place(place, value, message, small, tmp_path):
    put(small, place, value)
    with pytest.raises(ValueError, match=message):
        report.write_page(small, tmp_path / "page.html")
    with pytest.raises(ValueError, match="study 2 of 2: "):
        report.write_comparison([_small(), small], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "key"), [("rows", "accuracy"), ("rows", "seed"), ("rows", "labels"), ("rows", "method"), ("verdicts", "gain")]
)
def test_what_is_missing_is_named(part, key, small, tmp_path):
    del small[part][0][key]
    with pytest.raises(ValueError, match=rf"study\['{part}'\]\[0\].* has no '{key}'"):
        report.write_page(small, tmp_path / "page.html")


def test_two_rows_for_one_run_are_refused(small, tmp_path):
    small["rows"].append(dict(small["rows"][0]))
    with pytest.raises(ValueError, match="two rows for 'scratch'"):
        report.write_page(small, tmp_path / "page.html")


def png(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_sprite_holds_each_image_at_its_place(channels):
    images = torch.randint(0, 256, (7, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data, columns, size = report.sprite(images)
    sheet = png(data)
    assert (columns, size, sheet.shape) == (3, 8, (24, 24, 3))
    for n, image in enumerate(images):
        line, column = divmod(n, columns)
        expected = image[:3] if channels >= 3 else image[:1].expand(3, -1, -1)
        assert np.array_equal(sheet[8 * line : 8 * line + 8, 8 * column : 8 * column + 8], expected.permute(1, 2, 0))


def test_large_images_keep_their_proportions():
    images = torch.full((2, 3, 40, 80), 200, dtype=torch.uint8)
    data, columns, size = report.sprite(images)
    assert (columns, size) == (2, 32)
    sheet = png(data)
    assert (sheet[:8] == 0).all()
    assert (sheet[8:24] == 200).all()
    assert (sheet[24:] == 0).all()


def test_a_sprite_that_is_too_large_gets_fewer_colours_then_fewer_pixels():
    noise = torch.randint(0, 256, (100, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole, fewer, least = (report.sprite(noise, most_bytes=n) for n in (400_000, 100_000, 10_000))
    assert (whole.size, fewer.size, least.size) == (32, 32, 12)
    assert len(base64.b64decode(fewer.data.partition(",")[2])) <= 100_000
    assert len(np.unique(png(fewer.data).reshape(-1, 3), axis=0)) <= 256


def test_a_sprite_wants_images():
    with pytest.raises(ValueError, match="uint8"):
        report.sprite(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match="at least one"):
        report.sprite(torch.zeros(0, 3, 8, 8, dtype=torch.uint8))


def test_a_picture_shows_the_pixels():
    image = torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(png(report.picture(image)), image.permute(1, 2, 0))
    assert np.array_equal(png(report.picture(image / 255)), image.permute(1, 2, 0))
    assert np.array_equal(png(report.picture(image[0]))[..., 1], image[0])
    with pytest.raises(ValueError, match="undo the normalisation"):
        report.picture(torch.tensor([[0.0, 1.2]]))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        report.picture(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(ValueError, match="needs"):
        report.picture(torch.zeros(2, 3, 4, 5))


def test_names_move_apart_as_little_as_it_takes():
    assert charts.spread([10, 50, 90], 15, 0, 100) == [10, 50, 90]
    assert charts.spread([50, 50], 20, 0, 100) == [40, 60]
    assert charts.spread([99, 100, 2], 10, 0, 100) == [90, 100, 2]
    generator = np.random.default_rng(0)
    for _ in range(100):
        places = generator.uniform(0, 100, 8).tolist()
        moved = charts.spread(places, 9, 0, 100)
        assert np.argsort(moved, kind="stable").tolist() == np.argsort(places).tolist()
        assert np.diff(sorted(moved)).min() >= 9 - 1e-9
        assert min(moved) >= -1e-9
        assert max(moved) <= 100 + 1e-9


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [(0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]), (37, 101, 6, [40, 60, 80, 100]), (-4, 8, 4, [0, 5])],
)
def test_marks_of_an_axis_are_round(low, high, most, expected):
    assert charts.ticks(low, high, most) == pytest.approx(expected)


def test_marks_never_are_more_than_asked_for_nor_outside():
    generator = np.random.default_rng(0)
    for _ in range(300):
        low = generator.normal() * 10 ** generator.uniform(-3, 5)
        high = low + 10 ** generator.uniform(-3, 6)
        marks = charts.ticks(low, high, 6)
        assert 2 <= len(marks) <= 6
        assert low - 1e-6 * (high - low) <= marks[0] < marks[-1] <= high + 1e-6 * (high - low)


def test_dark_has_a_colour_for_each_of_the_palette():
    assert len(page.DARK) == len(style.PALETTE)
