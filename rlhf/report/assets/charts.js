"use strict";

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 4", "2 3"];

/** An element with attributes and children; text children are text, never HTML. */
function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Four significant digits, with an exponent only where there is no other way. */
function format(value) {
  if (value === null || value === undefined) return "not a number";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(2).replace("-", "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

/** Round numbers that divide [low, high] into about `count` parts. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw) ?? 10 * power;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step)
    .map((tick) => Number(tick.toPrecision(12)));
}

function extent(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
}

function padded([low, high]) {
  const margin = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  return [low - margin, high + margin];
}

/** A horizontal line belongs into the chart as long as it does not squash the data. */
function withLines(range, lines) {
  return lines.reduce(([low, high], { y }) => {
    const widened = [Math.min(low, y), Math.max(high, y)];
    return widened[1] - widened[0] <= 2.5 * (high - low) ? widened : [low, high];
  }, range);
}

class Chart {
  constructor(host, spec, onCursor = null) {
    Object.assign(this, { host, spec, onCursor, hidden: new Set(), cursor: null, warnings: spec.warnings ?? [] });
    this.legend = make("div", { class: "chart-legend" });
    this.picture = make("div", { class: "picture" });
    this.tip = make("div", { class: "tip", hidden: "" });
    this.tip.setAttribute("role", "status");
    host.replaceChildren(this.legend, this.picture);
    if (spec.legend || spec.series.length > 1) this.drawLegend();
    if (this.warnings.length) this.explainWarnings();
    new ResizeObserver(() => { if (this.picture.clientWidth !== this.width) this.render(); }).observe(this.picture);
  }

  drawLegend() {
    this.spec.series.forEach((series, index) => {
      const key = draw("svg", { class: `key c${series.color}`, viewBox: "0 0 26 10", "aria-hidden": "true" },
        draw("line", { class: "curve", x1: 1, x2: 25, y1: 5, y2: 5, "stroke-dasharray": this.dash(series) }));
      const button = make("button", { type: "button", "aria-pressed": "true" }, key, series.label);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(index)) this.hidden.add(index);
        button.setAttribute("aria-pressed", String(!this.hidden.has(index)));
        this.render();
      });
      this.legend.append(button);
    });
  }

  explainWarnings() {
    const key = draw("svg", { class: "warning", viewBox: "0 0 12 10", width: 12, height: 10, "aria-hidden": "true" },
      draw("path", { d: "M1 1H11L6 10Z" }));
    const names = [...new Set(this.warnings.map(({ label }) => label))];
    this.legend.append(make("span", { class: "warning-key" }, key, `warning: ${names.join(", ")}`));
  }

  dash(series) { return this.spec.plane ? "" : DASHES[series.color % DASHES.length]; }

  shown() { return this.spec.series.filter((_, index) => !this.hidden.has(index)); }

  render() {
    const width = this.width = this.picture.clientWidth;
    if (!width) return;
    const { spec } = this, height = spec.height ?? (spec.plane ? 320 : 210), series = this.shown();
    const ys = series.flatMap((s) => [...s.y, ...(s.lo ?? []), ...(s.hi ?? []), spec.bars]);
    const [y0, y1] = padded(withLines(extent(ys), spec.lines));
    const [x0, x1] = spec.plane ? padded(extent(series.flatMap((s) => s.x))) : extent(series.flatMap((s) => s.x));
    const yTicks = ticks(y0, y1, 4), labels = yTicks.map(format);
    const left = 12 + 7 * Math.max(...labels.map((label) => label.length)), bottom = height - 36;
    this.x = (value) => left + (x1 > x0 ? (value - x0) / (x1 - x0) : 0.5) * (width - left - 12);
    this.y = (value) => 10 + (1 - (value - y0) / (y1 - y0)) * (bottom - 10);
    const svg = draw("svg", { width, height, role: "img", tabindex: 0, "aria-label": spec.words });
    if (spec.shade) svg.append(this.shade(spec.shade, bottom));
    yTicks.forEach((tick, i) => svg.append(
      draw("line", { class: "grid", x1: left, x2: width - 12, y1: this.y(tick), y2: this.y(tick) }),
      draw("text", { x: left - 6, y: this.y(tick) + 4, "text-anchor": "end" }, labels[i])));
    for (const tick of ticks(x0, x1 > x0 ? x1 : x0 + 1, Math.max(3, Math.floor(width / 60)))) {
      if (tick < x0 || tick > x1 || (!spec.plane && !Number.isInteger(tick))) continue;
      svg.append(draw("text", { x: this.x(tick), y: bottom + 16, "text-anchor": "middle" }, format(tick)));
    }
    svg.append(draw("text", { class: "axis", x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, spec.axis));
    for (const s of series) svg.append(spec.bars === undefined ? this.curve(s) : this.bars(s));
    for (const s of spec.plane ? series : series.slice(0, 1)) {
      svg.append(...this.warningsOf(s).map((warning) => this.warning(s, warning, bottom)));
    }
    for (const line of spec.lines) {
      const outside = line.y > y1 ? "↑ " : line.y < y0 ? "↓ " : "";
      svg.append(...this.level(line, left, width, outside, outside === "↓ " ? bottom : 0));
    }
    this.marks = draw("g", { class: "marks" });
    svg.append(this.marks);
    this.listen(svg);
    this.picture.replaceChildren(svg, this.tip);
    this.svg = svg;
    if (this.cursor !== null) this.point(this.cursor, false);
  }

  shade([from, to], bottom) {
    const start = this.x(from), end = Math.max(this.x(to + 1), start + 3);
    return draw("g", { class: "shade" }, draw("rect", { x: start, y: 10, width: end - start, height: bottom - 10 },
      draw("title", {}, "critic warm-up: the policy does not move yet")));
  }

  /** A horizontal line; where it lies outside the chart, an arrow to it. */
  level(line, left, width, outside, edge) {
    const y = outside ? edge : this.y(line.y);
    const name = { class: "level-name", x: width - 14, y: y > 30 ? y - 5 : y + 14, "text-anchor": "end" };
    if (outside) return [draw("text", name, outside + line.label)];
    return [draw("line", { class: "level", x1: left, x2: width - 12, y1: y, y2: y }),
      draw("text", name, line.label)];
  }

  /** A triangle where a warning was raised: above a line across the chart, or in the plane on the update's point. */
  warning(s, warning, bottom) {
    const i = this.pointOf(s, warning), { plane } = this.spec;
    const x = this.x(s.x[i]), y = plane ? this.y(s.y[i] ?? 0) - 7 : 10;
    const group = draw("g", { class: "warning" }, draw("path", { d: `M${x - 5} ${y - 9}h10l-5 9Z` }));
    if (!plane) group.append(draw("line", { x1: x, x2: x, y1: y, y2: bottom }));
    return group;
  }

  /** The warnings that a line shows: all of them, or in the plane those of its own runs. */
  warningsOf(s) { return this.warnings.filter(({ line }) => !this.spec.plane || line === s.label); }

  /** The point of a line that stands for the update of a warning; thinned curves do not have every update. */
  pointOf(s, warning) {
    const away = (this.spec.plane ? s.t : s.x).map((step) => Math.abs(step - warning.x));
    return away.indexOf(Math.min(...away));
  }

  curve(s) {
    const group = draw("g", { class: `c${s.color} ${this.spec.plane ? "plane" : ""}` });
    const at = (i, values) => `${this.x(s.x[i]).toFixed(1)},${this.y(values[i]).toFixed(1)}`;
    if (s.lo) {
      const known = s.y.map((_, i) => i).filter((i) => s.lo[i] !== null && s.hi[i] !== null);
      const edge = [...known.map((i) => at(i, s.hi)), ...known.reverse().map((i) => at(i, s.lo))];
      group.append(draw("polygon", { class: "band", points: edge.join(" ") }));
    }
    let path = "", broken = true;
    s.y.forEach((value, i) => {
      if (value !== null) path += `${broken ? "M" : "L"}${at(i, s.y)}`;
      broken = value === null;
    });
    group.append(draw("path", { class: "curve", d: path, "stroke-dasharray": this.dash(s) }));
    if (this.spec.plane || s.x.length < 3) group.append(...this.dots(s));
    return group;
  }

  /** A bar per value, from the base that the chart is about; its color says on which side of it. */
  bars(s) {
    const base = this.spec.bars, room = s.x.length > 1 ? this.x(s.x[1]) - this.x(s.x[0]) : 20;
    const width = Math.max(1, 0.8 * room);
    return draw("g", {}, ...s.y.flatMap((value, i) => value === null ? [] : [draw("rect", {
      class: value < base ? "bar-low" : "bar-high", x: this.x(s.x[i]) - width / 2, width,
      y: Math.min(this.y(value), this.y(base)), height: Math.max(0.5, Math.abs(this.y(value) - this.y(base))),
    })]));
  }

  dots(s) {
    return s.y.flatMap((value, i) => value === null ? [] : [draw("circle", {
      class: i === 0 ? "first" : "dot", cx: this.x(s.x[i]), cy: this.y(value),
      r: i === 0 || i === s.y.length - 1 ? 5 : 2.2,
    })]);
  }

  listen(svg) {
    svg.addEventListener("pointermove", (event) => this.point(this.nearest(event), true));
    svg.addEventListener("pointerleave", () => this.leave());
    svg.addEventListener("blur", () => this.leave());
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || !this.shown().length) return;
      event.preventDefault();
      const last = this.shown()[0].x.length - 1;
      const next = (this.cursor?.i ?? (step > 0 ? -1 : last + 1)) + step;
      this.point({ i: Math.min(last, Math.max(0, next)), s: this.shown()[0] }, true);
    });
  }

  /** The point nearest to the pointer: along the axis, or in the plane. */
  nearest(event) {
    const box = this.svg.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    let best = null, least = Infinity;
    for (const s of this.spec.plane ? this.shown() : this.shown().slice(0, 1)) {
      s.x.forEach((x, i) => {
        const away = Math.hypot(this.x(x) - px, this.spec.plane && s.y[i] !== null ? this.y(s.y[i]) - py : 0);
        if (away < least) [best, least] = [{ i, s }, away];
      });
    }
    return best;
  }

  /** Mark a point that was chosen elsewhere; a chart that is read right now has done so itself. */
  follow(i) {
    if (this.tip.hidden) this.point({ i, s: this.spec.series[0] }, false);
  }

  point(cursor, tell) {
    if (!cursor) return;
    this.cursor = cursor;
    if (!this.svg) return;
    const { plane, axis } = this.spec, x = cursor.s.x[cursor.i];
    const met = plane ? [[cursor.s, cursor.i]] : this.shown().map((s) => [s, s.x.indexOf(x)]).filter(([, i]) => i >= 0);
    const known = met.filter(([s, i]) => s.y[i] !== null);
    this.marks.replaceChildren(...known.map(([s, i]) =>
      draw("circle", { class: `c${s.color} cursor`, cx: this.x(s.x[i]), cy: this.y(s.y[i]), r: 4 })));
    if (!plane) this.marks.prepend(draw("line", { class: "cursor-line", x1: this.x(x), x2: this.x(x), y1: 10,
      y2: Number(this.svg.getAttribute("height")) - 36 }));
    const head = plane ? `${cursor.s.label}, update ${cursor.s.t[cursor.i]}` : `${axis} ${format(x)}`;
    const rows = plane ? [`${axis.split(",")[0]} ${format(x)}`, `reward ${format(cursor.s.y[cursor.i])}`]
      : met.map(([s, i]) => this.reading(s, i));
    const raised = this.warningsOf(cursor.s).filter((warning) => this.pointOf(cursor.s, warning) === cursor.i)
      .map(({ label }) => make("span", { class: "raised" }, `warning: ${label}`));
    this.tip.replaceChildren(make("strong", {}, head), ...rows.map((row) => make("span", {}, row)), ...raised);
    this.tip.hidden = !tell;
    const room = this.picture.clientWidth - this.tip.offsetWidth - 4, want = this.x(x) + 12;
    this.tip.style.left = `${Math.max(0, want > room ? this.x(x) - this.tip.offsetWidth - 12 : want)}px`;
    if (tell && this.onCursor) this.onCursor(cursor.i);
  }

  reading(s, i) {
    const band = s.lo && s.lo[i] !== s.hi[i] ? ` (${format(s.lo[i])} to ${format(s.hi[i])})` : "";
    return `${this.spec.series.length > 1 ? `${s.label} ` : ""}${format(s.y[i])}${band}`;
  }

  leave() {
    this.tip.hidden = true;
    if (this.onCursor) return;
    this.cursor = null;
    this.marks.replaceChildren();
  }
}

function read(id) { return JSON.parse(document.getElementById(id).textContent); }

const specs = read("charts");
for (const host of document.querySelectorAll("[data-chart]")) {
  new Chart(host, { ...specs[Number(host.dataset.chart)], words: host.dataset.words });
}
