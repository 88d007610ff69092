"""SupportPainter in a real JupyterLab: mouse, finger, pen and keyboard, read back from the kernel as a mask."""

import re
import urllib.parse

import nbformat
import numpy as np
import pytest

from fsslib.widgets import strokes
from fsslib.widgets.strokes import BACKGROUND, HINT, paint, to_mask

ROWS, COLUMNS, SCALE = 64, 97, 6
SETUP = f"""import numpy as np
from fsslib.widgets import SupportPainter, strokes
noise = np.random.default_rng(0).integers(60, 200, ({ROWS}, {COLUMNS}, 3), dtype=np.uint8)
painter = SupportPainter(noise)"""
# The marks canvas around the centre of every image pixel (its four canvas pixels), once the next frame is drawn:
# 0 nothing, 1 object, 2 background, 3 out of view. Where the picture is, its own place on the page says.
MARKS = """async ([rows, columns]) => {
    await new Promise(requestAnimationFrame);
    const canvas = document.querySelector('.fss-marks'), frame = canvas.getBoundingClientRect();
    const photo = document.querySelector('.fss-stage img').getBoundingClientRect(), dots = canvas.width / frame.width;
    const {data, width, height} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let out = '';
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) {
        const sum = [0, 0, 0, 0], at = [photo.top - frame.top + (i + .5) * photo.height / rows,
            photo.left - frame.left + (j + .5) * photo.width / columns].map(v => Math.round(v * dots) - 1);
        if (at[0] < 0 || at[1] < 0 || at[0] > height - 2 || at[1] > width - 2) { out += 3; continue; }
        for (const k of [0, 1, 2, 3]) {
            const first = 4 * ((at[0] + (k >> 1)) * width + at[1] + (k & 1));
            for (const c of [0, 1, 2, 3]) sum[c] += data[first + c];
        }
        out += sum[3] < 510 ? 0 : sum[0] > sum[2] ? 1 : 2;
    }
    return out;
}"""
FOCUSED = "document.activeElement.className"
LOUDNESS = """(selector) => {
    const level = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(v => v / 255).map(
            v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const node = document.querySelector(selector);
    let behind = node;
    while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    return [level(getComputedStyle(node).color), level(getComputedStyle(behind).backgroundColor)];
}"""


@pytest.fixture(scope="module")
def opened(lab, open_tab):
    lab.write("painter", SETUP, "painter")
    tab = open_tab("painter")
    tab.page.wait_for_selector(".fss-stage")
    tab.page.locator(".fss-stage").scroll_into_view_if_needed()
    yield tab
    tab.page.close()


@pytest.fixture
def tab(opened):
    """The notebook with an empty drawing in full view; brush and object chosen, 7 pixels; mouse outside the picture."""
    assert opened.do(f"painter.document = strokes.empty({ROWS}, {COLUMNS})") == ""
    opened.page.mouse.move(2, 2)
    for name in ("Brush", "Object", "Whole picture"):
        press(opened, name)
    opened.page.locator(".fss-size input").fill("7")
    opened.page.wait_for_function("document.querySelector('.fss-summary').textContent.startsWith('object 0.0%')")
    return opened


def press(tab, name):
    """Click a button, also one that says it has nothing to do."""
    tab.page.get_by_role("button", name=name, exact=True).click(force=True)


def spot(tab, x, y):
    """Where on the page the image point (x, y) is, and a bit: edges through centres of pixels may fall either way."""
    box = tab.page.locator(".fss-stage img").bounding_box()
    return box["x"] + x * box["width"] / COLUMNS + 1, box["y"] + y * box["height"] / ROWS + 1


def strike(tab, keys):
    """Press keys, given as in "b 3*Shift+ArrowLeft Space"."""
    for times, key in re.findall(r"(?:(\d+)\*)?(\S+)", keys):
        for _ in range(int(times or 1)):
            tab.page.keyboard.press(key)


def drag(tab, *points):
    mouse = tab.page.mouse
    mouse.move(*spot(tab, *points[0]))
    mouse.down()
    for point in points[1:]:
        mouse.move(*spot(tab, *point), steps=6)
    mouse.up()


def click(tab, *points):
    for point in points:
        tab.page.mouse.click(*spot(tab, *point))


def zoomed(tab):
    """How many times the picture is larger than its frame, and the image point in the frame's upper left corner."""
    picture, frame = (tab.page.locator(f".fss-stage{part}").bounding_box() for part in (" img", ""))
    times = picture["width"] / frame["width"]
    across, down = ((frame[axis] - picture[axis]) / picture["width"] * COLUMNS for axis in "xy")
    assert picture["height"] / frame["height"] == pytest.approx(times, rel=0.01)
    assert min(across, down) > -0.05 and across < COLUMNS * (1 - 1 / times) + 0.05
    assert down < ROWS * (1 - 1 / times) + 0.5, "the picture fills its frame"
    return times, across, down


def mask(tab, strokes_in_force):
    """The kernel's mask, once as many strokes have arrived."""
    tab.until("painter.document['cursor']", strokes_in_force)
    found = np.array(tab.ask("painter.mask.tolist()"))
    assert found.shape == (ROWS, COLUMNS)
    return found


def agrees(tab):
    """The browser's preview is Python's mask: at most 0.2 % (or 2) of the pixels in view differ, all on an edge."""
    document = tab.ask("painter.document")
    canvas = np.zeros((ROWS, COLUMNS), np.uint8)
    for stroke in document["history"][: document["cursor"]]:
        paint(canvas, stroke)
    assert np.array_equal(to_mask(canvas), tab.ask("painter.mask.tolist()"))
    wanted = np.where(np.isin(canvas, (BACKGROUND, HINT)), 2, canvas)
    shown = np.array(list(tab.page.evaluate(MARKS, [ROWS, COLUMNS])), int).reshape(ROWS, COLUMNS)
    padded = np.pad(wanted, 1, mode="edge")
    near = np.stack([padded[i : i + ROWS, j : j + COLUMNS] for i in range(3) for j in range(3)])
    seen = shown != 3
    assert seen.mean() >= 0.9 / zoomed(tab)[0] ** 2
    differs = (shown != wanted) & seen
    assert differs.sum() <= max(2, 0.002 * seen.sum()), f"{differs.sum()} of {seen.sum()} pixels differ"
    assert (near != wanted).any(0)[differs].all(), "a difference away from any edge"
    return wanted


def said(tab):
    return tab.page.locator(".fss-live").text_content()


def test_the_mouse_draws(tab):
    drag(tab, (10, 10), (40, 12), (40, 50))
    found = mask(tab, 1)
    assert found[10, 10] == found[11, 30] == found[40, 40] == 1 and found[40, 10] == 0
    assert set(np.unique(found)) == {0, 1} and (agrees(tab) == 1).sum() == found.sum()
    stroke = tab.ask("painter.document['history'][0]")
    assert stroke["tool"] == "brush" and stroke["width"] == 7 and stroke["label"] == 1
    ends = [stroke["points"][0], stroke["points"][-1]]
    assert np.allclose(ends, [[10, 10], [40, 50]], atol=0.35)
    assert "Brush object ended at column 40, row 50" in said(tab)
    assert re.match(r"object \d+\.\d%, background", tab.page.locator(".fss-summary").text_content())


def test_every_tool_with_the_mouse(tab):
    press(tab, "Box")
    drag(tab, (50, 40), (20, 10))
    found = mask(tab, 1)
    assert abs(int(found.sum()) - 900) <= 60 and (found[12:38, 22:48] == 1).all()
    press(tab, "Eraser")
    drag(tab, (35, 5), (35, 45))
    found = mask(tab, 2)
    assert (found[12:38, 34:37] == 0).all() and found[20, 25] == 1
    press(tab, "Scribble")
    press(tab, "Background")
    drag(tab, (70, 5), (90, 55))
    found = mask(tab, 3)
    assert found[30, 80] == 0 and found[5, 60] == 255 and found[25, 35] == 255 and found[20, 25] == 1
    press(tab, "Brush")
    drag(tab, (25, 20), (25, 30))
    assert mask(tab, 4)[25, 25] == 0
    agrees(tab)

    for cursor in (3, 2):
        press(tab, "Undo")
        found = mask(tab, cursor)
    assert 255 not in found and "Undone: scribble" in said(tab)
    agrees(tab)
    press(tab, "Redo")
    assert 255 in mask(tab, 3)
    press(tab, "Clear")
    assert not mask(tab, 4).any() and not agrees(tab).any()
    press(tab, "Undo")
    assert 255 in mask(tab, 3)
    press(tab, "Undo")
    drag(tab, (5, 60))
    tab.until("len(painter.document['history'])", 3)  # a new stroke forgets what was undone
    assert tab.page.get_by_role("button", name="Redo").get_attribute("aria-disabled") == "true"
    tab.page.keyboard.press("r")
    assert said(tab) == "Nothing to redo."


def test_strokes_may_leave_the_picture_and_all_of_a_quick_succession_arrive(tab):
    drag(tab, (80, 30), (120, 30), (120, 80), (50, 80), (50, 50))
    for y in range(5, 60, 9):
        drag(tab, (10, y), (40, y))
    found = mask(tab, 8)
    assert found[30, 96] == found[63, 50] == 1 and found[50, 80] == 0 and (found[5:60:9, 25] == 1).all()
    agrees(tab)


def test_in_a_narrow_window_the_picture_shrinks(tab):
    size = tab.page.viewport_size
    tab.page.set_viewport_size({"width": 720, "height": 1000})
    try:
        tab.page.wait_for_function("document.querySelector('.fss-stage').getBoundingClientRect().width < 400")
        box = tab.page.locator(".fss-stage").bounding_box()
        assert abs(box["width"] / box["height"] - COLUMNS / ROWS) < 0.02
        drag(tab, (20, 20), (70, 40))
        found = mask(tab, 1)
        assert found[20, 20] == found[30, 45] == found[40, 70] == 1
    finally:
        tab.page.set_viewport_size(size)


def test_a_box_without_area_is_no_stroke(tab):
    press(tab, "Box")
    drag(tab, (20, 20))
    assert "thinner than a pixel" in said(tab) and tab.ask("painter.document['history']") == []


def finger(tab):
    """A function for touches: their kind, and where on the page the fingers are."""
    device = tab.page.context.new_cdp_session(tab.page)

    def touch(kind, *places):
        fingers = [dict(zip("xy", place), id=number) for number, place in enumerate(places)]
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    return touch


def test_a_finger_draws_and_a_second_one_does_not_disturb(tab):
    touch, before = finger(tab), tab.page.locator(".fss-stage").bounding_box()
    touch("touchStart", spot(tab, 20, 10))
    for y in range(12, 50, 4):
        touch("touchMove", spot(tab, 20, y))
    touch("touchStart", spot(tab, 20, 50), spot(tab, 70, 20))
    touch("touchMove", spot(tab, 20, 52), spot(tab, 75, 25))
    touch("touchEnd")
    found = mask(tab, 1)
    assert found[10, 20] == found[30, 20] == found[48, 20] == 1 and not found[:, 60:].any()
    assert tab.page.locator(".fss-stage").bounding_box() == before, "the page must not scroll"
    assert zoomed(tab)[0] == 1
    agrees(tab)


def test_two_fingers_zoom_and_draw_nothing(tab):
    touch = finger(tab)
    one, other = spot(tab, 40, 30), spot(tab, 50, 30)
    touch("touchStart", one)
    touch("touchMove", (one[0] + 2, one[1]))  # a finger never rests
    touch("touchStart", one, other)
    for by in (10, 20, 30):
        touch("touchMove", (one[0] - by, one[1] + by), (other[0] + by, other[1] + by))
    touch("touchEnd")
    times, across, down = zoomed(tab)
    apart = other[0] - one[0]
    assert times == pytest.approx((apart + 60) / apart, rel=0.05) and across > 10 and down > 5
    assert said(tab).startswith(f"Zoom {round(times, 1):g}×: columns {int(across)} to ")
    assert np.allclose(spot(tab, 40, 30), (one[0] - 30, one[1] + 30), atol=3), "the picture follows the fingers"
    assert tab.ask("painter.document['history']") == []
    touch("touchStart", spot(tab, 40, 30))
    touch("touchMove", spot(tab, 50, 30))
    touch("touchEnd")
    assert mask(tab, 1)[30, 45] == 1, "one finger draws again"
    agrees(tab)


def test_a_pen_draws(tab):
    device = tab.page.context.new_cdp_session(tab.page)
    for kind, point in (("mousePressed", (60, 20)), ("mouseMoved", (80, 20)), ("mouseReleased", (80, 40))):
        x, y = spot(tab, *point)
        pressed = {"button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen", "force": 0.5}
        device.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **pressed})
    found = mask(tab, 1)
    assert found[20, 70] == found[35, 80] == 1
    agrees(tab)


def test_a_polygon_with_the_mouse(tab):
    mouse, keys = tab.page.mouse, tab.page.keyboard
    press(tab, "Polygon")
    click(tab, (20, 10), (70, 12), (90, 5))
    assert said(tab) == "Polygon object, corner 3 at column 90, row 5; Enter closes it."
    keys.press("Backspace")
    assert said(tab) == "Corner 3 taken back."
    mouse.move(*spot(tab, 60, 50))
    lit = "([x, y]) => document.querySelector('.fss-cursor').getContext('2d').getImageData(x, y, 1, 1).data[3] > 99"
    frame = tab.page.locator(".fss-stage").bounding_box()
    inside = [tab.page.evaluate(lit, [at[0] - frame["x"], at[1] - frame["y"]]) for at in [spot(tab, 50, 20)]]
    assert inside == [True], "the polygon as it would be is shown"
    click(tab, (60, 50), (20, 50), (10, 30))
    assert tab.ask("painter.document['history']") == []
    click(tab, (20.8, 10.8))  # near enough to the first corner
    found = mask(tab, 1)
    stroke = tab.ask("painter.document['history'][0]")
    assert stroke.keys() == {"tool", "label", "points"} and stroke["tool"] == "polygon" and stroke["label"] == 1
    assert np.allclose(stroke["points"], [[20, 10], [70, 12], [60, 50], [20, 50], [10, 30]], atol=0.35)
    assert found[30, 40] == found[30, 13] == found[14, 65] == 1 and found[8, 40] == found[45, 12] == 0
    assert said(tab) == "Polygon object closed with 5 corners." and (agrees(tab) == 1).sum() == found.sum()

    press(tab, "Background")  # a bow tie: its crossing corners are background, by the even-odd rule
    click(tab, (30, 20), (50, 42), (50, 19))
    mouse.dblclick(*spot(tab, 30, 41))
    found = mask(tab, 2)
    assert len(tab.ask("painter.document['history'][1]['points']")) == 4
    assert found[30, 33] == found[30, 47] == 0 and found[23, 40] == found[37, 40] == 1
    agrees(tab)
    keys.press("u")
    assert mask(tab, 1)[30, 33] == 1


def test_a_polygon_may_be_given_up(tab):
    keys = tab.page.keyboard
    press(tab, "Polygon")
    for points, key, words in (
        ([(20, 10), (60, 10)], "Enter", "A polygon needs three corners: not drawn."),
        ([(20, 10), (60, 10), (40, 10)], "Enter", "The polygon is thinner than a pixel: not drawn."),
        ([(20, 10), (60, 10), (40, 30)], "Escape", "Polygon dropped."),
        ([(20, 10)], "u", "No corner is left: polygon dropped."),
        ([(20, 10), (60, 10), (40, 30)], "b", "Brush, marks object."),
    ):
        click(tab, *points)
        keys.press(key)
        assert said(tab) == words
    drag(tab, (10, 40), (30, 40))
    assert mask(tab, 1)[40, 20] == 1 and tab.ask("len(painter.document['history'])") == 1
    agrees(tab)


def test_a_polygon_waits_while_the_view_changes(tab):
    press(tab, "Polygon")
    click(tab, (30, 20), (60, 20))
    press(tab, "Zoom in")
    press(tab, "Hand")
    drag(tab, (50, 20), (50, 35))
    assert zoomed(tab)[2] < 5
    press(tab, "Background")  # not with the hand
    assert said(tab) == "The hand marks nothing: choose another tool first."
    tab.page.keyboard.press("h")
    press(tab, "Background")
    click(tab, (60, 30))
    tab.page.mouse.dblclick(*spot(tab, 30, 30))
    mask(tab, 1)
    stroke = tab.ask("painter.document['history'][0]")
    assert stroke["label"] == 0 and np.allclose(stroke["points"], [[30, 20], [60, 20], [60, 30], [30, 30]], atol=0.4)
    assert (agrees(tab)[22:28, 32:58] == 2).all()


def test_a_polygon_with_the_keyboard(tab):
    tab.page.locator(".fss-stage").focus()
    strike(tab, "p 10*Shift+ArrowLeft 7*Shift+ArrowUp Shift+ArrowRight Shift+ArrowDown Space")
    assert said(tab) == "Polygon object, corner 1 at column 10, row 10; set the next one."
    tab.page.mouse.move(*spot(tab, 80, 50))  # nobody's hand: what the keyboard draws stays where it is
    strike(tab, "Space 4*Shift+ArrowRight Space ArrowLeft Space")
    assert said(tab) == "Polygon object, corner 3 at column 49, row 10; Enter closes it."
    strike(tab, "Backspace 4*Shift+ArrowDown Space Enter")
    found = mask(tab, 1)
    assert tab.ask("painter.document['history'][0]['points']") == [[10.5, 10.5], [50.5, 10.5], [49.5, 50.5]]
    assert found[15, 40] == 1 and found[45, 20] == 0 and said(tab) == "Polygon object closed with 3 corners."
    agrees(tab)


def test_zoom_by_button_key_and_wheel(tab):
    page = tab.page
    off = "name => document.querySelector(`[aria-label='${name}']`).getAttribute('aria-disabled')"
    assert [page.evaluate(off, name) for name in ("Zoom in", "Zoom out", "Whole picture")] == ["false", "true", "true"]
    press(tab, "Zoom in")
    times, across, down = zoomed(tab)
    assert times == 2 and np.allclose([across, down], [COLUMNS / 4, ROWS / 4], atol=0.2), "around the middle"
    assert said(tab) == "Zoom 2×: columns 24 to 72, rows 16 to 47."
    page.mouse.move(*spot(tab, 40, 30))
    before = spot(tab, 40, 30)
    page.keyboard.press("i")
    assert zoomed(tab)[0] == 4 and np.allclose(spot(tab, 40, 30), before, atol=2), "around the pointer"
    strike(tab, "i i")
    assert zoomed(tab)[0] == 8 and page.evaluate(off, "Zoom in") == "true"
    page.keyboard.press("o")
    assert zoomed(tab)[0] == 4
    page.keyboard.press("w")
    assert zoomed(tab) == pytest.approx((1, 0, 0), abs=0.01) and said(tab) == "The whole picture."

    page.mouse.move(*spot(tab, 40, 30))
    before = spot(tab, 40, 30)
    page.keyboard.down("Control")
    for _ in range(3):
        page.mouse.wheel(0, -100)
    page.wait_for_function("/Zoom 2.5/.test(document.querySelector('.fss-live').textContent)")
    assert zoomed(tab)[0] == pytest.approx(np.exp(0.9), rel=0.02) and np.allclose(spot(tab, 40, 30), before, atol=2)
    for _ in range(4):
        page.mouse.wheel(0, 100)
    page.wait_for_function("/whole/.test(document.querySelector('.fss-live').textContent)")
    page.keyboard.up("Control")
    top, place = page.locator(".fss-stage").bounding_box()["y"], "document.querySelector('.fss-stage')"
    page.mouse.wheel(0, 60)
    page.wait_for_function(f"{place}.getBoundingClientRect().y < {top} - 20")
    page.mouse.wheel(0, -60)
    page.wait_for_function(f"Math.abs({place}.getBoundingClientRect().y - {top}) < 1")
    assert zoomed(tab)[0] == 1, "the wheel alone scrolls the page"
    assert tab.ask("painter.document['history']") == [], "the view is nobody else's business"


def test_drawn_where_it_is_seen_however_zoomed(tab):
    drag(tab, (10, 10), (90, 55))
    mask(tab, 1)
    press(tab, "Zoom in")
    press(tab, "Zoom in")
    agrees(tab)
    press(tab, "Hand")
    before = zoomed(tab)
    drag(tab, (50, 30), (45, 35))
    times, across, down = zoomed(tab)
    assert times == 4 and np.allclose([across - before[1], down - before[2]], [5, -5], atol=0.3)
    assert tab.ask("len(painter.document['history'])") == 1, "the hand draws nothing"
    agrees(tab)
    for _ in range(3):
        _, left, top = zoomed(tab)
        drag(tab, (left + 1, top + 8), (left + 22, top + 8))
    assert zoomed(tab)[1] == pytest.approx(0, abs=0.05), "the picture stays inside its frame"
    press(tab, "Brush")
    tab.page.locator(".fss-size input").fill("5")
    drag(tab, (5, 25), (20, 25), (20, 30))
    found = mask(tab, 2)
    assert np.allclose(tab.ask("painter.document['history'][1]['points']")[0], [5, 25], atol=0.1)
    ring = found[:, 12] == 1  # the column's part of the stroke, away from the other one
    assert found[25, 12] == 1 and ring[20:31].sum() == 5 and found[29, 20] == 1
    press(tab, "Box")
    press(tab, "Background")
    drag(tab, (10.25, 28.25), (15.75, 34.75))
    mask(tab, 3)
    assert tab.ask("painter.document['history'][2]['points']") == [
        [pytest.approx(10.25, abs=0.1), pytest.approx(28.25, abs=0.1)],
        [pytest.approx(15.75, abs=0.1), pytest.approx(34.75, abs=0.1)],
    ]
    agrees(tab)
    press(tab, "Whole picture")
    agrees(tab)


def test_the_view_follows_the_crosshair(tab):
    tab.page.locator(".fss-stage").focus()
    strike(tab, "10*Shift+ArrowLeft 7*Shift+ArrowUp i i Space")
    assert np.allclose(zoomed(tab), (4, 0.4, 0.4), atol=0.1)  # where the crosshair was is where it stays
    strike(tab, "24*Shift+ArrowRight")  # as far on the screen as ever: less of the picture
    assert said(tab) == "Drawing, column 72, row 0."
    times, across, down = zoomed(tab)
    assert times == 4 and across + COLUMNS / 8 < 72 < across + COLUMNS / 4 and down == pytest.approx(0, abs=0.5)
    strike(tab, "Space")
    assert mask(tab, 1)[0, :70].all()
    agrees(tab)


def test_the_keyboard_alone(tab):
    cells = tab.page.locator(".jp-Notebook .jp-Cell").count()
    tab.page.get_by_role("button", name="Whole picture").focus()
    strike(tab, "Tab")
    assert "fss-stage" in tab.page.evaluate(FOCUSED)
    outline = tab.page.evaluate("getComputedStyle(document.querySelector('.fss-stage')).outlineStyle")
    drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean)"
    assert outline == "solid" and tab.page.locator(".fss-cursor").evaluate(drawn), "focus and crosshair must be seen"

    # To the upper left corner and from there: the border holds the crosshair.
    for keys, words in (
        ("10*Shift+ArrowLeft 7*Shift+ArrowUp", "column 0, row 0."),
        ("Shift+ArrowRight Shift+ArrowDown 2*Alt+ArrowRight", "column 12, row 10."),
        ("x", "Box, marks object."),
        ("Space", "Box object begins at column 12, row 10"),
    ):
        strike(tab, keys)
        assert said(tab).startswith(words)
    strike(tab, "3*Shift+ArrowRight 3*Shift+ArrowDown Enter")
    found = mask(tab, 1)
    assert (found[11:40, 13:42] == 1).all() and 28**2 <= found.sum() <= 32**2
    strike(tab, "e Space 8*ArrowLeft Space")
    assert mask(tab, 2)[40, 38] == 0
    strike(tab, "s 0 +")
    assert said(tab) == "Size 3 pixels."
    strike(tab, "4*Shift+ArrowRight Space 12*ArrowDown Enter")
    found = mask(tab, 3)
    assert found[45, 74] == 0 and found[5, 90] == 255 and tab.ask("painter.document['history'][2]['width']") == 3
    strike(tab, "b 1 Space 3*ArrowUp Escape")
    assert said(tab) == "Stroke dropped." and tab.ask("painter.document['cursor']") == 3
    strike(tab, "-")
    assert said(tab) == "Size 6 pixels."
    agrees(tab)
    for key, strokes_in_force in (("u", 2), ("r", 3), ("Control+z", 2), ("Control+Shift+z", 3)):
        strike(tab, key)
        assert (255 in mask(tab, strokes_in_force)) == (strokes_in_force == 3)
    strike(tab, "a Shift+Tab a")  # means nothing here, and in JupyterLab a new cell; on a button as well
    assert tab.page.locator(".jp-Notebook .jp-Cell").count() == cells, "JupyterLab must not take the keys for its own"


def test_python_draws(tab):
    draw = np.random.default_rng(4)
    document = strokes.empty(ROWS, COLUMNS)
    for tool in ["brush", "box", "scribble", "eraser", "polygon"] * 4:
        stroke = {"tool": tool, "points": draw.uniform(-5, 90, (2 if tool == "box" else 5, 2)).round(2).tolist()}
        stroke |= {} if tool == "eraser" else {"label": int(draw.integers(2))}
        document = strokes.add(
            document, stroke | ({} if tool in ("box", "polygon") else {"width": float(draw.uniform(1, 9))})
        )
    assert tab.do(f"painter.document = {document!r}") == ""
    tab.page.wait_for_function("document.querySelector('.fss-summary').textContent.includes('unlabelled')")
    assert len(np.unique(agrees(tab))) == 3
    assert "DatasetError: strokes: cursor 99" in tab.do("painter.document = {**painter.document, 'cursor': 99}")
    assert tab.do("painter.undo(); painter.clear(); painter.undo(); painter.undo()") == ""
    tab.page.wait_for_function("document.querySelector('[aria-label=Redo]').getAttribute('aria-disabled') === 'false'")
    agrees(tab)


def test_every_control_says_what_it_is(tab):
    controls = tab.page.locator(".fss-painter :is(button, input, [tabindex])").evaluate_all(
        "nodes => nodes.map(n => [n.tagName, n.getAttribute('aria-label'), n.getAttribute('aria-pressed')])"
    )
    names = ["Brush", "Eraser", "Box", "Polygon", "Scribble", "Object", "Background", "Brush size in image pixels"]
    names += ["Undo", "Redo", "Clear", "Hand", "Zoom in", "Zoom out", "Whole picture"]
    assert [name for _, name, _ in controls] == [*names, f"Picture to draw on, {COLUMNS} by {ROWS} pixels"]
    assert [name for _, name, pressed in controls if pressed == "true"] == ["Brush", "Object"]
    assert [name for _, name, pressed in controls if pressed == "false"] == [*names[1:5], "Background", "Hand"]
    assert tab.page.locator(".fss-stage img").get_attribute("alt")
    live = tab.page.locator(".fss-live")
    assert live.get_attribute("aria-live") == "polite" and live.get_attribute("role") == "status"


@pytest.mark.parametrize(("theme", "system", "dark"), [
    ("Light", "light", False), ("Dark", "light", True), ("Light", "dark", False), ("Dark", "dark", True),
])  # fmt: skip
def test_themes(tab, theme, system, dark):
    """JupyterLab's theme rules, whatever the system wishes; text keeps the contrast that WCAG AA asks for."""
    page = tab.page
    page.emulate_media(color_scheme=system)
    page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
    page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(not dark).lower()}'")
    # The style sheet follows the attribute.
    page.wait_for_function(f"(([ink, paper]) => (ink > paper) === {str(dark).lower()})(({LOUDNESS})('.fss-live'))")
    for selector in (".fss-live", ".fss-summary", ".fss-size span", "[aria-label=Brush]", "[aria-label=Eraser]"):
        ink, paper = page.evaluate(LOUDNESS, selector)
        light, deep = max(ink, paper), min(ink, paper)
        assert (light + 0.05) / (deep + 0.05) >= 4.5, f"{selector} is hard to read"
        if selector != "[aria-label=Brush]":  # the chosen one is inverted
            assert (ink > paper) == dark


def test_a_picture_where_no_kernel_runs(opened, lab, open_tab):
    """As a stored notebook looks in a fresh clone; one's own run, reopened, is trusted and waits for the widget."""
    bundle, note = opened.ask("painter._repr_mimebundle_()")
    lab.write("stored", "painter", outputs=[nbformat.v4.new_output("display_data", bundle, metadata=note)])
    tab = open_tab("stored", run=False)
    picture = tab.page.locator(".jp-OutputArea-output img")
    picture.wait_for()
    assert picture.get_attribute("src").startswith("data:image/")
    assert tab.page.locator(".fss-stage").count() == 0
    tab.page.close()


def test_nothing_was_loud_and_nobody_outside_was_asked(tab, browser, outside):
    assert browser.noise == [] and browser.strangers == [] and outside.asked == []
    # The ears that heard nothing can hear.
    tab.page.evaluate("fetch('http://example.invalid/page').catch(() => 0)")
    fetch = "import urllib.request as u\ntry: u.urlopen('http://example.invalid/kernel')\nexcept OSError: pass"
    assert tab.do(fetch) == "" and browser.strangers == ["http://example.invalid/page"] and len(browser.noise) == 1
    assert [urllib.parse.urlsplit(line.split()[1]).path for line in outside.asked] == ["/kernel"]
    for heard in (browser.noise, browser.strangers, outside.asked):
        heard.clear()
