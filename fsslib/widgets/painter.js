// The front end of SupportPainter: one plain module, nothing is loaded from anywhere.
//
// `document` (see strokes.py) is the only thing that travels; all coordinates are image pixels. The marks canvas is a
// preview: pixels on its edges are half transparent, while the mask that Python computes is exact.

const TOOLS = { brush: "Brush", eraser: "Eraser", box: "Box", scribble: "Scribble" };
const KEYS = { b: "brush", e: "eraser", x: "box", s: "scribble" };
const NAMES = { 1: "object", 0: "background" };
const INK = { 1: "#d55e00", 0: "#0072b2" };
const STRIPE = "#56b4e9"; // background is striped: colour alone must not tell the two apart
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HELP = `<summary>How to draw</summary>
<p><b>Brush</b> and <b>box</b> say exactly what is object; all the rest is background. <b>Scribbles</b> are hints: once
one marks background, what nobody marked stays unlabelled. The <b>eraser</b> makes pixels unmarked again.</p>
<p>Keys: <kbd>b</kbd> brush, <kbd>e</kbd> eraser, <kbd>x</kbd> box, <kbd>s</kbd> scribble, <kbd>1</kbd> object,
<kbd>0</kbd> background, <kbd>+</kbd> <kbd>−</kbd> size, <kbd>u</kbd> undo, <kbd>r</kbd> redo. With the picture in focus:
arrows move the crosshair (with <kbd>Shift</kbd> in large steps, with <kbd>Alt</kbd> by one pixel), <kbd>Space</kbd> or
<kbd>Enter</kbd> begins and ends a stroke, <kbd>Esc</kbd> drops it.</p>`;

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function stripes(context) {
  const tile = make("canvas", { width: 8, height: 8 }), pen = tile.getContext("2d");
  pen.fillStyle = INK[0];
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = STRIPE;
  pen.lineWidth = 2.5;
  for (const shift of [-8, 0, 8]) {
    pen.beginPath();
    pen.moveTo(shift - 2, 10);
    pen.lineTo(shift + 10, -2);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
}

// One stroke on the marks, or of a long one only the part from point `from` on; `scale`: canvas pixels per image pixel.
function paint(context, stroke, scale, ink, from = 0) {
  if (stroke.tool === "clear") return context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  context.globalCompositeOperation = stroke.tool === "eraser" ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = ink[stroke.label] ?? "#000";
  const points = stroke.points.slice(from).map(([x, y]) => [x * scale, y * scale]);
  if (stroke.tool === "box") {
    const [[x0, y0], [x1, y1]] = points;
    return context.fillRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
  }
  context.beginPath();
  if (points.length === 1) {
    context.arc(...points[0], (stroke.width * scale) / 2, 0, 2 * Math.PI);
    return context.fill();
  }
  context.lineWidth = stroke.width * scale;
  context.lineCap = context.lineJoin = "round";
  points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function render({ model, el }) {
  const [rows, columns, shownRows, shownColumns] = model.get("_shape");
  const longest = Math.max(rows, columns);
  const step = Math.max(1, Math.round(longest / 100));
  const largest = Math.max(2, Math.round(longest / 4));
  const pen = (share) => Math.min(largest, Math.max(1, Math.round(longest / share)));
  const widths = { brush: pen(14), eraser: pen(14), scribble: pen(40) };
  const state = { tool: "brush", label: 1, at: [columns / 2, rows / 2], stroke: null, pointer: null, near: false,
    keys: false };
  const url = URL.createObjectURL(new Blob([model.get("_photo")], { type: "image/jpeg" }));

  // ---- what is on the screen -------------------------------------------------------------------------------------
  const buttons = {};
  function button(name, text, keys, act, pressed) {
    const node = make("button", { type: "button", title: `${text} (${keys})`, "aria-label": text }, text);
    if (pressed) node.setAttribute("aria-pressed", "false");
    if (/^[a-z0-9]$/.test(keys)) node.setAttribute("aria-keyshortcuts", keys);
    node.addEventListener("click", act);
    return (buttons[name] = node);
  }
  const group = (label, ...nodes) => make("div", { class: "fss-group", role: "group", "aria-label": label }, ...nodes);
  const tools = Object.entries(KEYS).map(([key, tool]) => button(tool, TOOLS[tool], key, () => choose(tool), true));
  const labels = [1, 0].map((label) => button(NAMES[label], label ? "Object" : "Background", `${label}`,
    () => mark(label), true));
  labels.forEach((node, at) =>
    node.prepend(make("span", { class: `fss-swatch ${NAMES[1 - at]}`, "aria-hidden": "true" })));
  const size = make("input", { type: "range", min: 1, max: largest, step: 1,
    "aria-label": "Brush size in image pixels" });
  const sizeText = make("output", { "aria-hidden": "true" });
  const bar = make("div", { class: "fss-bar" },
    group("Tool", ...tools), group("What the stroke marks", ...labels),
    make("div", { class: "fss-size" }, make("span", { "aria-hidden": "true" }, "Size"), size, sizeText),
    group("History", button("undo", "Undo", "u", () => move(-1)), button("redo", "Redo", "r", () => move(1)),
      button("clear", "Clear", "can be undone", clear)));

  const photo = make("img", { alt: "The picture to draw on", draggable: "false", src: url });
  if (shownRows >= 2 * rows) photo.className = "fss-pixels";
  const dots = Math.min(window.devicePixelRatio || 1, 2);
  const layer = (name) => make("canvas", { class: name, "aria-hidden": "true",
    width: Math.round(shownColumns * dots), height: Math.round(shownRows * dots) });
  const marks = layer("fss-marks"), cursor = layer("fss-cursor");
  const ink = marks.getContext("2d"), over = cursor.getContext("2d");
  const scale = marks.height / rows;
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
    if (state.stroke) return drop("Stroke dropped.");
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

  // ---- drawing ---------------------------------------------------------------------------------------------------
  function redraw() {
    const { history, cursor: end } = model.get("document");
    paint(ink, { tool: "clear" }, scale, colours);
    for (const stroke of history.slice(0, end)) paint(ink, stroke, scale, colours);
    if (state.stroke && state.stroke.tool !== "box") paint(ink, state.stroke, scale, colours);
    buttons.undo.setAttribute("aria-disabled", end === 0);
    buttons.redo.setAttribute("aria-disabled", end === history.length);
  }
  function outline(path) {
    for (const [colour, width] of [["#000", 3.5], ["#fff", 1.5]]) {
      over.strokeStyle = colour;
      over.lineWidth = width * dots;
      over.beginPath();
      path();
      over.stroke();
    }
  }
  function showCursor() {
    over.clearRect(0, 0, cursor.width, cursor.height);
    const [x, y] = state.at.map((value) => value * scale);
    if (state.stroke?.tool === "box") {
      const [[x0, y0]] = state.stroke.points;
      over.globalAlpha = 0.45;
      paint(over, { ...state.stroke, points: [[x0, y0], state.at] }, scale, colours);
      over.globalAlpha = 1;
      outline(() => over.rect(x0 * scale, y0 * scale, x - x0 * scale, y - y0 * scale));
    }
    // A press of a key shows the focus even where the mouse had set it.
    stage.classList.toggle("fss-keys", state.keys);
    const focused = stage.matches(":focus-visible, .fss-keys:focus");
    if (!focused && !state.near) return;
    const radius = ((widths[state.tool] ?? 0) * scale) / 2;
    if (radius) outline(() => over.arc(x, y, radius, 0, 2 * Math.PI));
    if (focused || !radius) {
      const arm = radius + 12 * dots, gap = radius ? radius + 2 * dots : 3 * dots;
      outline(() => {
        for (const [dx, dy] of Object.values(ARROWS)) {
          over.moveTo(x + dx * gap, y + dy * gap);
          over.lineTo(x + dx * arm, y + dy * arm);
        }
      });
    }
  }
  function begin(tool = state.tool) {
    state.stroke = { tool, ...(tool === "eraser" ? {} : { label: state.label }),
      ...(tool === "box" ? {} : { width: widths[tool] }), points: [rounded(state.at)] };
    redraw();
    showCursor();
  }
  const rounded = (point) => point.map((value) => Math.round(value * 100) / 100);
  function extend(last = false) {
    const { tool, points } = state.stroke, point = rounded(state.at), end = points[points.length - 1];
    const far = Math.hypot(point[0] - end[0], point[1] - end[1]);
    if (tool === "box" || far === 0 || (!last && far < 0.5)) return;
    points.push(point);
    paint(ink, state.stroke, scale, colours, points.length - 2);
  }
  function finish() {
    const { stroke } = state;
    if (stroke.tool === "box") {
      stroke.points.push(rounded(state.at));
      const [[x0, y0], [x1, y1]] = stroke.points;
      if (Math.min(Math.abs(x1 - x0), Math.abs(y1 - y0)) < 1) return drop("The box is thinner than a pixel: not drawn.");
    } else extend(true);
    state.stroke = null;
    commit(stroke);
    showCursor();
    say(`${TOOLS[stroke.tool]} ${"label" in stroke ? NAMES[stroke.label] + " " : ""}ended at ${place(state.at)}.`);
  }
  function drop(text) {
    state.stroke = state.pointer = null;
    redraw();
    showCursor();
    say(text);
  }

  // ---- choices ---------------------------------------------------------------------------------------------------
  function refresh() {
    for (const tool of Object.keys(TOOLS)) buttons[tool].setAttribute("aria-pressed", tool === state.tool);
    for (const label of [1, 0]) {
      buttons[NAMES[label]].setAttribute("aria-pressed", label === state.label && state.tool !== "eraser");
      buttons[NAMES[label]].setAttribute("aria-disabled", state.tool === "eraser");
    }
    const width = widths[state.tool];
    size.disabled = width === undefined;
    size.value = width ?? size.value;
    sizeText.textContent = width === undefined ? "–" : `${width} px`;
    showCursor();
  }
  function choose(tool) {
    if (state.stroke) drop("");
    state.tool = tool;
    refresh();
    say(`${TOOLS[tool]}${tool === "eraser" ? "" : `, marks ${NAMES[state.label]}`}.`);
  }
  function mark(label) {
    if (state.tool === "eraser") return say("The eraser marks nothing: choose another tool first.");
    if (state.stroke) drop("");
    state.label = label;
    refresh();
    say(`${TOOLS[state.tool]} marks ${NAMES[label]}.`);
  }
  function resize(width) {
    if (!(state.tool in widths)) return say("A box has no size.");
    widths[state.tool] = Math.min(largest, Math.max(1, width));
    refresh();
    say(`Size ${widths[state.tool]} pixels.`);
  }
  size.addEventListener("input", () => resize(Number(size.value)));

  // ---- mouse, finger, pen ----------------------------------------------------------------------------------------
  function follow(event) {
    const area = stage.getBoundingClientRect();
    const [x, y] = [event.clientX - area.left, event.clientY - area.top];
    state.at = [(x / area.width) * columns, (y / area.height) * rows];
  }
  stage.addEventListener("pointerdown", (event) => {
    if (event.button > 0 && event.button !== 5) return; // 5: the eraser end of a pen
    event.preventDefault();
    if (state.pointer !== null) return; // a second finger
    if (state.stroke) drop("");
    stage.focus({ preventScroll: true, focusVisible: false });
    stage.setPointerCapture(event.pointerId);
    state.pointer = event.pointerId;
    state.keys = false;
    follow(event);
    begin(event.button === 5 ? "eraser" : state.tool);
  });
  stage.addEventListener("pointermove", (event) => {
    // Not the second finger; and what the keyboard is drawing does not follow the mouse.
    if (state.pointer === null ? state.stroke : event.pointerId !== state.pointer) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    for (const one of steps.length ? steps : [event]) {
      follow(one);
      if (state.stroke) extend();
    }
    state.near = event.pointerType !== "touch";
    showCursor();
  });
  stage.addEventListener("pointerup", (event) => {
    if (event.pointerId !== state.pointer) return;
    state.pointer = null;
    follow(event);
    finish();
  });
  stage.addEventListener("pointercancel", (event) => event.pointerId === state.pointer && drop("Stroke dropped."));
  stage.addEventListener("pointerleave", () => {
    state.near = false;
    showCursor();
  });

  // ---- keyboard --------------------------------------------------------------------------------------------------
  const keys = { u: () => move(-1), r: () => move(1), 0: () => mark(0), 1: () => mark(1),
    "+": () => resize(widths[state.tool] + 1), "=": () => resize(widths[state.tool] + 1),
    "-": () => resize(widths[state.tool] - 1) };
  for (const [key, tool] of Object.entries(KEYS)) keys[key] = () => choose(tool);

  // Half a pixel from the border: the crosshair always stands in a pixel.
  const within = (value, side) => Math.min(side - 0.5, Math.max(0.5, value));
  function arrow(event) {
    const by = event.altKey ? 1 : event.shiftKey ? 10 * step : step;
    const [dx, dy] = ARROWS[event.key];
    state.at = [within(Math.floor(state.at[0]) + 0.5 + dx * by, columns),
      within(Math.floor(state.at[1]) + 0.5 + dy * by, rows)];
    if (state.stroke) extend();
    showCursor();
    say(`${state.stroke ? "Drawing, " : ""}${place(state.at)}.`);
  }
  function press() {
    if (state.stroke) return finish();
    state.at = state.at.map((value, axis) => within(Math.floor(value) + 0.5, [columns, rows][axis]));
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
    else if (event.target === stage && (key === " " || key === "Enter")) act = event.repeat ? () => {} : press;
    else if (key === "Escape" && state.stroke) act = () => drop("Stroke dropped.");
    else if (!event.altKey && Object.hasOwn(keys, key)) act = keys[key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    state.keys = true;
    act();
  });
  stage.addEventListener("focus", showCursor);
  stage.addEventListener("blur", () => (state.stroke ? drop("Stroke dropped.") : showCursor()));

  // ---- what Python says ------------------------------------------------------------------------------------------
  const summarise = () => (summary.textContent = model.get("_summary"));
  model.on("change:document", redraw);
  model.on("change:_summary", summarise);
  redraw();
  summarise();
  refresh();
  say("Draw on the picture, or focus it and use the keys.");
  return () => {
    model.off("change:document", redraw);
    model.off("change:_summary", summarise);
    URL.revokeObjectURL(url);
  };
}

export default { render };
