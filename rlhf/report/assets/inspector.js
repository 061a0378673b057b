"use strict";

/** What tokens can be colored by. `center` is white; without one the scale runs from the smallest to the largest. */
const CHANNELS = {
  advantage: { name: "Advantage", center: 0, low: "worse than expected", high: "better than expected" },
  reward: { name: "Reward", center: 0, low: "penalty", high: "reward" },
  value: { name: "Value", low: "low", high: "high" },
  kl: { name: "KL", center: 0, low: "reference finds it likelier", high: "policy finds it likelier", unit: "nats" },
  ratio: { name: "Ratio", center: 1, low: "made less likely by the update", high: "made likelier" },
  entropy: { name: "Entropy", low: "certain", high: "undecided", unit: "nats" },
};
const NUMBERS = ["advantage", "reward", "value", "return", "kl", "ratio", "entropy", "probability"];

/** 16-bit multiples of a scale, as Python packed them. */
function unpack({ scale, data }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 2 }, (_, i) => {
    const step = view.getInt16(2 * i, true);
    return step === -32768 ? null : step * scale;
  });
}

/** Every number of a response by name. */
function numbersOf(response) {
  const numbers = Object.fromEntries(Object.entries(response.numbers).map(([name, packed]) => [name, unpack(packed)]));
  numbers.probability = numbers.logprob.map((x) => x === null ? null : Math.exp(x));
  if (numbers.log_ratio) numbers.ratio = numbers.log_ratio.map((x) => x === null ? null : Math.exp(x));
  return numbers;
}

/** From values to [-1, 1]; all but the most extreme 2% keep their place in the scale. */
function scaleOf(channel, values) {
  const known = values.filter((value) => value !== null);
  const { center } = CHANNELS[channel];
  if (center === undefined) {
    const [low, high] = extent(known);
    return { low, high, place: (value) => high > low ? (value - low) / (high - low) : 0 };
  }
  const away = known.map((value) => Math.abs(value - center)).sort((a, b) => a - b);
  const most = away[Math.floor(0.98 * (away.length - 1))] || away.at(-1) || 1;
  return { low: center - most, high: center + most, place: (v) => Math.max(-1, Math.min(1, (v - center) / most)) };
}

/** A token with signs for what cannot be seen: line breaks (which still break the line), tabs, nothing but spaces. */
function shownToken(token) {
  if (/^ *$/.test(token)) return "·".repeat(token.length) || "∅";
  return token.replace(/\n/g, "↵\n").replace(/\t/g, "⇥");
}

/** The same on one line. */
function inLine(token) { return shownToken(token).replace(/\n */g, "").trim(); }

class Pane {
  constructor(inspector, name, which) {
    Object.assign(this, { inspector, which, current: 0 });
    this.update = make("select", { "aria-label": `${name} response: update` });
    this.update.addEventListener("change", () => this.inspector.show());
    this.facts = make("p", { class: "pane-facts" });
    this.tokens = make("div", { class: "tokens", role: "listbox", "aria-label": `tokens of the ${name} response`,
      "aria-orientation": "horizontal" });
    this.plots = make("div", { class: "plots" });
    this.numbers = make("dl", { class: "numbers-of-token" });
    this.explanation = make("pre", { class: "said" });
    this.why = make("details", {}, make("summary", {}, "What the rewards said"), this.explanation);
    this.node = make("div", { class: "pane" }, make("label", { class: "update" }, "Update ", this.update), this.facts,
      this.tokens, this.numbers, this.plots, this.why);
    this.tokens.addEventListener("keydown", (event) => this.move(event));
    for (const kind of ["focusin", "click", "pointerover"]) {
      this.tokens.addEventListener(kind, (event) => {
        const token = event.target.closest("[role=option]");
        if (token) this.select(Number(token.dataset.index), false);
      });
    }
  }

  /** Offer the updates at which a prompt was stored: the first one here, the last one in the other pane. */
  offer(responses) {
    this.responses = responses;
    this.update.replaceChildren(...responses.map(({ step }, i) => make("option", { value: i }, String(step))));
    this.update.value = this.which === "first" ? 0 : responses.length - 1;
  }

  load() {
    this.response = this.responses[Number(this.update.value)];
    this.values = numbersOf(this.response);
    const { tokens, ended, score, rewards, explanation } = this.response;
    const parts = Object.entries(rewards).map(([name, value]) => `${name} ${format(value)}`);
    this.facts.replaceChildren(make("strong", {}, `score ${format(score)}`), parts.length ? ` (${parts.join(", ")})` : "",
      ` · ${tokens.length} tokens · ${ended ? "ended by itself" : "cut off"}`);
    this.why.hidden = !explanation;
    this.explanation.textContent = explanation;
    this.current = Math.min(this.current, tokens.length - 1);
  }

  color(channel, scale) {
    const values = this.values[channel] ?? [];
    const gaps = new Set(this.response.gaps ?? []); // what an environment said
    this.tokens.replaceChildren(...this.response.tokens.map((token, i) => {
      const value = values[i] ?? null, place = value === null ? 0 : scale.place(value);
      const node = make("span", { role: "option", class: gaps.has(i) ? "gap" : place < 0 ? "low" : "high", "data-index": i, tabindex: -1,
        "aria-selected": "false", "aria-label": `${inLine(token)}, ${CHANNELS[channel].name} ${format(value)}` },
        make("bdi", {}, shownToken(token)));
      node.style.setProperty("--weight", `${Math.round(100 * Math.abs(place))}%`);
      return node;
    }));
    this.draw();
    this.select(this.current, false);
  }

  /** What PPO made of the response: what it earned, what was expected, how much better it was, what the update did. */
  draw() {
    const { clip_range: clip } = this.inspector.runs[Number(this.inspector.run.value)];
    const bounds = clip ? [1 + clip, 1 - clip].map((y) => ({ label: `clip ${format(y)}`, y })) : [];
    const panels = [
      ["Reward", { bars: 0 }, "reward"],
      ["Value and return", {}, "value", "return"],
      ["Advantage", { bars: 0 }, "advantage"],
      ["Probability ratio, new / old", { bars: 1, lines: bounds }, "ratio"],
    ].filter(([, , name]) => this.values[name]);
    const hosts = panels.map(() => make("div", { class: "plot" }));
    this.plots.replaceChildren(...panels.map(([title], i) => make("div", {}, make("h4", {}, title), hosts[i])));
    this.charts = panels.map(([title, options, ...names], i) =>
      new Chart(hosts[i], this.spec(title, options, names), (index) => this.select(index, false)));
  }

  spec(title, options, names) {
    const x = this.response.tokens.map((_, i) => i + 1);
    const series = names.map((name, color) => ({ label: name, color, x, y: this.values[name] }));
    const words = `${title} along the response, ${x.length} tokens`;
    return { series, axis: "token", words, height: 150, lines: [], ...options };
  }

  select(index, focus) {
    const options = this.tokens.querySelectorAll("[role=option]");
    if (!options.length) return;
    options[this.current]?.setAttribute("aria-selected", "false");
    options[this.current]?.setAttribute("tabindex", "-1");
    this.current = index;
    options[index].setAttribute("aria-selected", "true");
    options[index].setAttribute("tabindex", "0");
    if (focus) options[index].focus();
    const token = this.response.tokens[index];
    this.numbers.replaceChildren(
      this.number("token", `${index + 1}: ${inLine(token)}`),
      ...NUMBERS.filter((name) => this.values[name]).map((name) => this.number(name, format(this.values[name][index]))));
    for (const chart of this.charts) chart.follow(index);
  }

  number(name, value) {
    return make("div", {}, make("dt", {}, CHANNELS[name]?.name ?? name[0].toUpperCase() + name.slice(1)), make("dd", {}, make("bdi", {}, value)));
  }

  move(event) {
    const last = this.response.tokens.length - 1;
    const next = {
      ArrowRight: () => this.current + 1, ArrowLeft: () => this.current - 1, Home: () => 0, End: () => last,
      ArrowDown: () => this.onLine(1), ArrowUp: () => this.onLine(-1),
    }[event.key];
    if (!next) return;
    event.preventDefault();
    this.select(Math.max(0, Math.min(last, next())), true);
  }

  /** The token below (1) or above (-1) the current one. */
  onLine(direction) {
    const boxes = [...this.tokens.querySelectorAll("[role=option]")].map((node) => node.getBoundingClientRect());
    const here = boxes[this.current], middle = (here.left + here.right) / 2;
    const beyond = boxes.map((box, i) => ({ box, i }))
      .filter(({ box }) => direction * (box.top - here.top) > here.height / 2);
    if (!beyond.length) return this.current;
    const line = direction > 0 ? beyond[0].box.top : beyond.at(-1).box.top;
    const away = ({ box }) => Math.abs((box.left + box.right) / 2 - middle);
    return beyond.filter(({ box }) => Math.abs(box.top - line) < 4).sort((a, b) => away(a) - away(b))[0].i;
  }
}

class Inspector {
  constructor(runs) {
    this.runs = runs;
    this.run = document.getElementById("inspector-run");
    this.prompt = document.getElementById("inspector-prompt");
    this.panes = [new Pane(this, "earlier", "first"), new Pane(this, "later", "last")];
    document.getElementById("inspector-panes").append(...this.panes.map((pane) => pane.node));
    this.run.append(...runs.map(({ label }, i) => make("option", { value: i }, label)));
    this.run.parentElement.hidden = runs.length < 2;
    this.run.addEventListener("change", () => this.offerPrompts());
    this.prompt.addEventListener("change", () => this.offerUpdates());
    this.offerChannels(document.getElementById("inspector-channel"));
    this.offerPrompts();
  }

  offerChannels(fieldset) {
    for (const [value, { name }] of Object.entries(CHANNELS)) {
      const input = make("input", { type: "radio", name: "channel", value });
      input.addEventListener("change", () => this.show());
      fieldset.append(make("label", {}, input, make("span", {}, name)));
    }
    fieldset.querySelector("input").checked = true;
  }

  offerPrompts() {
    const { prompts } = this.runs[Number(this.run.value)];
    this.prompt.replaceChildren(...prompts.map(({ prompt }, i) => make("option", { value: i }, prompt)));
    this.offerUpdates();
  }

  offerUpdates() {
    const { responses } = this.runs[Number(this.run.value)].prompts[Number(this.prompt.value)];
    for (const pane of this.panes) pane.offer(responses);
    this.show();
  }

  /** Both panes with one scale, so that their colors can be compared. */
  show() {
    const channel = document.querySelector("#inspector-channel input:checked").value;
    for (const pane of this.panes) pane.load();
    const scale = scaleOf(channel, this.panes.flatMap((pane) => pane.values[channel] ?? []));
    for (const pane of this.panes) pane.color(channel, scale);
    this.legend(channel, scale);
  }

  legend(channel, { low, high }) {
    const { low: below, high: above, center, unit } = CHANNELS[channel];
    const number = (value) => unit ? `${format(value)} ${unit}` : format(value);
    const bar = make("span", { class: center === undefined ? "scale one-sided" : "scale", "aria-hidden": "true" });
    document.getElementById("inspector-legend").replaceChildren(
      make("span", {}, `${below}, ${number(low)}`), bar, make("span", {}, `${number(high)}, ${above}`));
  }
}

const stored = read("rollouts");
if (stored.length) new Inspector(stored);
