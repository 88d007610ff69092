"""Every explorer in a real JupyterLab: each control moved once, pictures pointed at, an upload, a slow model."""

import json
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

EXPLORERS = {
    "episode": "widgets.explore_episode()",
    "prototypes": "widgets.explore_prototypes()",
    "distillation": "widgets.explore_distillation()",
    "attention": "widgets.explore_attention()",
    "superpixels": "widgets.explore_superpixels()",
    "correlation": "widgets.explore_correlation()",
    "compare": "widgets.compare_methods()",
}
SETUP = """import json, pathlib, time
import numpy as np
import ipywidgets
from fsslib import build_model, load_dataset, widgets
from fsslib.widgets.explorer import Explorer, Scene
from fsslib.widgets.board import Panel
made = {}"""
SLOW = """runs, gate = [], pathlib.Path("gate")
def slow(value, point):
    runs.append(value)
    while value and not gate.exists():
        time.sleep(0.01)
    return Scene([Panel("p", f"value {value}", "a grey picture", np.full((20, 20, 3), 99, np.uint8))], f"is {value}")
made["slow"] = Explorer({"value": ipywidgets.IntSlider(0, 0, 60)}, slow, label="Slow")
made["slow"]"""
LARGE = """made["large"] = widgets.explore_episode(
    load_dataset("shapes", split="test", size=241, pool=100),
    {"PANet": build_model("panet", backbone="resnet18", last="layer3")}, size=241)
made["large"]"""

FOCUS = """(() => {
    const node = document.activeElement, control = node.closest('[class*=fss-control-]');
    return [node.className, control?.className ?? '', getComputedStyle(node).outlineStyle];
})()"""
BUSY = """board => {
    board.classList.add('fss-working');
    const seen = getComputedStyle(board.querySelector('.fss-busy')).visibility;
    board.classList.remove('fss-working');
    return seen;
}"""


class Page:
    """One explorer on the page, and the same in the kernel."""

    def __init__(self, tab, name):
        self.tab, self.name, self.py = tab, name, f"made[{name!r}]"
        number = [*EXPLORERS, "slow", "large"].index(name)
        self.root = tab.page.locator(".fss-explorer").nth(number)
        self.board = self.root.locator(".fss-board")
        self.root.scroll_into_view_if_needed()

    def control(self, name):
        return self.root.locator(f".fss-control-{name}")

    def value(self, name):
        return self.tab.ask(f"{self.py}.controls[{name!r}].value")

    def drawn(self):
        return int(self.board.get_attribute("data-drawn"))

    def wait_for_drawing(self, after):
        newer = "([board, n]) => Number(board.dataset.drawn) > n"
        self.tab.page.wait_for_function(newer, arg=[self.board.element_handle(), after])

    def settled(self):
        """Wait until nothing is being computed."""
        self.tab.until(f"[{self.py}.board.busy, {self.py}._timer is None]", [False, True])

    def move(self, name):
        """Move one control on the page, by keyboard where it has one."""
        place, keys = self.control(name), self.tab.page.keyboard
        before = self.value(name)
        if place.locator("select").count():
            select = place.locator("select")
            count, at = select.locator("option").count(), select.evaluate("s => s.selectedIndex")
            assert count > 1, f"{self.name}: {name} offers no choice"
            select.focus()
            keys.press("ArrowDown" if at < count - 1 else "ArrowUp")
        elif place.locator("[role=slider]").count():
            handle = place.locator("[role=slider]").first
            handle.focus()
            high = float(handle.get_attribute("aria-valuemax")) > float(handle.get_attribute("aria-valuenow"))
            keys.press("ArrowRight" if high else "ArrowLeft")
        else:
            place.locator("input[type=checkbox]").focus()
            keys.press("Space")
        self.tab.until(f"json.dumps({self.py}.controls[{name!r}].value) != {json.dumps(before)!r}", True)

    def upload(self, name, file):
        """Choose a file, as in the window that the button opens."""
        with self.tab.page.expect_file_chooser() as chooser:
            self.control(name).click()
        chooser.value.set_files(file)


@pytest.fixture(scope="module")
def opened(lab, open_tab):
    cells = [f"made[{name!r}] = {code}\nmade[{name!r}]" for name, code in EXPLORERS.items()]
    lab.write("explorers", SETUP, *cells, SLOW, LARGE)
    tab = open_tab("explorers")
    tab.page.wait_for_function(f"document.querySelectorAll('.fss-board[data-drawn]').length === {len(EXPLORERS) + 2}")
    yield tab
    tab.page.close()


@pytest.fixture
def page(opened):
    return lambda name: Page(opened, name)


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_moved_once(page, name):
    one = page(name)
    controls = one.tab.ask(f"[n for n, w in {one.py}.controls.items() if not n.endswith('_file')]")
    assert controls
    for control in controls:
        if not one.control(control).is_visible() or one.tab.ask(
            f"getattr({one.py}.controls[{control!r}], 'disabled', 0)"
        ):
            continue
        runs = one.tab.ask(f"{one.py}.runs")
        one.move(control)
        one.settled()
        assert one.tab.ask(f"{one.py}.runs") > runs, f"{control} is answered"
        assert one.tab.ask(f"{one.py}.board.trouble") == "", control
    words = one.tab.ask(f"{one.py}.scene.words")
    one.tab.page.wait_for_function(
        "([b, w]) => b.querySelector('.fss-words').textContent === w", arg=[one.board.element_handle(), words]
    )
    panels = one.tab.ask(f"[p.caption for p in {one.py}.scene.panels]")
    assert one.board.locator("figcaption").all_text_contents() == panels
    loaded = "b => [...b.querySelectorAll('img')].every(i => i.complete && i.naturalWidth > 0)"
    one.tab.page.wait_for_function(loaded, arg=one.board.element_handle())
    alts = one.board.locator("img").evaluate_all("all => all.map(i => i.alt)")
    assert all(len(alt.split()) >= 3 for alt in alts), alts


@pytest.mark.parametrize("name", EXPLORERS)
def test_everything_says_what_it_is(page, name):
    one = page(name)
    parts = one.root.locator(".fss-controls :is(select, button, input, [role=slider])").evaluate_all(
        "all => all.filter(n => n.offsetParent && n.type !== 'file').map(n => n.getAttribute('aria-label') ||"
        " n.labels?.[0]?.textContent || n.closest('label')?.textContent || n.textContent)"
    )
    assert parts and all(part.strip() for part in parts), parts
    assert (
        one.board.get_attribute("aria-label") and one.board.locator(".fss-words").get_attribute("aria-live") == "polite"
    )


@pytest.mark.parametrize(("name", "start"), [("prototypes", {"source": "one cell"}), ("attention", {})])
def test_pictures_are_pointed_at_by_mouse_and_keyboard(page, name, start):
    one = page(name)
    assert one.tab.do(f"{one.py}.set(**{start!r})") == ""
    target = one.board.locator(".fss-pick").first
    target.scroll_into_view_if_needed()
    before, box = one.drawn(), target.bounding_box()
    one.tab.page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"])
    one.wait_for_drawing(before)
    point = one.tab.ask(f"{one.py}.board.point")
    rows, columns = one.tab.ask(
        f"next(p for p in {one.py}.scene.panels if p.key == {point['panel']!r}).pixels.shape[:2]"
    )
    assert abs(point["x"] - 0.25 * columns) <= 1.5 and abs(point["y"] - 0.75 * rows) <= 1.5
    one.settled()
    before = one.drawn()
    one.tab.page.keyboard.press("ArrowRight")
    one.wait_for_drawing(before)
    moved = one.tab.ask(f"{one.py}.board.point")
    assert moved["x"] > point["x"] and moved["y"] == point["y"]
    assert target.locator(".fss-mark-cross").count() == 1
    assert one.tab.page.evaluate("document.activeElement.className").startswith("fss-panel"), "focus stays"


def test_draw_upload_and_read_the_mask_back(page, tmp_path):
    one = page("compare")
    one.tab.do(f"{one.py}.set(fold=0, marked='your drawing'); {one.py}.painter.clear()")
    one.settled()
    assert one.tab.ask(f"list({one.py}.scene.facts['masks'])") == []
    stage = one.root.locator(".fss-stage")
    stage.scroll_into_view_if_needed()
    box, mouse, before = stage.bounding_box(), one.tab.page.mouse, one.drawn()
    mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.3 * box["height"])
    mouse.down()
    mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.3 * box["height"], steps=8)
    mouse.up()
    one.wait_for_drawing(before)
    one.settled()
    mask = np.array(one.tab.ask(f"{one.py}.painter.mask.tolist()"))
    assert mask[29, 53] == 1 and mask[80, 20] == 0
    assert np.array_equal(mask, one.tab.ask(f"{one.py}.scene.facts['support_mask'].tolist()"))
    assert one.tab.ask(f"list({one.py}.scene.facts['masks'])") == ["PANet", "SD-AANet", "ASGNet", "HDMNet"]

    noise = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "garden.png")
    before = one.drawn()
    one.upload("query_file", tmp_path / "garden.png")
    one.wait_for_drawing(before)
    one.settled()
    assert one.tab.ask(f"list({one.py}.scene.facts['masks']['PANet'].shape)") == [48, 64]
    assert "garden.png" in one.board.text_content() and "trained on drawn shapes" in one.board.text_content()
    (tmp_path / "notes.png").write_bytes(b"no picture")
    one.upload("query_file", tmp_path / "notes.png")
    one.board.locator(".fss-trouble", has_text="notes.png: no picture").wait_for()
    assert one.tab.ask(f"list({one.py}.scene.facts['masks']['PANet'].shape)") == [48, 64], "the last pictures stay"
    Image.fromarray(noise).save(tmp_path / "support.png")
    one.upload("support_file", tmp_path / "support.png")
    one.tab.until(f"list({one.py}.painter.image.shape)", [3, 48, 64])
    one.root.locator(".fss-stage[aria-label*='64 by 48']").wait_for()


def test_by_keyboard_alone(page):
    """From the first control with the Tab key to the drawing area and through every control, then a change."""
    one = page("compare")
    keys, seen = one.tab.page.keyboard, []
    one.root.get_by_role("button", name="Brush", exact=True).focus()
    for _ in range(40):
        keys.press("Tab")
        own, control, outline = one.tab.page.evaluate(FOCUS)
        found = re.search(r"fss-control-(\w+)", control)
        seen.append("stage" if "fss-stage" in own else found[1] if found else own)
        if found and "readout" not in own:
            assert outline != "none", f"the focus of {found[1]} cannot be seen"
        if seen[-1] == "query_file":
            break
    assert {"stage", "fold", "cls", "support", "query", "marked", "support_file", "query_file"} <= set(seen), seen
    before = one.drawn()
    one.control("query").locator("[role=slider]").focus()
    keys.press("ArrowRight")
    one.wait_for_drawing(before)


def test_a_slow_model_does_not_freeze_the_page(page, lab):
    """Fifty keys while the model runs: the page takes them all, and the model answers the last."""
    one = page("slow")
    one.settled()
    one.tab.do("runs.clear()")
    handle = one.control("value").locator("[role=slider]")
    handle.focus()
    busy = one.board.locator(".fss-busy")
    before = one.drawn()
    for _ in range(50):
        one.tab.page.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") == "50.0" and one.drawn() == before
    busy.wait_for(state="visible")
    (lab.folder / "gate").touch()
    one.board.locator("figcaption", has_text="value 50").wait_for()
    one.settled()
    runs = one.tab.ask("runs")
    assert runs[-1] == 50 and len(runs) < 25, "most values are passed over, on a busy machine as well"
    assert not busy.is_visible()
    assert one.tab.do(f"{one.py}.controls['value'].value = 7\nassert {one.py}.board.words == 'is 7'") == ""
    one.board.locator("figcaption", has_text="value 7").wait_for()


@pytest.mark.parametrize(("name", "limit"), [("episode", 0.3), ("large", 1.5)])
def test_pictures_follow_in_time(page, name, limit):
    """From the key to the new picture: processor seconds of the kernel, twice those of a quiet machine."""
    one = page(name)
    one.settled()
    one.control("query").locator("[role=slider]").focus()
    costs = []
    for _ in range(3):
        before, start = one.drawn(), one.tab.ask("time.process_time()")
        one.tab.page.keyboard.press("ArrowRight")
        one.wait_for_drawing(before)
        costs.append(one.tab.ask("time.process_time()") - start)
        one.settled()
    assert sorted(costs)[1] < 2 * limit, costs


def test_quick_answers_do_not_flicker(page):
    one = page("episode")
    assert one.board.evaluate(BUSY) == "hidden"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_themes(page, dark):
    theme = "Dark" if dark else "Light"
    any_page = page("episode").tab.page
    any_page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
    any_page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(not dark).lower()}'")
    light = (
        f"node => getComputedStyle(node).color.match(/\\d+/g).slice(0, 3).every(v => v > 150) === {str(dark).lower()}"
    )
    for name in EXPLORERS:  # the style sheet follows the attribute
        any_page.wait_for_function(light, arg=page(name).board.locator(".fss-words").element_handle())
    any_page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")


def test_a_picture_where_no_kernel_runs(opened, lab, open_tab):
    bundle, note = opened.ask("made['episode']._repr_mimebundle_()")
    lab.write("still", "made", outputs=[nbformat.v4.new_output("display_data", bundle, metadata=note)])
    tab = open_tab("still", run=False)
    picture = tab.page.locator(".jp-OutputArea-output img")
    picture.wait_for()
    assert picture.get_attribute("src").startswith("data:image/")
    assert tab.page.locator(".fss-board").count() == 0 and picture.evaluate("i => i.naturalWidth") > 300
    tab.page.close()


def test_nothing_was_loud_and_nobody_outside_was_asked(opened, browser, outside):
    assert browser.noise == [] and browser.strangers == [] and outside.asked == []
