// The front end of SupportPainter: one plain module, nothing is loaded from anywhere.
//
// `document` (see strokes.py) is the only thing that travels; all coordinates are image pixels. The marks canvas is a
// preview: pixels on its edges are half transparent, while the mask that Python computes is exact. So is the view: what
// is zoomed and where to stays in the browser.

const TOOLS = { brush: "Brush", eraser: "Eraser", box: "Box", polygon: "Polygon", scribble: "Scribble", hand: "Hand" };
const KEYS = { b: "brush", e: "eraser", x: "box", p: "polygon", s: "scribble", h: "hand" };
const MARKLESS = ["eraser", "hand"]; // for them, object or background is no question
const ZOOM = 8; // times, at most
const NEAR = 8; // CSS pixels: a click this far from a corner means it, a finger moved less than this has not moved
const TWICE = 500; // milliseconds between the two clicks of a double click
const NAMES = { 1: "object", 0: "background" };
const INK = { 1: "#d55e00", 0: "#0072b2" };
const STRIPE = "#56b4e9"; // background is striped: colour alone must not tell the two apart
const HELP = `<summary>How to draw</summary>
<p><b>Brush</b>, <b>box</b> and <b>polygon</b> say exactly what is object; all the rest is background. <b>Scribbles</b>
are hints: once one marks background, what nobody marked stays unlabelled. The <b>eraser</b> makes pixels unmarked
again.</p>
<p>Every click sets a corner of a <b>polygon</b>; a double click or one on its first corner closes it. The wheel with
<kbd>Ctrl</kbd> or <kbd>Cmd</kbd> zooms, and so do two fingers; the <b>hand</b> drags the view.</p>
<p>Keys: <kbd>b</kbd> brush, <kbd>e</kbd> eraser, <kbd>x</kbd> box, <kbd>p</kbd> polygon, <kbd>s</kbd> scribble,
<kbd>1</kbd> object, <kbd>0</kbd> background, <kbd>+</kbd> <kbd>−</kbd> size, <kbd>u</kbd> undo, <kbd>r</kbd> redo,
<kbd>i</kbd> zoom in, <kbd>o</kbd> zoom out, <kbd>w</kbd> whole picture, <kbd>h</kbd> hand and back. With the picture in
focus: arrows move the crosshair (with <kbd>Shift</kbd> in large steps, with <kbd>Alt</kbd> by one pixel),
<kbd>Space</kbd> or <kbd>Enter</kbd> begins and ends a stroke, <kbd>Esc</kbd> drops it. In a polygon <kbd>Space</kbd>
sets a corner, <kbd>Backspace</kbd> takes the last one back, <kbd>Enter</kbd> closes it.</p>`;

const away = ([x0, y0], [x1, y1]) => Math.hypot(x1 - x0, y1 - y0);

function trace(context, points) {
  points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
}

function stripes(context) {
  const tile = make("canvas", { width: 8, height: 8 }), pen = tile.getContext("2d");
  pen.fillStyle = INK[0];
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = STRIPE;
  pen.lineWidth = 2.5;
  for (const shift of [-8, 0, 8]) {
    pen.beginPath();
    trace(pen, [[shift - 2, 10], [shift + 10, -2]]);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
}

// A view: the image point `from` in the canvas' upper left corner, and `scale` canvas pixels per image pixel.
const toCanvas = ({ scale, from }, point) => point.map((value, axis) => (value - from[axis]) * scale);
const toImage = ({ scale, from }, spot) => spot.map((value, axis) => value / scale + from[axis]);

// One stroke on the marks, or of a long one only the part from point `first` on.
function paint(context, stroke, view, ink, first = 0) {
  if (stroke.tool === "clear") return context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  context.globalCompositeOperation = stroke.tool === "eraser" ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = ink[stroke.label] ?? "#000";
  const points = stroke.points.slice(first).map((point) => toCanvas(view, point));
  if (stroke.tool === "box") {
    const [[x0, y0], [x1, y1]] = points;
    return context.fillRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
  }
  context.beginPath();
  if (points.length === 1) {
    context.arc(...points[0], (stroke.width * view.scale) / 2, 0, 2 * Math.PI);
    return context.fill();
  }
  trace(context, points);
  if (stroke.tool === "polygon") return context.fill("evenodd");
  context.lineWidth = stroke.width * view.scale;
  context.lineCap = context.lineJoin = "round";
  context.stroke();
}

function render({ model, el }) {
  const [rows, columns, shownRows, shownColumns] = model.get("_shape");
  const sides = [columns, rows], longest = Math.max(rows, columns);
  const step = Math.max(1, Math.round(longest / 100));
  const largest = Math.max(2, Math.round(longest / 4));
  const pen = (share) => Math.min(largest, Math.max(1, Math.round(longest / share)));
  const widths = { brush: pen(14), eraser: pen(14), scribble: pen(40) };
  // `pointer` is down, `touch` if a finger; `pinch` holds the places of two, `grabbed` the image point in the hand.
  // `typed`: the stroke is the keyboard's; `keys`: so was the last act. `before`: the tool the hand gives way to.
  const state = { tool: "brush", before: "brush", label: 1, at: [columns / 2, rows / 2], stroke: null, typed: false,
    pointer: null, touch: null, pinch: null, grabbed: null, near: false, keys: false };
  const url = URL.createObjectURL(new Blob([model.get("_photo")], { type: "image/jpeg" }));

  // ---- what is on the screen -------------------------------------------------------------------------------------
  const buttons = {}, keys = {}; // by name; what a key does
  function button(name, text, hint, act, pressed = false) {
    const key = /^[a-z0-9]$/.test(hint) && hint;
    if (key) keys[key] = act;
    return (buttons[name] = make("button", { type: "button", title: `${text} (${hint})`, "aria-label": text,
      "aria-pressed": pressed && "false", "aria-keyshortcuts": key, click: act }, text));
  }
  const group = (label, ...nodes) => make("div", { class: "fss-group", role: "group", "aria-label": label }, ...nodes);
  const tools = Object.entries(KEYS).map(([key, tool]) => button(tool, TOOLS[tool], key, () => choose(tool), true));
  const hand = tools.pop();
  const labels = [1, 0].map((label) => button(NAMES[label], label ? "Object" : "Background", `${label}`,
    () => mark(label), true));
  labels.forEach((node, at) =>
    node.prepend(make("span", { class: `fss-swatch ${NAMES[1 - at]}`, "aria-hidden": "true" })));
  const size = make("input", { type: "range", min: 1, max: largest, step: 1,
    "aria-label": "Brush size in image pixels", input: () => resize(Number(size.value)) });
  const sizeText = make("output", { "aria-hidden": "true" });
  const bar = make("div", { class: "fss-bar" },
    group("Tool", ...tools), group("What the stroke marks", ...labels),
    make("div", { class: "fss-size" }, make("span", { "aria-hidden": "true" }, "Size"), size, sizeText),
    group("History", button("undo", "Undo", "u", () => move(-1)), button("redo", "Redo", "r", () => move(1)),
      button("clear", "Clear", "can be undone", clear)),
    group("View", hand, button("in", "Zoom in", "i", () => zoom(1)), button("out", "Zoom out", "o", () => zoom(-1)),
      button("whole", "Whole picture", "w", () => zoom(0))));

  const photo = make("img", { alt: "The picture to draw on", draggable: "false", src: url });
  const dots = Math.min(window.devicePixelRatio || 1, 2);
  const layer = (name) => make("canvas", { class: name, "aria-hidden": "true",
    width: Math.round(shownColumns * dots), height: Math.round(shownRows * dots) });
  const marks = layer("fss-marks"), cursor = layer("fss-cursor");
  const ink = marks.getContext("2d"), over = cursor.getContext("2d");
  const whole = marks.height / rows; // the scale at which all of the picture is seen
  const view = { scale: whole, from: [0, 0] };
  const colours = { 1: INK[1], 0: stripes(ink) };
  const stage = make("div", { class: "fss-stage", tabindex: 0, role: "application",
    "aria-label": `Picture to draw on, ${columns} by ${rows} pixels`, "aria-roledescription": "drawing area",
    style: `width:${shownColumns}px;aspect-ratio:${columns}/${rows}` }, photo, marks, cursor);
  const live = make("span", { class: "fss-live", role: "status", "aria-live": "polite" });
  const summary = make("span", { class: "fss-summary", "aria-label": "Share of the picture" });
  const help = make("details");
  help.innerHTML = HELP;
  const root = make("div", { class: "fss-painter", role: "group",
    "aria-label": "Support painter", style: `--room:${Math.max(shownColumns, 500)}px` },
    bar, stage, make("div", { class: "fss-said" }, live, summary), help);
  el.append(root);

  const say = (text) => (live.textContent = text);
  const place = ([x, y]) => `column ${Math.floor(x)}, row ${Math.floor(y)}`;

  // ---- the document ----------------------------------------------------------------------------------------------
  function send(change) {
    model.set("document", { ...model.get("document"), ...change });
    model.save_changes();
  }
  function commit(stroke) {
    const { history, cursor: end } = model.get("document");
    send({ history: [...history.slice(0, end), stroke], cursor: end + 1 });
  }
  function move(by) {
    if (drawing("polygon")) return by < 0 ? retract() : say("First close the polygon (Enter) or drop it (Escape).");
    if (state.stroke) return drop();
    const { history, cursor: end } = model.get("document");
    if (end + by < 0 || end + by > history.length) return say(by < 0 ? "Nothing to undo." : "Nothing to redo.");
    const { tool } = history[by < 0 ? end - 1 : end];
    send({ cursor: end + by });
    say(`${by < 0 ? "Undone" : "Done again"}: ${tool}. ${model.get("document").cursor} in force.`);
  }
  function clear() {
    if (state.stroke) drop("");
    commit({ tool: "clear" });
    say("Cleared. Undo brings the drawing back.");
  }

  // ---- the view --------------------------------------------------------------------------------------------------
  let frame = 0;
  // Show the image point `point` at the canvas' `spot`, as far as the picture still fills its frame.
  function look(scale, point, spot) {
    view.scale = clamp(scale, whole, ZOOM * whole);
    const times = view.scale / whole;
    view.from = sides.map((side, axis) => clamp(point[axis] - spot[axis] / view.scale, 0, side * (1 - 1 / times)));
    const [left, top] = view.from.map((value, axis) => (-100 * times * value) / sides[axis]);
    photo.style.transform = `translate(${left}%, ${top}%) scale(${times})`;
    // Pixels that can be told apart are shown as such, unless the picture has travelled with fewer than it has.
    photo.classList.toggle("fss-pixels", shownRows * times >= 2 * rows && photo.naturalWidth >= columns);
    colours[0].setTransform(new DOMMatrix([1, 0, 0, 1, ...toCanvas(view, [0, 0])])); // stripes stick to the picture
    buttons.in.setAttribute("aria-disabled", times >= ZOOM);
    for (const name of ["out", "whole"]) buttons[name].setAttribute("aria-disabled", times <= 1);
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(redraw);
  }
  function describe() {
    const times = view.scale / whole;
    if (times <= 1) return say("The whole picture.");
    const [x, y] = view.from.map((from, axis) =>
      `${Math.floor(from)} to ${Math.min(sides[axis], Math.ceil(from + sides[axis] / times)) - 1}`);
    say(`Zoom ${Math.round(10 * times) / 10}×: columns ${x}, rows ${y}.`);
  }
  // To twice (1) or half (-1) the size, or out to the whole picture (0); around the crosshair where there is one.
  function zoom(by) {
    const spot = toCanvas(view, state.at), size = [marks.width, marks.height];
    const seen = (state.near || focused()) && spot.every((value, axis) => value >= 0 && value <= size[axis]);
    const anchor = seen ? spot : size.map((side) => side / 2);
    look(by ? view.scale * 2 ** by : whole, toImage(view, anchor), anchor);
    describe();
  }
  // Bring the crosshair into view, with some of the picture around it.
  function reveal() {
    const room = sides.map((side) => (side * whole) / view.scale);
    const from = state.at.map((at, axis) => clamp(view.from[axis], at - 0.85 * room[axis], at - 0.15 * room[axis]));
    if (view.scale > whole && away(from, view.from) > 0) look(view.scale, from, [0, 0]);
  }

  // ---- drawing ---------------------------------------------------------------------------------------------------
  const drawing = (tool) => state.stroke?.tool === tool;
  const focused = () => stage.matches(":focus-visible") || (state.keys && stage.matches(":focus"));
  function redraw() {
    const { history, cursor: end } = model.get("document");
    paint(ink, { tool: "clear" }, view, colours);
    for (const stroke of history.slice(0, end)) paint(ink, stroke, view, colours);
    if (state.stroke && !drawing("box") && !drawing("polygon")) paint(ink, state.stroke, view, colours);
    buttons.undo.setAttribute("aria-disabled", end === 0 && !state.stroke);
    buttons.redo.setAttribute("aria-disabled", end === history.length);
    showCursor();
  }
  function outline(path, dash = []) {
    over.setLineDash(dash.map((length) => length * dots));
    for (const [colour, width] of [["#000", 3.5], ["#fff", 1.5]]) {
      over.strokeStyle = colour;
      over.lineWidth = width * dots;
      over.beginPath();
      path();
      over.stroke();
    }
  }
  const pixels = (length) => (length * marks.width) / stage.clientWidth; // CSS pixels to those of the canvas
  const closing = () => away(toCanvas(view, state.stroke.points[0]), toCanvas(view, state.at)) <= pixels(NEAR);
  function preview(aimed) {
    const { tool, points: set } = state.stroke, points = aimed || tool === "box" ? [...set, state.at] : set;
    const [first, ...others] = points.map((point) => toCanvas(view, point)), last = others.at(-1);
    over.globalAlpha = 0.45;
    if (others.length) paint(over, { ...state.stroke, points }, view, colours);
    over.globalAlpha = 1;
    if (tool === "box") return outline(() => over.rect(...first, last[0] - first[0], last[1] - first[1]));
    outline(() => trace(over, [first, ...others]));
    if (others.length > 1) outline(() => trace(over, [last, first]), [5, 5]);
    const closes = aimed && set.length > 2 && closing();
    set.map((point) => toCanvas(view, point)).forEach(([x, y], at) => {
      const half = (at ? 2.5 : closes ? 6 : 4) * dots;
      outline(() => over.rect(x - half, y - half, 2 * half, 2 * half));
      over.fillStyle = at || closes ? "#fff" : "#000";
      over.fillRect(x - half, y - half, 2 * half, 2 * half);
    });
  }
  // What a scroll bar would say: which part of the picture is in view.
  function showPart() {
    const size = [marks.width, marks.height], edge = 4 * dots;
    const ends = view.from.map((from, axis) => [from, from + (sides[axis] * whole) / view.scale].map((value) =>
      edge + (value / sides[axis]) * (size[axis] - 3 * edge)));
    outline(() => {
      trace(over, ends[0].map((x) => [x, size[1] - edge]));
      trace(over, ends[1].map((y) => [size[0] - edge, y]));
    });
  }
  function showCursor() {
    over.clearRect(0, 0, cursor.width, cursor.height);
    over.lineCap = over.lineJoin = "round";
    stage.classList.toggle("fss-keys", state.keys); // a press of a key shows the focus even where the mouse had set it
    stage.classList.toggle("fss-hand", state.tool === "hand");
    stage.classList.toggle("fss-held", state.grabbed !== null);
    const aimed = state.near || focused() || state.pointer !== null;
    if (drawing("box") || drawing("polygon")) preview(aimed && state.tool !== "hand");
    if (view.scale > whole) showPart();
    if (!focused() && (!state.near || state.tool === "hand")) return;
    const [x, y] = toCanvas(view, state.at), radius = ((widths[state.tool] ?? 0) * view.scale) / 2;
    if (radius) outline(() => over.arc(x, y, radius, 0, 2 * Math.PI));
    if (focused() || !radius) {
      const arm = radius + 12 * dots, gap = radius ? radius + 2 * dots : 3 * dots;
      outline(() => {
        for (const [dx, dy] of Object.values(ARROWS)) trace(over, [gap, arm].map((by) => [x + dx * by, y + dy * by]));
      });
    }
  }
  function begin(tool = state.tool) {
    state.stroke = { tool, ...(tool === "eraser" ? {} : { label: state.label }),
      ...(tool in widths ? { width: widths[tool] } : {}), points: [rounded(state.at)] };
    redraw();
  }
  const rounded = (point) => point.map((value) => Math.round(value * 100) / 100);
  function extend(last = false) {
    const { tool, points } = state.stroke, point = rounded(state.at), far = away(point, points.at(-1));
    if (!(tool in widths) || far === 0 || (!last && far < 0.5)) return;
    points.push(point);
    paint(ink, state.stroke, view, colours, points.length - 2);
  }
  function finish() {
    const { stroke } = state, { tool, points } = stroke;
    if (tool === "box") points.push(rounded(state.at));
    if (tool === "polygon" && points.length < 3) return drop("A polygon needs three corners: not drawn.");
    if (tool in widths) extend(true);
    else if (thickness(stroke) < 1) return drop(`The ${tool} is thinner than a pixel: not drawn.`);
    state.stroke = null;
    commit(stroke);
    showCursor();
    const where = tool === "polygon" ? `closed with ${points.length} corners` : `ended at ${place(state.at)}`;
    say(`${TOOLS[tool]} ${"label" in stroke ? NAMES[stroke.label] + " " : ""}${where}.`);
  }
  // Of a box its shorter side; of a polygon how far it reaches to both sides of the line to the corner farthest away.
  function thickness({ tool, points: [first, ...others] }) {
    if (tool === "box") return Math.min(...others[0].map((value, axis) => Math.abs(value - first[axis])));
    const far = others.reduce((best, point) => (away(first, point) > away(first, best) ? point : best));
    const [x, y] = far.map((value, axis) => (value - first[axis]) / (away(first, far) || 1));
    const sidewards = others.map((point) => x * (point[1] - first[1]) - y * (point[0] - first[0]));
    return Math.max(0, ...sidewards) - Math.min(0, ...sidewards);
  }
  function corner() {
    if (!drawing("polygon")) begin("polygon");
    else if (away(rounded(state.at), state.stroke.points.at(-1)) === 0) return say("There is a corner already.");
    else state.stroke.points.push(rounded(state.at));
    showCursor();
    const count = state.stroke.points.length, next = count < 3 ? "set the next one" : "Enter closes it";
    say(`Polygon ${NAMES[state.stroke.label]}, corner ${count} at ${place(state.at)}; ${next}.`);
  }
  function retract() {
    const { points } = state.stroke;
    points.pop();
    if (!points.length) return drop("No corner is left: polygon dropped.");
    showCursor();
    say(`Corner ${points.length + 1} taken back.`);
  }
  function drop(text = `${drawing("polygon") ? "Polygon" : "Stroke"} dropped.`) {
    state.stroke = state.pointer = null;
    redraw();
    say(text);
  }

  // ---- choices ---------------------------------------------------------------------------------------------------
  function refresh() {
    const markless = MARKLESS.includes(state.tool);
    for (const tool of Object.keys(TOOLS)) buttons[tool].setAttribute("aria-pressed", tool === state.tool);
    for (const label of [1, 0]) {
      buttons[NAMES[label]].setAttribute("aria-pressed", label === state.label && !markless);
      buttons[NAMES[label]].setAttribute("aria-disabled", markless);
    }
    const width = widths[state.tool];
    size.disabled = width === undefined;
    size.value = width ?? size.value;
    sizeText.textContent = width === undefined ? "–" : `${width} px`;
    showCursor();
  }
  function choose(tool) {
    if (tool === "hand") {
      if (state.tool === "hand") tool = state.before; // once more: back to the tool from before
      else state.before = state.tool;
    }
    // The hand may move the view while a polygon waits for its next corner.
    if (state.stroke && !(drawing("polygon") && ["polygon", "hand"].includes(tool))) drop("");
    state.tool = tool;
    refresh();
    if (tool === "hand") return say(`Hand, drags the view${view.scale > whole ? "" : ": zoom in first"}.`);
    say(`${TOOLS[tool]}${tool === "eraser" ? "" : `, marks ${NAMES[state.label]}`}.`);
  }
  function mark(label) {
    if (MARKLESS.includes(state.tool)) return say(`The ${state.tool} marks nothing: choose another tool first.`);
    if (drawing("polygon")) state.stroke.label = label;
    else if (state.stroke) drop("");
    state.label = label;
    refresh();
    say(`${TOOLS[state.tool]} marks ${NAMES[label]}.`);
  }
  function resize(width) {
    if (!(state.tool in widths)) return say(`The ${state.tool} has no size.`);
    widths[state.tool] = clamp(width, 1, largest);
    refresh();
    say(`Size ${widths[state.tool]} pixels.`);
  }

  // ---- mouse, finger, pen ----------------------------------------------------------------------------------------
  const spot = (event) => within(event, stage).map((share, axis) => share * sides[axis] * whole);
  const follow = (event) => (state.at = toImage(view, spot(event)));
  stage.addEventListener("pointerdown", (event) => {
    if (event.button > 0 && event.button !== 5) return; // 5: the eraser end of a pen
    event.preventDefault();
    if (state.pointer !== null && event.pointerId !== state.pointer) return pinch(event);
    const tool = event.button === 5 ? "eraser" : state.tool, waits = drawing("polygon");
    if (state.stroke && !(waits && ["polygon", "hand"].includes(tool))) drop("");
    state.keys = state.typed = false;
    state.pinch = state.grabbed = null; // had their end got lost
    state.touch = event.pointerType === "touch" ? { from: [event.clientX, event.clientY], moved: false } : null;
    state.pointer = event.pointerId;
    follow(event);
    stage.focus({ preventScroll: true, focusVisible: false });
    stage.setPointerCapture(event.pointerId);
    if (tool === "hand") state.grabbed = state.at;
    else if (tool !== "polygon") begin(tool); // a corner is set where the pointer is let go
    showCursor();
  });
  // Two fingers zoom, unless the first has drawn already: a palm that comes to rest must not cost the stroke.
  function pinch(event) {
    if (state.pinch || !state.touch || event.pointerType !== "touch" || (state.touch.moved && !state.grabbed)) return;
    if (!drawing("polygon")) state.stroke = null;
    state.pinch = new Map([[state.pointer, toCanvas(view, state.at)], [event.pointerId, spot(event)]]);
    stage.setPointerCapture(event.pointerId);
    redraw();
  }
  function stretch(event) {
    if (!state.pinch.has(event.pointerId)) return;
    const measured = ([one, other] = state.pinch.values()) =>
      [away(one, other), one.map((value, axis) => (value + other[axis]) / 2)];
    const [before, middle] = measured(), point = toImage(view, middle);
    state.pinch.set(event.pointerId, spot(event));
    const [after, now] = measured();
    look((view.scale * after) / Math.max(1, before), point, now);
  }
  stage.addEventListener("pointermove", (event) => {
    if (state.pinch) return stretch(event);
    // Not the second finger; and what the keyboard is drawing does not follow the mouse.
    if (state.pointer === null ? state.stroke && state.typed : event.pointerId !== state.pointer) return;
    if (state.touch && away([event.clientX, event.clientY], state.touch.from) > NEAR) state.touch.moved = true;
    if (state.grabbed) look(view.scale, state.grabbed, spot(event));
    const steps = event.getCoalescedEvents?.() ?? [];
    for (const one of steps.length ? steps : [event]) {
      follow(one);
      if (state.stroke) extend();
    }
    state.near = event.pointerType !== "touch";
    showCursor();
  });
  // True when the event was the end of something that leaves no stroke: a pinch, or the hand's way.
  function released(event) {
    const moved = state.pinch?.has(event.pointerId) || (event.pointerId === state.pointer && state.grabbed);
    if (!moved) return false;
    state.pinch = state.grabbed = state.pointer = null;
    showCursor();
    describe();
    return true;
  }
  let clicked = 0; // when the last corner was set
  stage.addEventListener("pointerup", (event) => {
    if (released(event) || event.pointerId !== state.pointer) return;
    state.pointer = null;
    follow(event);
    if (state.stroke && !drawing("polygon")) return finish();
    const last = state.stroke?.points.at(-1);
    const twice = last && event.timeStamp - clicked < TWICE
      && away(toCanvas(view, last), toCanvas(view, state.at)) <= pixels(NEAR);
    if (twice || (last && closing())) return finish();
    clicked = event.timeStamp;
    corner();
  });
  stage.addEventListener("pointercancel", (event) => {
    if (released(event) || event.pointerId !== state.pointer) return;
    if (!drawing("polygon")) return drop();
    state.pointer = null;
  });
  stage.addEventListener("pointerleave", () => {
    state.near = false;
    showCursor();
  });
  // The wheel alone scrolls the page; a touch pad's pinch arrives as a wheel with Ctrl.
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const by = clamp(event.deltaY * (event.deltaMode ? 16 : 1), -30, 30);
    look(view.scale * Math.exp(-by / 100), toImage(view, spot(event)), spot(event));
    if (state.near && !state.typed) follow(event);
    describe();
  }, { passive: false });

  // ---- keyboard --------------------------------------------------------------------------------------------------
  for (const [key, by] of [["+", 1], ["=", 1], ["-", -1]]) keys[key] = () => resize(widths[state.tool] + by);

  // Half a pixel from the border: the crosshair always stands in a pixel.
  const settle = (by) => (state.at = state.at.map((value, axis) =>
    clamp(Math.floor(value) + 0.5 + by[axis], 0.5, sides[axis] - 0.5)));
  function arrow(event) {
    // The same way on the screen, zoomed or not.
    const by = event.altKey ? 1 : Math.max(1, Math.round(((event.shiftKey ? 10 : 1) * step * whole) / view.scale));
    settle(ARROWS[event.key].map((direction) => direction * by));
    if (state.stroke) extend();
    reveal();
    showCursor();
    say(`${state.stroke ? "Drawing, " : ""}${place(state.at)}.`);
  }
  function press(key) {
    if (drawing("polygon") ? key === "Enter" : state.stroke) return finish();
    if (state.tool === "hand" && !state.stroke) return say("The hand draws nothing: choose another tool first.");
    settle([0, 0]);
    state.typed = true;
    if (state.tool === "polygon" || drawing("polygon")) return corner();
    begin();
    const what = state.tool === "eraser" ? "" : ` ${NAMES[state.label]}`;
    say(`${TOOLS[state.tool]}${what} begins at ${place(state.at)}; arrows draw, Space ends, Escape drops it.`);
  }
  root.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    let act = null;
    // Letters are JupyterLab's commands: a slip of the finger would insert a cell, at "a", or cut one. Ctrl+S and the
    // like go on to it (its attribute data-lm-suppress-shortcuts would hold those back too).
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
    if (state.pointer !== null) return;
    if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
      act = () => move(key === "y" || event.shiftKey ? 1 : -1);
    } else if (event.ctrlKey || event.metaKey) return;
    else if (event.target === stage && key in ARROWS) act = () => arrow(event);
    else if (event.target === stage && (key === " " || key === "Enter")) act = () => event.repeat || press(key);
    else if (key === "Escape" && state.stroke) act = () => drop();
    else if (key === "Backspace" && drawing("polygon")) act = retract;
    else if (!event.altKey && Object.hasOwn(keys, key)) act = keys[key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    state.keys = true;
    act();
  });
  stage.addEventListener("focus", () => {
    if (focused()) reveal();
    showCursor();
  });
  // A polygon waits: its next corner may first need the buttons that zoom.
  stage.addEventListener("blur", () => (state.stroke && !drawing("polygon") ? drop() : showCursor()));

  // ---- what Python says ------------------------------------------------------------------------------------------
  const summarise = () => (summary.textContent = model.get("_summary"));
  model.on("change:document", redraw);
  model.on("change:_summary", summarise);
  photo.addEventListener("load", () => look(view.scale, view.from, [0, 0]));
  look(whole, [0, 0], [0, 0]);
  redraw();
  summarise();
  refresh();
  say("Draw on the picture, or focus it and use the keys.");
  return () => {
    cancelAnimationFrame(frame);
    model.off("change:document", redraw);
    model.off("change:_summary", summarise);
    URL.revokeObjectURL(url);
  };
}

export default { render };
