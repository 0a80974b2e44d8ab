// A rollout over time: small pictures with one axis of time, and one place on it that is read out.

import { h, renew, s, write } from "./dom.js";
import { duration, exact, millis, percent, rate, short, success } from "./words.js";

/** The size of a picture, in its own units: it is scaled to its place. */
const WIDTH = 360;
const HEIGHT = 132;
/** Where the values are, within. */
const LEFT = 50;
const RIGHT = WIDTH - 8;
const TOP = 8;
const BOTTOM = HEIGHT - 20;

/** The pictures: their titles, lines, and what their values are written as. */
const CHARTS = [
  {
    title: "Canary's share", isStepped: true, write: percent, from: () => 0, to: (most) => Math.max(most * 1.1, 1),
    lines: [["canary", (point) => point.weight]],
  },
  {
    title: "Evidence of harm", write: short, from: (least) => Math.min(0, Math.max(least, -10)), to: (most, series) => Math.max(most, series.decisive) * 1.15,
    lines: [["canary", (point) => point.harm]], limit: (series) => ["rolled back at", series.decisive],
  },
  {
    title: "Success rate", write: rate, from: (least) => Math.max(0, Math.min(least - (100 - least) * 0.2, 99)), to: () => 100,
    lines: [["primary", (point) => success(point.primary)], ["canary", (point) => success(point.canary)]],
  },
  ...[["p50", "Latency, median"], ["p90", "Latency, 90 %"], ["p99", "Latency, 99 %"]].map(([quantile, title]) => ({
    title, write: millis, from: () => 0, to: (most) => Math.max(most * 1.15, 0.1),
    lines: ["primary", "canary"].map((arm) => [arm, (point) => point[arm][`${quantile}_ms`]]),
  })),
];

/** Returns at most so many round numbers within a range. */
const ticks = (from, to, most) => {
  const rough = (to - from) / most;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((step) => step >= rough) ?? size;
  const found = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to + step / 1e6; tick += step) found.push(Number(tick.toPrecision(6)));
  return found;
};

/** Returns the parts of a line that have values, each as a path. */
const path = (values, x, y, isStepped) => {
  let text = "";
  let last = null;
  for (const [time, value] of values) {
    if (value === null || value === undefined) {
      last = null;
      continue;
    }
    const place = `${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
    // A value alone is a dot.
    if (last === null) text += `M${place}h0`;
    else text += isStepped ? `H${x(last).toFixed(1)}V${y(value).toFixed(1)}H${x(time).toFixed(1)}` : `L${place}`;
    last = time;
  }
  return text;
};

/** Says in words what a picture shows. */
const told = (chart, points) => {
  const parts = chart.lines.map(([arm, of]) => {
    const values = points.map(of).filter((value) => value !== null && value !== undefined);
    if (values.length === 0) return `${arm}: nothing yet`;
    const range = `between ${chart.write(Math.min(...values))} and ${chart.write(Math.max(...values))}`;
    return `${arm}: ${chart.write(values.at(-1))} at last, ${range}`;
  });
  return `${chart.title}. ${parts.join("; ")}.`;
};

const draw = (chart, series) => {
  const { points } = series;
  const [first, last] = [series.began_ms, Math.max(points.at(-1).t_ms, series.began_ms + 1)];
  const values = chart.lines.flatMap(([, of]) => points.map(of)).filter((value) => value !== null && value !== undefined);
  const [least, most] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 0];
  const from = chart.from(least, series);
  const to = Math.max(chart.to(most, series), from + 1e-3);
  const x = (time) => LEFT + ((time - first) / (last - first)) * (RIGHT - LEFT);
  const y = (value) => BOTTOM - ((Math.min(Math.max(value, from), to) - from) / (to - from)) * (BOTTOM - TOP);
  const limit = chart.limit?.(series);
  const marks = ticks(from, to, 4);
  const times = ticks(0, last - first, 4);
  return s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told(chart, points), "data-first": first, "data-last": last },
    marks.map((mark) => [
      s("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(mark), y2: y(mark) }),
      s("text", { class: "tick", x: LEFT - 5, y: y(mark) + 4, "text-anchor": "end" }, chart.write(mark)),
    ]).flat(),
    times.map((mark) => s("text", { class: "tick", x: x(first + mark), y: HEIGHT - 5, "text-anchor": mark === 0 ? "start" : x(first + mark) > RIGHT - 16 ? "end" : "middle" }, duration(mark))),
    limit && s("line", { class: "limit", x1: LEFT, x2: RIGHT, y1: y(limit[1]), y2: y(limit[1]) }),
    limit && s("text", { class: "tick limit-text", x: LEFT + 4, y: y(limit[1]) - 4 }, `${limit[0]} ${chart.write(limit[1])}`),
    chart.lines.map(([arm, of]) => s("path", { class: `line ${arm}`, d: path([...(chart.isStepped ? [[first, 0]] : []), ...points.map((point) => [point.t_ms, of(point)])], x, y, chart.isStepped) })),
    s("line", { class: "cursor", x1: 0, x2: 0, y1: TOP, y2: BOTTOM, visibility: "hidden" }),
  );
};

const read = (series, point) => {
  const at = `${duration(Math.max(0, point.t_ms - series.began_ms))} after the beginning (${exact(point.t_ms)})`;
  const of = (arm) => (point[arm].requests === 0 ? `${arm} without requests` : `${arm} ${rate(success(point[arm]))} of ${point[arm].requests} requests succeeded, p50 ${millis(point[arm].p50_ms)}, p90 ${millis(point[arm].p90_ms)}, p99 ${millis(point[arm].p99_ms)}`);
  const harm = point.harm === null ? "" : `; evidence ${short(point.harm)} of ${short(series.decisive)}`;
  return `${at}: share ${percent(point.weight)}; ${of("canary")}; ${of("primary")}${harm}.`;
};

/** Returns what shows the course of rollouts. */
export const charts = () => {
  const pictures = h("div", { class: "charts" });
  const slider = h("input", { type: "range", id: "moment", min: "0", max: "0", value: "0" });
  const words = h("p", { class: "reading" });
  const legend = h("p", { class: "legend" },
    s("svg", { viewBox: "0 0 24 8", class: "key", "aria-hidden": "true" }, s("path", { class: "line canary", d: "M0 4H24" })), " canary ",
    s("svg", { viewBox: "0 0 24 8", class: "key", "aria-hidden": "true" }, s("path", { class: "line primary", d: "M0 4H24" })), " primary");
  const figures = CHARTS.map((chart) => h("figure", {}, h("figcaption", {}, chart.title), h("div", {})));
  pictures.append(...figures);
  const field = h("p", { class: "moment" }, h("label", { for: "moment" }, "Read a moment"), slider);
  let series = null;
  /** The moment that is read; none is the latest one. */
  let moment = null;
  const point = () => {
    const place = Math.min(Number(slider.value), series.points.length - 1);
    return series.points[place];
  };
  const readOut = () => {
    if (!series) return;
    const text = read(series, point());
    write(words, text);
    slider.setAttribute("aria-valuetext", text);
    for (const svg of pictures.querySelectorAll("svg")) {
      const [first, last] = [Number(svg.dataset.first), Number(svg.dataset.last)];
      const cursor = svg.querySelector(".cursor");
      const x = LEFT + ((point().t_ms - first) / (last - first)) * (RIGHT - LEFT);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.setAttribute("visibility", moment === null ? "hidden" : "visible");
    }
  };
  slider.addEventListener("input", () => {
    const isLast = Number(slider.value) === series.points.length - 1;
    moment = isLast ? null : point().t_ms;
    readOut();
  });
  pictures.addEventListener("pointermove", (event) => {
    const svg = event.target.closest("svg");
    if (!svg || !series) return;
    const box = svg.getBoundingClientRect();
    const part = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (RIGHT - LEFT);
    const wanted = Number(svg.dataset.first) + part * (Number(svg.dataset.last) - Number(svg.dataset.first));
    moment = wanted;
    slider.value = nearest(wanted);
    readOut();
  });
  pictures.addEventListener("pointerleave", () => {
    moment = null;
    if (series) slider.value = series.points.length - 1;
    readOut();
  });
  const nearest = (wanted) => series.points.reduce((best, { t_ms }, place) => (Math.abs(t_ms - wanted) < Math.abs(series.points[best].t_ms - wanted) ? place : best), 0);
  const empty = h("p", { class: "muted" });
  const update = (next, why) => {
    const has = next !== null && next.points.length > 0;
    for (const element of [pictures, legend, field, words]) element.hidden = !has;
    empty.hidden = has;
    write(empty, why);
    series = has ? next : null;
    if (!has) return;
    if (series.rollout !== update.rollout) moment = null;
    update.rollout = series.rollout;
    CHARTS.forEach((chart, place) => renew(figures[place].lastChild, series, () => draw(chart, series)));
    slider.max = series.points.length - 1;
    slider.value = moment === null ? series.points.length - 1 : nearest(moment);
    readOut();
  };
  return { elements: [legend, pictures, field, words, empty], update };
};
