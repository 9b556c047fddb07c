"""The page in a real browser: nothing asked for, nothing complained about, and the keys and buttons do what they say."""

import copy

import pytest
from PIL import Image

import studies
from browser import FOUND, Browser
from ssl_framework import report

LETTERS = "[...document.querySelectorAll('svg text')].filter((letters) => letters.checkVisibility())"

pytestmark = pytest.mark.skipif(FOUND is None, reason="no chromium on the path: apt-get install chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    study = studies.study(seeds=3, points=200)
    other = copy.deepcopy(study) | {"title": "Clothes"}
    return report.write_page(study, folder / "page.html"), report.write_comparison([study, other], folder / "comparison.html")


@pytest.mark.parametrize("which", [0, 1], ids=["page", "comparison"])
@pytest.mark.parametrize("width", [1280, 390, 360])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_opens_quietly_and_fits(browser, pages, which, width, dark, tmp_path):
    browser.events.clear()
    browser.open(pages[which], width=width, height=844, dark=dark)
    browser.screenshot(tmp_path / "page.png")
    assert browser.complaints() == []
    assert {url for url in browser.requests() if not url.startswith("data:")} == {pages[which].as_uri()}
    assert browser.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    wide = browser.evaluate("[...document.querySelectorAll('caption')].map((caption) => caption.getBoundingClientRect().right)")
    assert max(wide) <= width, "a caption has to be scrolled to"
    shown = Image.open(tmp_path / "page.png").convert("L")
    assert (shown.getpixel((2, 2)) < 60) == dark
    tall = browser.evaluate(f"{LETTERS}.map((letters) => letters.getBoundingClientRect().height)")
    assert min(tall) >= 10, "letters of a chart are too small to read"


def test_long_names_do_not_widen_the_page(browser, tmp_path):
    long = "a" * 300
    study = studies.study(seeds=2, points=30)
    study |= {"title": long, "sentence": long, "commands": [long], "limits": [long], "environment": {long: long}}
    study["training"][long] = [[0, 1.0], [1, 2.0]]
    study["map"]["classes"][0] = long
    study["attention"][0]["caption"] = long
    for verdict in study["verdicts"]:
        verdict |= {"method": long, "sentence": long}
    for row in study["rows"]:
        row["method"] = row["method"].replace("fine-tune", long)
    study["robustness"][long] = study["robustness"].pop("fine-tune")
    for write in (report.write_page, lambda study, path: report.write_comparison([study, study], path)):
        browser.open(write(study, tmp_path / "page.html"), width=360)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360


def crowded():
    """Numbers of labels that nearly agree, and classes that lie on each other."""
    study, labels = studies.study(seeds=2, points=60), {1: 10, 4: 11, 10: 12, "all": 1150}
    for row in [*study["rows"], *study["verdicts"]]:
        if "labels" in row:
            row["labels"] = labels[row["budget"]]
    for point in study["map"]["points"]:
        point[:2] = [0.0, 0.0]
    study["map"]["points"].append([3.0, 2.0, 0, 0])
    return study


def test_letters_of_charts_do_not_cover_each_other(browser, pages, tmp_path):
    overlap = """(() => {
      const bad = [];
      for (const chart of document.querySelectorAll("svg[data-hover]")) {
        const texts = [...chart.querySelectorAll("text")].filter((t) => t.checkVisibility());
        const boxes = texts.map((t) => t.getBoundingClientRect());
        for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
          const a = boxes[i], b = boxes[j];
          const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
          const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          if (w > 1 && h > 5) bad.push(texts[i].textContent + " | " + texts[j].textContent);
        }
      }
      return bad;
    })()"""
    for width in (1280, 360):
        for page in (pages[0], report.write_page(crowded(), tmp_path / "crowded.html")):
            browser.open(page, width=width)
            assert browser.evaluate(overlap) == []


def test_the_button_changes_the_theme(browser, pages):
    browser.open(pages[0])
    paper = "getComputedStyle(document.body).backgroundColor"
    assert browser.evaluate(paper) == "rgb(255, 255, 255)"
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate(paper) == "rgb(21, 24, 28)"
    assert browser.evaluate("document.getElementById('theme').textContent") == "Light page"


def test_paper_is_light_even_where_the_screen_is_dark(browser, pages):
    browser.open(pages[0], dark=True, media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("document.querySelector('nav').checkVisibility()") is False
    assert browser.evaluate("document.querySelector('.narrow').checkVisibility()") is False


def test_a_legend_hides_and_shows_a_line(browser, pages):
    browser.open(pages[0])
    shown = "getComputedStyle(document.querySelector('#labels .wide g[data-line=\"fine-tune\"]')).display !== 'none'"
    key = "document.querySelector('#labels .key[data-line=\"fine-tune\"]')"
    assert browser.evaluate(shown)
    browser.evaluate(f"{key}.click()")
    assert not browser.evaluate(shown)
    assert browser.evaluate(f"{key}.getAttribute('aria-pressed')") == "false"
    browser.evaluate(f"{key}.click()")
    assert browser.evaluate(shown)


def tip(browser):
    return browser.evaluate("document.getElementById('tip').hidden ? null : document.getElementById('tip').textContent")


def test_pointing_at_a_mark_shows_its_numbers(browser, pages):
    browser.open(pages[0])
    mark = "document.querySelector('#labels .wide [data-tip^=\"scratch, 40\"]')"
    browser.evaluate(f"{mark}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # it has scrolled
    x, y = browser.evaluate(
        f"(() => {{ const b = {mark}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] }})()"
    )
    browser.point(x, y)
    assert tip(browser).startswith("scratch, 40 labels: ")
    browser.point(2, 2)
    assert tip(browser) is None


def test_keys_walk_over_the_marks(browser, pages):
    browser.open(pages[0])
    first = "document.querySelector('#labels .wide [data-tip][tabindex=\"0\"]')"
    browser.evaluate(f"{first}.focus()")
    seen = [tip(browser)]
    browser.press("ArrowRight")
    seen.append(tip(browser))
    browser.press("ArrowLeft")
    seen.append(tip(browser))
    assert seen[0] == seen[2] != seen[1]
    assert browser.evaluate("document.querySelectorAll('#labels .wide [tabindex=\"0\"]').length") == 1
    browser.press("Escape")
    assert tip(browser) is None


def test_a_point_of_the_map_shows_its_image(browser, pages):
    browser.open(pages[0])
    browser.evaluate("document.querySelector('#map .dots use[tabindex=\"0\"]').focus()")
    assert tip(browser) == "class 0"
    browser.press("ArrowLeft")  # round to the last
    assert tip(browser) == "class 9"
    box = browser.evaluate("document.querySelector('#tip svg').getAttribute('viewBox')")
    index = browser.evaluate("Number(document.activeElement.dataset.i)")
    columns = browser.evaluate("Number(document.getElementById('thumbnails').dataset.columns)")
    line, column = divmod(index, columns)
    assert box == f"{8 * column} {8 * line} 8 8"
