// Plots over time, drawn by uPlot. Each has its figures as a table, too.
/* global uPlot */

import { el, table } from "./dom.js";
import { count, seconds, time, usd } from "./format.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// What is drawn: `stacked` series stand on each other, the first one lowest. `ofDays`: what there
// is of days, where that is something else.
const KINDS = {
  calls: {
    title: (per) => `Calls per ${per}`,
    stacked: true,
    format: count,
    series: [["answered", "c-answered"], ["refused", "c-refused"], ["failed", "c-failed"]],
    ofDays: [["calls", "c-answered"]], // the ledger has what was sent
  },
  spend: { title: (per) => `Spend per ${per}`, bars: true, format: usd, series: [["USD", "c-spend"]] },
  first: {
    title: () => "Time to first token",
    format: seconds,
    series: [["median", "c-first"], ["95 of 100", "c-late"]],
    missing: "Days are not kept for this; choose an hour.",
  },
  tokens: { title: (per) => `Tokens per ${per}`, format: count, series: [["in", "c-in"], ["out", "c-out"]], area: true },
};

const HEIGHT = 164;
const WHOLE = [1, 2, 5].flatMap((n) => Array.from({ length: 10 }, (_, zeros) => n * 10 ** zeros)).sort((a, b) => a - b);
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short", timeZone: "UTC" });

export class Plot {
  constructor(figure) {
    this.kind = KINDS[figure.dataset.plot];
    this.name = figure.dataset.plot;
    this.figure = figure;
    this.caption = figure.querySelector("figcaption");
    this.place = el("div", { class: "canvas", role: "img" });
    this.rows = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures of this plot" });
    this.details = el("details", { class: "as-table", ontoggle: () => this.tabulate() }, el("summary", {}, "As a table"), this.rows);
    figure.append(this.place, this.details);
    new ResizeObserver(() => this.resize()).observe(this.place);
  }

  /** `data`: times, then a list for each series; `per`: what a point stands for. */
  show(data, { per, days, from, to }, why = this.kind.missing) {
    this.data = data;
    this.days = days;
    this.caption.textContent = this.kind.title(per);
    const missing = data.length < 2;
    const key = `${document.documentElement.dataset.theme} ${days} ${missing && why}`;
    if (key !== this.key) {
      this.key = key;
      this.plot?.destroy();
      this.plot = null;
      this.place.replaceChildren();
      this.place.className = missing ? "note" : "canvas";
      if (missing) this.place.textContent = why;
      else this.plot = new uPlot(this.options(days), this.stacked(data), this.place);
    }
    this.details.hidden = missing;
    if (!this.plot) return;
    this.range = [from, to];
    this.plot.setData(this.stacked(data));
    this.describe();
    this.tabulate();
  }

  get series() {
    return (this.days && this.kind.ofDays) || this.kind.series;
  }

  get isStacked() {
    return this.kind.stacked || (this.days && this.kind.area); // bars of days do not hide each other
  }

  stacked(data) {
    if (!this.isStacked) return data;
    const sums = data[1].map(() => 0);
    const layers = data.slice(1).map((values) => values.map((value, at) => (sums[at] += value ?? 0)));
    return [data[0], ...layers.reverse()];
  }

  options(days) {
    const { kind } = this;
    const width = Math.max(200, this.place.clientWidth);
    const muted = color("muted");
    const axis = { stroke: muted, font: "11px system-ui, sans-serif", grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
    const stacked = this.isStacked;
    const drawn = stacked ? [...this.series].reverse() : this.series;
    const gaps = days ? 0.7 : 0.82;
    return {
      width,
      height: HEIGHT,
      cursor: { sync: { key: days ? "days" : "live" }, points: { size: 6 }, drag: { x: false, y: false }, y: false },
      legend: { live: true, markers: { width: 0, fill: (_, at) => color(drawn[at - 1]?.[1] ?? "faint") } },
      scales: {
        x: { range: () => this.range ?? [0, 1] },
        y: { range: (_, __, most) => [0, most > 0 ? most * 1.12 : 1] },
      },
      axes: [
        { ...axis, space: 70, size: 26, values: (_, at) => at.map((each) => (days ? day.format(each * 1000) : time(each).slice(0, 5))) },
        { ...axis, incrs: kind.format === count ? WHOLE : undefined, size: (_, labels) => Math.max(40, 14 + 6.6 * Math.max(...(labels ?? [""]).map((each) => each.length))), space: 28, values: (_, at) => at.map((each) => kind.format(each)) },
      ],
      series: [
        { label: "", value: (_, at) => (at == null ? "latest" : days ? day.format(at * 1000) : time(at)) },
        ...drawn.map(([label, name], at) => {
          const stroke = color(name);
          const is_bar = stacked || kind.bars || days;
          const original = stacked ? drawn.length - at : at + 1;
          return {
            label,
            stroke,
            width: is_bar ? 0 : 1.8,
            fill: is_bar ? stroke : kind.area ? `${stroke}22` : undefined,
            paths: is_bar ? uPlot.paths.bars({ size: [gaps, 40], radius: 0.12 }) : undefined,
            points: { show: !is_bar && !kind.area, size: 4, fill: stroke },
            value: (_, __, ___, index) => this.kind.format(this.data[original].at(index ?? -1) ?? (kind.area ? 0 : null)),
          };
        }),
      ],
    };
  }

  resize() {
    if (this.plot && this.place.clientWidth !== this.plot.width) this.plot.setSize({ width: this.place.clientWidth, height: HEIGHT });
  }

  describe() {
    const sums = this.series.map(([label], at) => {
      const values = this.data[at + 1].filter((value) => value != null);
      return `${label} at most ${values.length ? this.kind.format(Math.max(...values)) : "nothing"}`;
    });
    this.place.setAttribute("aria-label", `${this.caption.textContent}: ${sums.join(", ")}. The figures are in the table below.`);
  }

  tabulate() {
    if (!this.details.open || !this.data) return;
    const [times, ...series] = this.data;
    const rows = times.map((at, index) => [at, ...series.map((values) => values[index])]).reverse().slice(0, 60);
    const columns = [
      { head: this.days ? "Day" : "Time", class: "time", cell: ([at]) => (this.days ? day.format(at * 1000) : time(at)) },
      ...this.series.map(([label], at) => ({
        head: label, class: "num", cell: (row) => (row[at + 1] == null ? "–" : this.kind.format(row[at + 1])),
      })),
    ];
    this.rows.replaceChildren(table(columns, rows, this.caption.textContent));
  }
}

/** A line without axes, for a tile. */
export class Spark {
  constructor(place, name) {
    this.place = place;
    this.name = name;
  }

  show(times, values) {
    const key = document.documentElement.dataset.theme + this.place.clientWidth;
    if (key !== this.key) {
      this.key = key;
      this.plot?.destroy();
      const stroke = color(this.name);
      this.plot = new uPlot({
        width: this.place.clientWidth || 100,
        height: 40,
        padding: [4, 0, 0, 0],
        cursor: { show: false },
        legend: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: { y: { range: (_, __, most) => [0, most || 1] } },
        series: [{}, { stroke, width: 1.5, fill: `${stroke}26`, points: { show: false }, spanGaps: true }],
      }, [times, values], this.place);
    } else this.plot.setData([times, values]);
  }
}
