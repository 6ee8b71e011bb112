"use strict";
// What the page can do beyond being read: values under the pointer, zooming of the time axis, sorting of tables.

const root = document.documentElement;
root.classList.add("scripted");
const tip = document.getElementById("tip");
const SVG = "http://www.w3.org/2000/svg";

// The profile is taken apart when something first needs it.
let profile;
function valueAt(path) {
  if (!profile) {
    const bytes = atob(document.getElementById("profile").href.split(",")[1]);
    profile = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (one) => one.charCodeAt(0))));
  }
  return path.split(".").reduce((inner, name) => inner[name], profile);
}

// --- numbers, as numbers.py writes them -----------------------------------------------------------------

const PREFIXES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
const SYMBOLS = { bytes: "B", "bytes/s": "B/s", seconds: "s" };

function three(value) {
  const rounded = Number(value.toPrecision(3));
  if (rounded === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded))));
  return rounded.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function percent(value) {
  const size = Math.abs(value);
  if (size < 0.01) return "0";
  if (size < 0.995) return String(Number(value.toPrecision(2)));
  return size < 99.95 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

function duration(seconds) {
  if (seconds < 120) return `${three(seconds)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.round(seconds) % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function written(value, unit) {
  if (value === null || value === undefined) return "unknown";
  if (unit === "share") return `${percent(100 * value)}%`;
  if (unit === "seconds" && value >= 120) return duration(value);
  if (unit === "°C") return `${value.toFixed(0)} °C`;
  if (unit === "cores" || unit === "") return `${three(value)} ${unit}`.trimEnd();
  const least = Math.abs(Number(value.toPrecision(3)));
  const [size, prefix] = PREFIXES.find(([size]) => least >= size) || [1, ""];
  return `${three(value / size)} ${prefix}${SYMBOLS[unit] || unit}`;
}

// --- what the pointer is on -----------------------------------------------------------------------------

function tell(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  // Beside the pointer, on the side where there is room.
  const left = x + 14 + tip.offsetWidth > innerWidth ? Math.max(4, x - 14 - tip.offsetWidth) : x + 14;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${Math.max(4, y - tip.offsetHeight - 10) + scrollY}px`;
}

function add(svg, name, attributes) {
  const element = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  svg.append(element);
  return element;
}

for (const dot of document.querySelectorAll("[data-told]")) {
  dot.addEventListener("pointermove", (event) => tell(dot.dataset.told, event.clientX, event.clientY));
  dot.addEventListener("pointerleave", () => { tip.hidden = true; });
}

// The nearest place in a rising list.
function nearest(list, value) {
  let low = 0, high = list.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle; else high = middle;
  }
  return value - list[low] <= list[high] - value ? low : high;
}

// --- charts over time -----------------------------------------------------------------------------------

const charts = [...document.querySelectorAll(".over-time")].map((box) => new TimeChart(box));
function showAll() { charts.forEach((chart) => chart.zoom(0, chart.span)); }
document.querySelectorAll(".reset").forEach((button) => button.addEventListener("click", showAll));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") { tip.hidden = true; showAll(); } });

function TimeChart(box) {
  const svg = box.querySelector("svg");
  const curves = box.querySelector(".curves");
  const lines = [...box.querySelectorAll("[data-source]")];
  const bands = [...box.querySelectorAll(".band")];
  const drawn = lines.map((line) => line.getAttribute("d"));
  const ticks = box.querySelector(".x-ticks");
  const few = box.classList.contains("small") ? 5 : 8;
  const { unit } = box.dataset;
  const low = Number(box.dataset.low), high = Number(box.dataset.high);
  this.span = Number(box.dataset.span);
  let from = 0, to = this.span, cursor, brush, pressed, at;

  const left = (time) => `${(100 * (time - from)) / (to - from)}%`;
  const timeOf = (event) => {
    const { x, width } = svg.getBoundingClientRect();
    return from + (to - from) * Math.min(1, Math.max(0, (event.clientX - x) / width));
  };

  // All of the browser's own title would lie over the values.
  const title = svg.querySelector("title");
  svg.setAttribute("aria-label", `${title.textContent}. ${svg.querySelector("desc").textContent}`);
  svg.removeAttribute("aria-labelledby");
  title.remove();
  svg.setAttribute("tabindex", "0");

  const show = (index, y) => {
    const times = valueAt(box.dataset.time);
    at = Math.min(times.length - 1, Math.max(0, index));
    const place = svg.getBoundingClientRect();
    cursor = cursor || add(svg, "line", { class: "cursor", y1: 0, y2: "100%" });
    cursor.setAttribute("x1", left(times[at]));
    cursor.setAttribute("x2", left(times[at]));
    const told = lines.map((line) => `${line.dataset.title}: ${written(valueAt(line.dataset.source)[at], unit)}`);
    tell([`at ${duration(times[at])}`, ...told.reverse()].join("\n"), place.x + (place.width * (times[at] - from)) / (to - from), y);
  };
  const leave = () => { cursor?.remove(); cursor = undefined; tip.hidden = true; };

  svg.addEventListener("pointerdown", (event) => {
    if (event.button || event.pointerType === "touch") return;
    pressed = timeOf(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    const time = timeOf(event);
    show(nearest(valueAt(box.dataset.time), time), event.clientY);
    if (pressed === undefined) return;
    brush = brush || add(svg, "rect", { class: "brush", y: 0, height: "100%" });
    brush.setAttribute("x", left(Math.min(pressed, time)));
    brush.setAttribute("width", `${(100 * Math.abs(time - pressed)) / (to - from)}%`);
  });
  svg.addEventListener("pointerup", (event) => {
    if (pressed === undefined) return;
    const ends = [pressed, timeOf(event)].sort((one, other) => one - other);
    brush?.remove();
    brush = pressed = undefined;
    // Less is a click.
    if (ends[1] - ends[0] > (to - from) / 100) charts.forEach((chart) => chart.zoom(...ends));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: 10, PageUp: -10 }[event.key];
    if (event.key === "+" || event.key === "-") {
      const middle = at === undefined ? (from + to) / 2 : valueAt(box.dataset.time)[at];
      const half = ((to - from) / 2) * (event.key === "+" ? 0.5 : 2);
      const start = Math.max(0, middle - half), end = Math.min(this.span, middle + half);
      charts.forEach((chart) => chart.zoom(start, end));
    } else if (by) {
      event.preventDefault();
      const times = valueAt(box.dataset.time);
      const inside = times.findIndex((time) => time >= from);
      show(at === undefined || times[at] < from || times[at] > to ? inside : at + by, svg.getBoundingClientRect().y);
    }
  });

  // Zoomed in, every sample is drawn that the page carries: the means of many would hide what one looks for.
  this.zoom = (start, end) => {
    [from, to] = [start, end];
    const whole = from === 0 && to === this.span;
    leave();
    curves.setAttribute("viewBox", `${(1000 * from) / this.span} 0 ${(1000 * (to - from)) / this.span} 100`);
    bands.forEach((band) => { band.style.display = whole ? "" : "none"; });
    lines.forEach((line, index) => line.setAttribute("d", whole ? drawn[index] : this.path(line)));
    ticks.replaceChildren();
    for (const [time, label] of timeTicks(from, to, few)) {
      add(ticks, "text", { class: "x-tick", x: left(time), y: "100%", dy: "1.4em" }).textContent = label;
    }
  };

  this.path = (line) => {
    const times = valueAt(box.dataset.time), values = valueAt(line.dataset.source);
    const filled = line.classList.contains("area");
    const first = Math.max(0, nearest(times, from) - 1), last = Math.min(times.length - 1, nearest(times, to) + 1);
    let d = "", open = false, x = 0;
    for (let index = first; index <= last; index += 1) {
      const value = values[index];
      if (value === null) {
        d += open && filled ? `L${x} 100Z` : "";
        open = false;
      } else {
        x = ((1000 * times[index]) / this.span).toFixed(3);
        const y = Math.min(102, Math.max(-2, (100 * (high - value)) / (high - low))).toFixed(2);
        d += open ? `L${x} ${y}` : filled ? `M${x} 100L${x} ${y}` : `M${x} ${y}h0`;
        open = true;
      }
    }
    return d + (open && filled ? `L${x} 100Z` : "");
  };
}

function timeTicks(from, to, most) {
  const [size, name] = to >= 7200 ? [3600, "h"] : to >= 120 ? [60, "min"] : [1, "s"];
  const least = (to - from) / size / most, power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((times) => power * times >= least * (1 - 1e-9));
  const found = [];
  for (let at = Math.ceil(from / size / step - 1e-9) * step; at <= to / size + 1e-9 * step; at += step) {
    found.push([at * size, `${Number(at.toPrecision(6))} ${name}`]);
  }
  return found;
}

// --- tables ---------------------------------------------------------------------------------------------

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const more = table.parentElement.nextElementSibling;
  const fold = () => [...body.rows].forEach((row, index) => {
    row.hidden = Boolean(more) && !more.hidden && index >= Number(table.dataset.open);
  });
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numeric = head.dataset.sort === "number";
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      [...head.parentElement.cells].forEach((cell) => cell.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const key = (row) => numeric ? Number(row.cells[column].dataset.value) : row.cells[column].textContent;
      const compare = (one, two) => numeric ? key(one) - key(two) : key(one).localeCompare(key(two));
      const sign = order === "ascending" ? 1 : -1;
      body.append(...[...body.rows].sort((one, two) => sign * compare(one, two)));
      fold();
    });
  });
  if (more?.classList.contains("more")) {
    more.hidden = false;
    more.addEventListener("click", () => { more.hidden = true; fold(); });
  }
  fold();
}

// On paper nothing can be unfolded.
addEventListener("beforeprint", () => {
  document.querySelectorAll("tr[hidden]").forEach((row) => { row.hidden = false; });
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
});
