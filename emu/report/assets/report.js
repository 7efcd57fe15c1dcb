"use strict";
// The pictures: theme, keyboard, stepping through events, linked zoom; and tables that can be sorted.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element id -> state
  const config = {
    responsive: true, displaylogo: false, scrollZoom: false, doubleClick: "reset",
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], // none that would send anything anywhere
  };

  // ---- theme: strings that begin with @ name a colour of the style sheet
  function themed(value, colors) {
    if (typeof value === "string") return value[0] === "@" ? colors.getPropertyValue("--" + value.slice(1)).trim() : value;
    if (Array.isArray(value)) return value.length && typeof value[0] === "number" ? value : value.map((item) => themed(item, colors));
    if (value && typeof value === "object") {
      const copy = {};
      for (const key in value) copy[key] = key[0] === "h" && key === "hovertext" ? value[key] : themed(value[key], colors);
      return copy;
    }
    return value;
  }

  function draw(element) {
    const state = drawn.get(element.id), figure = state.figure;
    const colors = getComputedStyle(document.documentElement);
    const data = themed(figure.data, colors), layout = themed(figure.layout, colors);
    if (state.byRecord) data.forEach((trace, i) => Object.assign(trace, figure.alt[i]));
    const unit = state.byRecord ? "records" : "time";
    layout.xaxis.title.text = figure.axes[unit].title;
    layout.xaxis.range = figure.axes[unit].range.slice();
    if (state.unit === unit) { // only the theme changes: keep the view
      layout.xaxis.range = element._fullLayout.xaxis.range.slice();
      layout.yaxis.range = element._fullLayout.yaxis.range.slice();
    }
    state.unit = layout.uirevision = unit;
    layout.autosize = true;
    return Plotly.react(element, data, layout, config);
  }

  // ---- moving about
  function zoomAxis(element, axis, factor, shift) {
    const [low, high] = element._fullLayout[axis].range, size = high - low, middle = (low + high) / 2 + shift * size;
    return Plotly.relayout(element, { [axis + ".range"]: [middle - (size * factor) / 2, middle + (size * factor) / 2] });
  }
  const actions = {
    in: (e) => zoomAxis(e, "xaxis", 0.5, 0), out: (e) => zoomAxis(e, "xaxis", 2, 0),
    earlier: (e) => zoomAxis(e, "xaxis", 1, -0.25), later: (e) => zoomAxis(e, "xaxis", 1, 0.25),
    higher: (e) => zoomAxis(e, "yaxis", 1, 0.25), lower: (e) => zoomAxis(e, "yaxis", 1, -0.25),
    taller: (e) => zoomAxis(e, "yaxis", 0.5, 0),
    reset: (e) => {
      const { figure, byRecord } = drawn.get(e.id);
      return Plotly.relayout(e, {
        "xaxis.range": figure.axes[byRecord ? "records" : "time"].range.slice(), "yaxis.range": figure.layout.yaxis.range.slice(),
      });
    },
    previous: (e) => step(e, -1), next: (e) => step(e, 1),
  };
  const keys = {
    "+": "in", "=": "in", "-": "out", ArrowLeft: "earlier", ArrowRight: "later", ArrowUp: "higher", ArrowDown: "lower",
    "0": "reset", p: "previous", n: "next", "*": "taller",
  };

  function say(element, html) {
    const output = element.parentElement.querySelector("output"), plain = document.createElement("template");
    plain.innerHTML = html.replaceAll("<br>", "\n");
    output.textContent = plain.content.textContent;
  }

  function step(element, direction) {
    const state = drawn.get(element.id), events = state.events;
    if (!events.length) return;
    state.at = state.at === null ? (direction > 0 ? 0 : events.length - 1) : Math.min(Math.max(state.at + direction, 0), events.length - 1);
    const { trace, point } = events[state.at], shown = element.data[trace];
    const x = shown.x[point], range = element._fullLayout.xaxis.range;
    const show = () => {
      if (shown.visible !== "legendonly") Plotly.Fx.hover(element, [{ curveNumber: trace, pointNumber: point }]);
      say(element, shown.hovertext[point]);
    };
    if (x < range[0] || x > range[1]) {
      const half = (range[1] - range[0]) / 2;
      Plotly.relayout(element, { "xaxis.range": [x - half, x + half] }).then(show);
    } else show();
  }

  // ---- the same stretch of time in the pictures of other kernels
  let linking = false;
  function link(element, change) {
    if (linking || !("xaxis.range[0]" in change || "xaxis.range" in change)) return;
    const state = drawn.get(element.id), update = { "xaxis.range": element._fullLayout.xaxis.range.slice() };
    linking = true;
    const others = [...drawn].filter(([id, other]) => id !== element.id && other.figure.group === state.figure.group && other.byRecord === state.byRecord);
    Promise.all(others.map(([id]) => Plotly.relayout(document.getElementById(id), update))).finally(() => { linking = false; });
  }

  function open(element) {
    if (drawn.has(element.id)) return;
    const figure = figures[element.id], events = [];
    figure.data.forEach((trace, i) => {
      if (trace.type === "scatter" && trace.mode === "markers") figure.alt[i].x.forEach((n, point) => events.push({ n, trace: i, point }));
    });
    events.sort((a, b) => a.n - b.n);
    drawn.set(element.id, { figure, events, at: null, byRecord: false, unit: null });
    draw(element).then(() => {
      element.on("plotly_hover", ({ points: [point] }) => { if (point.data.hovertext) say(element, point.data.hovertext[point.pointNumber]); });
      element.on("plotly_relayout", (change) => link(element, change));
      element.dataset.ready = "yes";
    });
    const tools = element.parentElement.querySelector(".tools");
    tools.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) actions[button.dataset.do](element);
    });
    tools.querySelector("input").addEventListener("change", (event) => {
      drawn.get(element.id).byRecord = event.target.checked;
      draw(element);
    });
    element.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || event.target !== element || !(event.key in keys)) return;
      event.preventDefault();
      actions[keys[event.key]](element);
    });
  }

  for (const details of document.querySelectorAll("details.space")) {
    const element = details.querySelector(".figure");
    details.addEventListener("toggle", () => { if (details.open) open(element); });
    if (details.open) open(element);
  }
  dark.addEventListener("change", () => { for (const id of drawn.keys()) draw(document.getElementById(id)); });

  // ---- tables
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
        const order = new Intl.Collator("en", { numeric: true });
        const rows = [...table.tBodies[0].rows].sort((a, b) => order.compare(key(a), key(b)) * (falling ? -1 : 1));
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
