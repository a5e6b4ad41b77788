const data = JSON.parse(document.getElementById("data").textContent);
const chosen = new Set();
const views = [];

const count = data.settings.length;
const hues = { range: data.settings.map((_, i) => `hsl(${(i * 360) / count}, 60%, ${i % 2 ? 36 : 50}%)`) };
const palette = count <= 10 ? { scheme: "tableau10" } : hues;
const color = { field: "setting", type: "nominal", legend: null, scale: { domain: data.settings, ...palette } };
const visible = "!length(chosen) || indexof(chosen, datum.setting) >= 0";
const testScore = `test ${data.metric} (%)`;
const tooltip = [
  { field: "setting" }, { field: "n", title: "seeds" }, { field: "mean", title: testScore, format: ".2f" },
  { field: "interval", title: "95% interval" }, { field: "trainable", title: "trainable parameters", format: "," },
  { field: "tflop", title: "training TFLOP", format: ",.3~f" }, { field: "seconds", title: "training s", format: ",.3~f" },
];
// With a single seed the interval and the band have zero width, so they are drawn but invisible.
const scores = data.scores.map(({ low, high, ...one }) => ({
  ...one, low: low ?? one.mean, high: high ?? one.mean,
  interval: low === undefined ? "none for a single seed" : `${low.toFixed(1)} to ${high.toFixed(1)}`,
}));

function numeric(field, title, more = {}) {
  const { scale, axis, ...rest } = more;
  return { field, type: "quantitative", title, scale: { nice: true, ...(scale ?? { zero: false }) }, axis: { tickCount: 6, ...axis }, ...rest };
}

/** Draw Vega-Lite layers in the element `id`; do nothing if the page has no such element, because there are no data for it. */
async function draw(id, spec, height = 300) {
  const place = document.getElementById(id);
  if (!place) return;
  const { view } = await vegaEmbed(place, {
    width: "container", height, params: [{ name: "chosen", value: [] }], autosize: { type: "fit", contains: "padding" },
    config: { font: "system-ui, Liberation Sans, sans-serif", view: { stroke: null }, axis: { gridColor: "#eef0f3", labelColor: "#667085",
      titleColor: "#1c2430", titleFontWeight: 500, domainColor: "#c5cad3", tickColor: "#c5cad3", labelFontSize: 11, titleFontSize: 12 } },
    ...spec,
  }, { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } });
  view.addEventListener("click", (_, item) => item?.datum?.setting && toggle(item.datum.setting));
  views.push(view);
}

/** Return a scale for percentages that fits the values and never extends beyond 0 and 100. */
function percent(values) {
  const finite = values.filter(Number.isFinite);
  const low = Math.min(...finite), high = Math.max(...finite), margin = Math.max(1, 0.06 * (high - low));
  return { scale: { domain: [Math.max(0, Math.floor(low - margin)), Math.min(100, Math.ceil(high + margin))], nice: false, zero: false } };
}

const scoreScale = percent(scores.flatMap((one) => [one.low, one.high, ...one.seeds.map((seed) => seed.score)]));

/** Plot score against a cost on a logarithmic axis, with padding so that marks at the ends do not overlap the axis. */
function cost(field, title) {
  const log = scores.every((one) => one[field] > 0);
  const type = log ? { type: "log" } : { zero: false };
  const x = numeric(field, title, { scale: { ...type, nice: false, padding: 16 }, axis: { format: "~s", grid: false } });
  return {
    data: { values: scores },
    transform: [{ filter: visible }],
    encoding: { x, color, tooltip },
    layer: [
      { mark: { type: "rule", strokeWidth: 1.5 }, encoding: { y: numeric("low", testScore, scoreScale), y2: { field: "high" } } },
      { mark: { type: "point", filled: true, opacity: 1, size: 70, cursor: "pointer" }, encoding: { y: numeric("mean", testScore, scoreScale) } },
    ],
  };
}

/** Plot learning curves; `points`: values are percentages at single evaluation steps. */
function learning(curves, title, points) {
  const [least, most] = points ? [0, 100] : [-Infinity, Infinity];
  const values = curves.flatMap((one) => one.step.map((step, i) => ({
    setting: one.setting, step, mean: one.mean[i], low: Math.max(one.mean[i] - one.sd[i], least), high: Math.min(one.mean[i] + one.sd[i], most),
  }))).filter((one) => one.mean !== null);
  const y = points ? percent(values.flatMap((one) => [one.low, one.high])) : {};
  const tooltip = points ? [{ field: "setting" }, { field: "step" }, { field: "mean", title, format: ".2f" }] : [{ field: "setting" }];
  return {
    data: { values },
    transform: [{ filter: visible }],
    encoding: { x: numeric("step", "step", { scale: { zero: false, nice: false, padding: 6 } }), color },
    layer: [
      { mark: { type: "area", opacity: { expr: "length(chosen) && length(chosen) < 7 ? 0.18 : 0.05" } },
        encoding: { y: numeric("low", title, y), y2: { field: "high" } } },
      { mark: { type: "line", strokeWidth: 1.5, point: points && { size: 24 }, cursor: "pointer" }, encoding: { y: numeric("mean", title, y), tooltip } },
    ],
  };
}

function strip() {
  const y = { field: "setting", type: "nominal", title: null, sort: data.settings, axis: { labelLimit: 320, grid: true, labelColor: "#1c2430" } };
  const seeds = scores.flatMap((one) => one.seeds.map((seed) => ({ setting: one.setting, ...seed })));
  return {
    data: { values: scores },
    encoding: { y, color, opacity: { condition: { test: visible, value: 1 }, value: 0.1 } },
    layer: [
      { mark: { type: "rule", strokeWidth: 1.5 }, encoding: { x: numeric("low", testScore, scoreScale), x2: { field: "high" }, tooltip } },
      { data: { values: seeds }, mark: { type: "point", size: 36, strokeWidth: 1.5, fill: "white", cursor: "pointer" },
        encoding: { x: numeric("score", testScore, scoreScale), tooltip: [{ field: "setting" }, { field: "seed" }, { field: "score", title: testScore, format: ".2f" }] } },
      { mark: { type: "tick", thickness: 2.5, size: 14 }, encoding: { x: numeric("mean", testScore, scoreScale), tooltip } },
    ],
  };
}

function best() {
  return {
    data: { values: data.best },
    mark: { type: "line", point: true },
    encoding: {
      x: numeric("trials", "settings tried", { axis: { tickMinStep: 1, format: "d" } }), y: numeric("best", `expected best dev ${data.metric} (%)`),
      color: { field: "method", type: "nominal", title: null, legend: { orient: "bottom", labelFontSize: 12 } },
      tooltip: [{ field: "method" }, { field: "trials" }, { field: "best", format: ".2f" }],
    },
  };
}

/** Add a setting to the chosen ones, or remove it; without an argument, clear the choice and show all settings. */
function toggle(setting) {
  if (setting === undefined) chosen.clear();
  else if (!chosen.delete(setting)) chosen.add(setting);
  const legend = document.getElementById("legend");
  legend.classList.toggle("some", chosen.size > 0);
  for (const button of buttons) button.setAttribute("aria-pressed", chosen.has(button.dataset.setting));
  for (const view of views) view.signal("chosen", [...chosen]).runAsync();
}

const buttons = [...document.querySelectorAll("#legend [data-setting]")];
const shown = new Set([...data.scores, ...data.curves.dev, ...data.curves.loss].map((one) => one.setting));
for (const button of buttons) {
  button.disabled = !shown.has(button.dataset.setting);
  button.addEventListener("click", () => toggle(button.dataset.setting));
}
document.getElementById("all")?.addEventListener("click", () => toggle());

/** Fill in the config of an opened run, with the fields that differ between runs first. */
function showConfig(details) {
  const differing = data.differing[details.dataset.run];
  const fields = [...Object.entries(differing), ...Object.entries(data.shared).sort()];
  details.querySelector(".config").replaceChildren(...fields.map(([name, value]) => {
    const line = document.createElement("div"), label = document.createElement("span");
    label.textContent = `${name} = `;
    label.className = "name";
    line.className = Object.hasOwn(differing, name) ? "differing" : "";
    line.append(label, value === "" ? '""' : value);
    return line;
  }));
}

const runs = [...document.querySelectorAll("details[data-run]")];
for (const details of runs) details.addEventListener("toggle", () => details.open && showConfig(details));
document.getElementById("find").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const details of runs) {
    const text = details.querySelector("summary").textContent.toLowerCase();
    details.hidden = !words.every((word) => text.includes(word));
  }
  const left = runs.filter((details) => !details.hidden).length;
  document.getElementById("matches").textContent = words.length ? `${left} of ${runs.length}` : "";
});

await draw("trainable", cost("trainable", "trainable parameters"));
await draw("tflop", cost("tflop", "training TFLOP"));
await draw("seconds", cost("seconds", "training time (s)"));
await draw("dev", learning(data.curves.dev, `dev ${data.metric} (%)`, true));
await draw("loss", learning(data.curves.loss, "training loss", false));
await draw("strip", strip(), 60 + scores.length * (count > 12 ? 20 : 28));
await draw("best", best());
for (const button of buttons) button.style.setProperty("--color", views[0].scale("color")(button.dataset.setting));
document.body.dataset.drawn = views.length;
