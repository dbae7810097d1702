// Replaces the drawn charts with live ones. The page is complete without it.
(function () {
"use strict";
const root = document.documentElement;
const data = JSON.parse(document.getElementById("data").textContent);
const words = data.words;
root.classList.add("js");

// Colours follow the theme: a probe element resolves a custom property to what
// a canvas understands.
const probe = document.createElement("i");
probe.hidden = true;
document.body.append(probe);
let colors = {};
const color = name => {
  if (!(name in colors)) {
    probe.style.color = "var(--" + name + ")";
    colors[name] = getComputedStyle(probe).color;
  }
  return colors[name];
};

const plots = [];
const repaint = () => { colors = {}; plots.forEach(u => u.redraw(false, true)); };

// ---- theme
const themes = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");
const store = { get() { try { return localStorage.getItem("launchgate-theme"); } catch { return null; } },
                set(v) { try { localStorage.setItem("launchgate-theme", v); } catch { /* private mode: not remembered */ } } };
let theme = themes.includes(store.get()) ? store.get() : "auto";
function setTheme(t) {
  theme = t;
  if (t === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = t;
  themeButton.textContent = words.theme.replace("%s", words["theme." + t]);
  repaint();
}
themeButton.hidden = false;
themeButton.addEventListener("click", () => { setTheme(themes[(themes.indexOf(theme) + 1) % 3]); store.set(theme); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

// ---- copy buttons
document.querySelectorAll(".copy").forEach(button => {
  const label = button.textContent;
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", () => navigator.clipboard.writeText(button.previousElementSibling.textContent).then(() => {
    button.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = label; }, 1500);
  }));
});

// ---- numbers, written as in the rest of the report
const group = s => { const p = s.split("."); p[0] = p[0].replace(/\B(?=(\d{3})+$)/g, ","); return p.join("."); };
function digits(v) {
  const a = Math.abs(v), sign = v < 0 ? "−" : "";
  if (Number.isInteger(a)) return sign + group(String(a));
  if (a < 0.001) return sign + String(Number(a.toPrecision(2)));
  const s = a.toFixed(a < 0.01 ? 4 : a < 1 ? 3 : a < 10 ? 2 : a < 100 ? 1 : 0);
  return sign + group(s.includes(".") ? s.replace(/\.?0+$/, "") : s);
}
function seconds(v) {
  if (v === 0) return "0 s";
  if (v < 0.0009995) return digits(v * 1e6) + " µs";
  if (v < 0.9995) return digits(v * 1e3) + " ms";
  if (v < 99.95) return digits(v) + " s";
  return words.minutes.replace("%m", Math.floor(Math.round(v) / 60)).replace("%s", Math.round(v) % 60);
}
const write = {
  s: seconds, ratio: v => words.percent.replace("%s", digits(v * 100)), per_second: v => digits(v) + " /s", count: digits, watts: v => digits(v) + " W",
  bytes: v => { let i = 0; for (; v >= 1024 && i < 4; i++) v /= 1024; return digits(v) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][i]; },
};
function clock(v) {
  const tenths = Math.round(v * 10), s = Math.floor(tenths % 600 / 10);
  return Math.floor(tenths / 600) + ":" + (s < 10 ? "0" : "") + s + (tenths % 10 ? "." + tenths % 10 : "");
}

// ---- the timeline
const t = data.timeline;
const xs = Array.from({ length: t.bins }, (_, i) => t.start + (i + 0.5) * t.width);
const font = "11px " + getComputedStyle(document.body).fontFamily;

// All of the data is drawn from the start of its first bin to the end of its
// last, and not from middle to middle.
const whole = (u, min, max) => min === xs[0] && max === xs[xs.length - 1] ? [t.start, t.start + t.bins * t.width] : [min, max];

// Steps hold a value over its whole bin, so that they start where the bin does.
function steps(u, s, from, to) {
  const path = new Path2D(), ys = u.data[s], half = t.width / 2;
  let pen = false;
  for (let i = from; i <= to; i++) {
    if (ys[i] == null) { pen = false; continue; }
    const y = u.valToPos(ys[i], "y", true);
    const x0 = u.valToPos(xs[i] - half, "x", true), x1 = u.valToPos(xs[i] + half, "x", true);
    if (pen) path.lineTo(x0, y); else path.moveTo(x0, y);
    path.lineTo(x1, y);
    pen = true;
  }
  return { stroke: path, fill: null, clip: null, band: null, gaps: null, flags: 1 };
}

function shadeFaults(u) {
  const ctx = u.ctx, box = u.bbox;
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.left, box.top, box.width, box.height);
  ctx.clip();
  for (const f of t.faults) {
    const from = u.valToPos(f.from, "x", true), to = u.valToPos(f.to, "x", true);
    ctx.fillStyle = color("shade");
    ctx.fillRect(from, box.top, Math.max(to - from, 2), box.height);
    ctx.strokeStyle = color("mark");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const m of f.marks) {
      const x = u.valToPos(m.at, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, box.top);
      ctx.lineTo(x, box.top + box.height);
      ctx.stroke();
    }
  }
  ctx.restore();
}

// What was going on at a moment: the stage, and the last mark of each fault.
function moment(x) {
  const said = [clock(x)];
  const stage = t.stages.find(s => s.from <= x && x < s.to);
  if (stage) said.push(stage.label);
  for (const f of t.faults) {
    if (x < f.from || x > f.to) continue;
    const passed = f.marks.filter(m => m.at <= x);
    said.push(f.label + (passed.length ? ": " + passed[passed.length - 1].label : ""));
  }
  return said.join(" · ");
}

const axis = extra => Object.assign({
  stroke: () => color("muted"), font, gap: 4,
  grid: { stroke: () => color("grid"), width: 1 }, ticks: { show: false },
}, extra);

let zooming = false;
function zoomAll(source, key) {
  if (key !== "x" || zooming) return;
  zooming = true;
  const { min, max } = source.scales.x;
  panels.forEach(p => { if (p.u !== source) p.u.setScale("x", { min, max }); });
  document.getElementById("strip").classList.toggle("zoomed", min > t.start || max < t.start + t.bins * t.width);
  zooming = false;
}

const panels = [];
function showValues(p) {
  const i = p.u.cursor.idx;
  p.figure.classList.toggle("live", i != null);
  p.values.forEach((out, j) => {
    const v = i == null ? null : p.u.data[j + 1][i];
    out.textContent = i == null ? "" : v == null ? words.gap : write[p.spec.unit](v);
  });
  const tag = p.tag;
  tag.hidden = i == null || !p.hovered;
  if (!tag.hidden) {
    tag.textContent = moment(xs[i]);
    const left = p.u.valToPos(xs[i], "x") + p.u.bbox.left / devicePixelRatio;
    tag.style.left = Math.max(0, Math.min(left + 10, p.plot.clientWidth - tag.offsetWidth)) + "px";
  }
}

function series(s, i, all) {
  const stroke = () => color("c-" + s.color);
  const base = { label: s.label, stroke, width: 1.6, points: { show: (u, si) => alone(u.data[si]) , size: 4, filter: (u, si) => aloneAt(u.data[si]) }, spanGaps: false };
  if (s.shape === "bars") return Object.assign(base, { fill: stroke, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.9, 100], align: 0 }) });
  if (s.shape === "step") return Object.assign(base, { points: { show: false }, paths: steps });
  return base;
}
const aloneAt = ys => { const at = []; for (let i = 0; i < ys.length; i++) if (ys[i] != null && ys[i - 1] == null && ys[i + 1] == null) at.push(i); return at; };
const alone = ys => aloneAt(ys).length > 0;

function draw(figure) {
  const spec = t.panels[+figure.dataset.panel];
  const plot = figure.querySelector(".plot");
  const p = { figure, spec, plot, values: [...figure.querySelectorAll(".val")], tag: document.createElement("div"), hovered: false };
  p.tag.className = "moment";
  p.tag.hidden = true;
  p.u = new uPlot({
    width: plot.clientWidth, height: 132, padding: [8, 12, 0, 0],
    cursor: { sync: { key: "timeline", setSeries: false }, drag: { x: true, y: false, setScale: true }, points: { size: 6 }, y: false },
    legend: { show: false },
    scales: { x: { time: false, range: whole }, y: { range: [0, spec.top] } },
    axes: [
      axis({ size: 22, values: (u, vs) => vs.map(clock), incrs: [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400], space: 70, grid: { show: false } }),
      axis({ size: 64, splits: () => [0, spec.top / 2, spec.top], values: () => spec.scale }),
    ],
    series: [{}].concat(spec.series.map(series)),
    bands: spec.series.flatMap((s, i) => s.shape === "band" && i > 0 ? [{ series: [i + 1, i], fill: () => color("c-" + s.color).replace("rgb(", "rgba(").replace(")", ", .14)") }] : []),
    hooks: { drawClear: [shadeFaults], setCursor: [() => showValues(p)], setScale: [zoomAll] },
  }, [xs].concat(spec.series.map(s => s.data)), plot);
  plot.append(p.tag);
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", figure.querySelector(".panel-name b").textContent);
  plot.addEventListener("mouseenter", () => { p.hovered = true; });
  plot.addEventListener("mouseleave", () => { p.hovered = false; showValues(p); });
  plot.addEventListener("keydown", e => key(e, p));
  plot.addEventListener("blur", () => { p.hovered = false; p.tag.hidden = true; });
  figure.querySelectorAll(".key").forEach(button => {
    button.disabled = false;
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      p.u.setSeries(+button.dataset.series + 1, { show: on });
    });
  });
  return p;
}

function key(e, p) {
  const { min, max } = p.u.scales.x, span = max - min;
  const idx = p.u.cursor.idx ?? Math.round((xs.length - 1) / 2);
  const move = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
  if (move) {
    const i = Math.min(Math.max(idx + move * (e.shiftKey ? 10 : 1), 0), xs.length - 1);
    p.hovered = true;
    panels.forEach(q => q.u.setCursor({ left: q.u.valToPos(xs[i], "x"), top: 20 }));
  } else if (e.key === "+" || e.key === "=" || e.key === "-") {
    const middle = xs[idx], next = e.key === "-" ? span * 2 : span / 2;
    const from = Math.max(t.start, middle - next / 2), to = Math.min(t.start + t.bins * t.width, middle + next / 2);
    p.u.setScale("x", { min: from, max: to });
  } else if (e.key === "Escape") {
    p.u.setScale("x", { min: t.start, max: t.start + t.bins * t.width });
  } else return;
  e.preventDefault();
}

document.querySelectorAll(".panel").forEach(figure => panels.push(draw(figure)));
panels.forEach(p => plots.push(p.u));

// ---- distributions
document.querySelectorAll("[data-chart]").forEach(figure => {
  const c = data.charts[+figure.dataset.chart], plot = figure.querySelector(".plot"), out = figure.querySelector(".val");
  const curve = c.kind === "curve";
  const dashes = [[], [6, 3], [2, 3], [9, 3, 2, 3]];
  const joined = uPlot.join(c.lines.map(l => [l.x, l.y]));
  const say = x => curve ? "p" + digits(100 * (1 - Math.pow(10, -x))) : "≤ " + seconds(x);
  const u = new uPlot({
    width: plot.clientWidth, height: 220, padding: [8, 12, 0, 0],
    cursor: { drag: { setScale: false, x: false }, points: { size: 6 }, y: false, focus: { prox: 1e6 } },
    legend: { show: false },
    scales: { x: { time: false, distr: curve ? 1 : 3, range: [c.from, c.to] }, y: { range: [0, c.top] } },
    axes: [
      axis({ size: 22, splits: () => c.ticks.map(k => k.at), values: () => c.ticks.map(k => k.label), filter: (u, splits) => splits }),
      axis({ size: 64, values: () => c.scale, splits: () => [0, 1, 2, 3, 4].map(i => c.top * i / 4) }),
    ],
    series: [{}].concat(c.lines.map(l => ({ label: l.label, stroke: () => color("c-" + l.color), width: 1.6, dash: dashes[l.dash], spanGaps: true, points: { show: false } }))),
    hooks: { setCursor: [u => {
      const i = u.cursor.idx;
      out.textContent = i == null ? "" : say(u.data[0][i]) + c.lines.map((l, j) => {
        let k = i;
        while (k >= 0 && u.data[j + 1][k] == null) k--;
        const v = k < 0 ? null : u.data[j + 1][k];
        return v == null ? "" : "  " + l.label + " " + (curve ? seconds(v) : write.ratio(v));
      }).join("");
    }] },
  }, joined, plot);
  plots.push(u);
});

new ResizeObserver(() => plots.forEach(u => {
  const width = u.root.parentElement.clientWidth;
  if (width && width !== u.width) u.setSize({ width, height: u.height });
})).observe(document.querySelector("main"));

setTheme(theme);
})();
