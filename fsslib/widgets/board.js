// The front end of Board: pictures and bars with words, one plain module, nothing is loaded from anywhere.
//
// A picture with `pick` can be pointed at, by mouse, finger or arrow keys: `point` then names it and the pixel.

// One figure and what it needs to be changed in place: focus stays where it was while pictures come and go.
function figure(panel, send) {
  const photo = make("img", { draggable: "false" });
  const marks = make("div", { class: "fss-marks-layer", "aria-hidden": "true" });
  const pick = { class: "fss-panel fss-pick", tabindex: 0, role: "application",
    "aria-roledescription": "picture to point at" };
  const stage = make("div", panel.pick ? pick : { class: "fss-panel" }, photo, marks);
  const chart = make("div", { class: "fss-chart" });
  const caption = make("figcaption");
  const node = make("figure", { class: "fss-figure" }, panel.bars ? chart : stage, caption);
  node.dataset.key = panel.key;
  let now = panel, url = null;

  function choose(x, y) {
    const [rows, columns] = now.size;
    send({ panel: now.key, x: clamp(Math.floor(x), 0, columns - 1), y: clamp(Math.floor(y), 0, rows - 1) });
  }
  if (panel.pick) {
    const follow = (event) => choose(...within(event, photo).map((share, axis) => share * now.size[1 - axis]));
    let held = false;
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      stage.focus({ preventScroll: true, focusVisible: false });
      stage.setPointerCapture(event.pointerId);
      held = true;
      follow(event);
    });
    stage.addEventListener("pointermove", (event) => held && follow(event));
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (held = false));
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey) return;
      event.stopPropagation(); // letters are JupyterLab's commands
      if (!(event.key in ARROWS)) return;
      event.preventDefault();
      const [dx, dy] = ARROWS[event.key], [x, y] = now.at ?? [now.size[1] / 2, now.size[0] / 2];
      const by = event.altKey ? 1 : (event.shiftKey ? 5 : 1) * Math.max(1, Math.round(Math.max(...now.size) / 25));
      choose(x + dx * by, y + dy * by);
    });
  }

  function draw(next) {
    now = next;
    caption.textContent = next.caption;
    if (next.bars) return chart.replaceChildren(...bars(next));
    const [rows, columns] = next.size;
    stage.style.aspectRatio = `${columns}/${rows}`;
    stage.style.width = `${next.width}px`;
    photo.classList.toggle("fss-pixels", next.width >= 1.5 * columns);
    photo.alt = next.alt;
    if (next.pick) stage.setAttribute("aria-label", `${next.caption}. Arrow keys move the point. ${next.alt}`);
    const old = url;
    url = URL.createObjectURL(new Blob([next.image], { type: next.mime }));
    photo.src = url;
    if (old) URL.revokeObjectURL(old);
    marks.replaceChildren(...(next.marks ?? []).map(([x, y, text, kind]) =>
      make("span", { class: `fss-mark fss-mark-${kind}`,
        style: `left:${(100 * (x + 0.5)) / columns}%;top:${(100 * (y + 0.5)) / rows}%` }, text)));
  }
  draw(panel);
  return { node, draw, free: () => url && URL.revokeObjectURL(url), kind: kind(panel) };
}
const kind = (panel) => `${Boolean(panel.bars)} ${panel.pick}`; // a figure can be changed in place while it stays

// Rows of bars as a table: read aloud it is the numbers, looked at it is a chart.
function bars({ bars: rows, alt, width }) {
  const top = Math.max(1e-9, ...rows.flatMap((row) => row.values.map((value) => Math.abs(value.value))));
  const table = make("table", { "aria-label": alt, style: `width:${width}px` });
  for (const row of rows) {
    const cell = make("td");
    row.values.forEach((value, at) => {
      const bar = make("div", { class: `fss-bar-value fss-series-${at}` });
      bar.style.width = `${(58 * Math.abs(value.value)) / top}%`;
      cell.append(make("div", { class: "fss-bar-row", title: `${value.name}: ${value.text}` }, bar,
        make("span", {}, `${value.text}${row.values.length > 1 ? ` ${value.name}` : ""}`)));
    });
    table.append(make("tr", {}, make("th", { scope: "row" }, row.label), cell));
  }
  return [table];
}

// What ipywidgets leaves open: sliders have a label that only eyes connect with the handle, and JupyterLab takes the
// arrow keys of a choice to move between cells.
function care(el) {
  const explorer = el.closest(".fss-explorer"), controls = explorer?.querySelector(".fss-controls");
  if (controls && !controls.dataset.kept) {
    controls.dataset.kept = true;
    controls.addEventListener("keydown", (event) => {
      const running = event.key === "Enter" && event.shiftKey;
      if (!event.ctrlKey && !event.metaKey && !running) event.stopPropagation();
    });
  }
  for (const slider of explorer?.querySelectorAll(".widget-slider") ?? []) {
    const label = slider.querySelector(".widget-label");
    label.removeAttribute("title");
    slider.querySelector("[role=slider]")?.setAttribute("aria-label", label.textContent);
    slider.querySelector(".widget-readout")?.setAttribute("aria-label", `${label.textContent}, as a number`);
  }
}

function render({ model, el }) {
  const place = make("div", { class: "fss-panels" });
  const busy = make("div", { class: "fss-busy", "aria-hidden": "true" }, "Computing …");
  const words = make("div", { class: "fss-words", role: "status", "aria-live": "polite" });
  const trouble = make("div", { class: "fss-trouble", role: "alert" });
  const root = make("div", { class: "fss-board", role: "group", "aria-label": model.get("label") },
    busy, place, trouble, words);
  el.append(root);
  const shown = new Map();
  const send = (point) => {
    model.set("point", point);
    model.save_changes();
  };

  function draw() {
    const panels = model.get("panels"), kinds = new Map(panels.map((panel) => [panel.key, kind(panel)]));
    for (const [key, { node, free, kind: before }] of shown) {
      if (kinds.get(key) === before) continue;
      free();
      node.remove();
      shown.delete(key);
    }
    panels.forEach((panel, at) => {
      if (shown.has(panel.key)) shown.get(panel.key).draw(panel);
      else shown.set(panel.key, figure(panel, send));
      const { node } = shown.get(panel.key);
      if (place.children[at] !== node) place.insertBefore(node, place.children[at] ?? null);
    });
    care(el);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
  }
  // The style sheet shows it only after 300 ms: quick answers do not flicker.
  const work = () => {
    root.classList.toggle("fss-working", model.get("busy"));
    root.setAttribute("aria-busy", model.get("busy"));
  };
  const changes = { "change:panels": draw, "change:words": () => (words.textContent = model.get("words")),
    "change:trouble": () => (trouble.textContent = model.get("trouble")), "change:busy": work };
  for (const [name, act] of Object.entries(changes)) model.on(name, act);
  for (const act of Object.values(changes)) act();
  requestAnimationFrame(() => care(el)); // once everything is on the page
  return () => {
    for (const [name, act] of Object.entries(changes)) model.off(name, act);
    for (const figure of shown.values()) figure.free();
  };
}

export default { render };
