"""The page of a report: sound HTML that needs nothing but itself, seen in a real browser."""

import base64
import contextlib
import http.server
import io
import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from PIL import Image
from test_report_figures import LONG
from test_report_numbers import predictions

from keras_transfer.evaluation.metrics import report_numbers
from keras_transfer.evaluation.page import render_page
from keras_transfer.evaluation.predictions import Classified, Example
from keras_transfer.evaluation.report_files import report_files
from keras_transfer.evaluation.report_page import next_steps
from keras_transfer.utils.confidence_intervals import percent

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
in_a_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser is installed: none of {', '.join(BROWSERS)}"
)


NO_MISTAKE = report_numbers(
    np.arange(400) % 2, np.eye(2)[np.arange(400) % 2] * 0.98 + 0.01, ("a", "b")
)


def words(text: str) -> str:
    """What a reader sees, on one line."""
    body = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def page(classes: int = 5, name: str = 'class "{}" <b>&amp;</b>') -> str:
    """The page of a model without Grad-CAM, with pictures and names that want escaping."""
    true, probabilities = predictions(classes, 20 * classes)
    names = tuple(name.format(i) for i in range(classes))
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype("uint8")
    examples = tuple(Example(i, pixels, 0, i % 2, 0.9, 0.05) for i in range(5))
    found = Classified(names, true, probabilities, examples[1::2], examples[::2], False, ())
    path = "photos/<img src=x onerror=alert(1)>/{}.jpg".format
    numbers = report_numbers(true, probabilities, names)
    model = keras.Sequential([keras.Input((24, 24, 3)), keras.layers.Flatten()])
    files = report_files(model, found, numbers, path, "Report on <script>x</script>")
    return files["report.html"].decode()


class Document(HTMLParser):
    """What is in a page; fails where tags do not match."""

    VOID = ("meta", "link", "img", "br", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text():
    return page()


@pytest.fixture(scope="module")
def document(text):
    return Document(text)


@pytest.mark.slow
def test_the_page_is_one_file_without_scripts(text, document):
    assert not document.all("script")
    assert not [a for _, attributes in document.tags for a in attributes if a.startswith("on")]
    sources = [image["src"] for image in document.all("img")]
    assert all(source.startswith("data:image/") for source in sources)
    assert [link["href"] for link in document.all("link")] == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text
    policy = next(m["content"] for m in document.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")


def test_every_picture_is_sound_and_has_its_alternative_text(document):
    pictures = document.all("img")
    assert len(pictures) == 4 + 5
    for picture in pictures:
        assert picture["alt"].strip()
        kind, content = re.fullmatch(r"data:image/(\w+);base64,(.+)", picture["src"]).groups()
        image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
        image.load()
        assert image.format.lower() == kind
        if "width" in picture:  # of a chart, so that nothing moves while the page loads
            assert int(picture["width"]) == round(image.width / 1.25)
            assert int(picture["height"]) == round(image.height / 1.25)


def test_the_page_can_be_used_by_ear_and_by_keyboard(document):
    assert document.all("html")[0]["lang"] == "en"
    assert [len(document.all(tag)) for tag in ("title", "h1", "main", "nav")] == [1] * 4
    names = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(set(names)) == len(names)
    links = [link["href"] for link in document.all("a")]
    assert links[0] == "#main"  # skips the contents
    assert {link[1:] for link in links} <= set(names)
    assert len(document.all("h2")) == len(links)  # and the answer, before the contents
    assert len(document.all("table")) == len(document.all("caption")) == 5
    assert all(cell.get("scope") in ("row", "col") for cell in document.all("th"))
    scrolled = [div for div in document.all("div") if div.get("class") == "wide"]
    assert all(div["tabindex"] == "0" and div["aria-label"] for div in scrolled)
    assert len(scrolled) == 5 + 4
    assert all(cell["data-column"] for cell in document.all("td"))  # its name on a phone


def test_whatever_names_hold_is_text(text, document):
    assert 'class "0" <b>' not in text
    assert "<b>" not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert text.count("<img ") == len(document.all("img"))
    rendered = render_page(
        "evaluation/templates/report.html", title="a\ud800\x00b", lead="", sections={}, facts=[],
        next_steps=[], numbers=NO_MISTAKE, pictures=None, notes=[],
    )  # fmt: skip
    assert "<h1>a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b</h1>" in rendered


def test_the_page_opens_with_the_answer(text):
    answer = text[text.index('<section id="answer"') : text.index("<nav")]
    seen = words(answer)
    assert re.search(r"How good [\d.]+ % right \d+ of 100 images are right", seen)
    assert re.search(r"How sure [\d.]+ to [\d.]+ % 95 % interval", seen)
    assert "What it costs 0 weights" in seen
    assert seen.index("Mistakes") < seen.index("What to do next")
    assert answer.count("<img ") == 2  # the worst mistakes
    assert "<table" not in answer


def test_next_steps_follow_from_the_numbers():
    true = np.repeat([0, 1, 2], [40, 40, 5])
    predicted = np.where(true == 2, 1, true)
    of = report_numbers(true, np.eye(3)[predicted] * 0.99 + 0.01 / 3, ("cat", "dog", "fox"))
    steps = " ".join(next_steps(of))
    assert "Look at the 5 images of fox that are taken for dog." in steps
    assert "Never predicted: fox." in steps
    assert "Fewer than 30 images tell about fox." in steps
    assert "points wide" in steps
    assert "most common class" not in steps
    assert next_steps(NO_MISTAKE)[0].startswith("Nothing stands out.")
    blind = report_numbers(np.arange(400) % 2, np.tile([0.6, 0.4], (400, 1)), ("a", "b"))
    assert "do not show that the model is better" in next_steps(blind)[0]


def test_no_share_looks_like_all_or_nothing_that_is_not():
    shown = [percent(share) for share in (0, 1e-9, 0.5, 0.9994, 0.99999, 1)]
    assert shown == ["0.0 %", "< 0.1 %", "50.0 %", "99.9 %", "> 99.9 %", "100.0 %"]
    assert percent(float("nan")) == "\N{EN DASH}"


class Recorder(http.server.BaseHTTPRequestHandler):
    """A proxy that fetches nothing and notes what it is asked for."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_error(404)

    do_CONNECT = do_GET

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def recorded():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def browse(folder, text: str, *options: str) -> tuple[str, list[str], list[str]]:
    """Opens a page: the document as the browser has it, the console's lines, requests."""
    (folder / "page.html").write_text(text)
    with recorded() as server:
        done = subprocess.run(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",  # which refuses to run as root
                "--disable-gpu",
                "--no-first-run",
                f"--user-data-dir={folder / 'profile'}",
                f"--proxy-server=127.0.0.1:{server.server_port}",
                "--enable-logging=stderr",
                "--window-size=500,900",
                *options,
                "--dump-dom",
                (folder / "page.html").as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        # The browser asks its maker for updates, too.
        own = re.compile(r"[\w.-]*\.(google|googleapis|gvt1|gstatic)\.com(?![\w.])")
        asked = [url for url in server.asked if not own.search(url)]
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr), asked


# What a page says of itself once it is loaded, for want of a way to ask from outside.
PROBE = """<script>addEventListener("load", () => {
  const style = getComputedStyle(document.body), light = (color) =>
    color.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  document.title = JSON.stringify({
    broken: [...document.images].filter((image) => !image.naturalWidth).length,
    pictures: document.images.length,
    wider: document.documentElement.scrollWidth - innerWidth,
    page: light(style.backgroundColor), ink: light(style.color),
    behind: [...document.querySelectorAll(".chart")].map(
      (one) => light(getComputedStyle(one).backgroundColor)),
    reached: [...document.querySelectorAll("a, summary, [tabindex]")].filter(
      (one) => { one.focus(); return document.activeElement === one; }).length,
    meant: document.querySelectorAll("a, summary, [tabindex]").length,
  });
})</script></body>"""


def probed(folder, text: str, *options: str) -> dict:
    """Opens a page without its policy, which forbids to look into it."""
    free = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", PROBE)
    dom, _, _ = browse(folder, free, *options)
    return json.loads(re.search(r"<title>(.*?)</title>", dom)[1].replace("&amp;", "&"))


@pytest.mark.slow
@in_a_browser
def test_a_browser_loads_it_without_a_request_or_a_word_of_complaint(tmp_path, text):
    dom, console, asked = browse(tmp_path, text)
    assert (console, asked) == ([], [])
    assert dom.count("<img ") == text.count("<img ")
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", text)
    assert browse(tmp_path, without_policy)[1:] == ([], [])


@pytest.mark.slow
@in_a_browser
def test_the_check_for_requests_and_complaints_sees_them(tmp_path, text):
    foreign = text.replace("</main>", '<img src="http://pictures.invalid/a.png" alt="a"></main>')
    assert "violates the following Content Security Policy" in browse(tmp_path, foreign)[1][0]
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", foreign)
    assert browse(tmp_path, without_policy)[2] == ["http://pictures.invalid/a.png"]


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", ["500,900", "1400,900"])
def test_it_can_be_read_in_any_window_by_day_and_by_night(tmp_path, text, scheme, window):
    dark = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    seen = probed(tmp_path, text, f"--window-size={window}", dark)
    assert (seen["broken"], seen["pictures"]) == (0, 9)
    assert seen["wider"] <= 0  # what is wide scrolls by itself, the page does not
    assert (seen["ink"] > 600 and seen["page"] < 100) == (scheme == "dark")
    assert seen["behind"] == [3 * 255] * 4  # dark text of a figure on white
    assert seen["reached"] == seen["meant"] > 15


@pytest.mark.slow
@in_a_browser
def test_long_names_do_not_widen_the_page(tmp_path):
    seen = probed(tmp_path, page(30, LONG))
    assert seen["wider"] <= 0
