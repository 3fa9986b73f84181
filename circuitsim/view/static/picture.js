// Pictures for a network to read: drawn by hand, seen in each layer, with what comes into a unit.

import { ask, live } from "view/ask";
import { colourOf, curves } from "view/charts";
import { Digit } from "view/digit";
import { el, fail, made, tip } from "view/dom";
import { Heat } from "view/heat";
import { plain, scaleOf, withUnit } from "view/scales";
import { state } from "view/state";

export class Picture {
  // `changed(part)`: solve with this change, and show the sweeps too.
  constructor(about, changed) {
    this.about = about;
    this.changed = changed;
    this.unit = null;
    this.box = el("panel-picture");
    const canvas = made("canvas", {
      className: "draw",
      tabIndex: 0,
      width: 280,
      height: 280,
      "aria-describedby": "draw-keys",
      "aria-label": "Draw a digit here",
    });
    canvas.setAttribute("role", "application");
    this.digit = new Digit(canvas, about.side, () => this.send());
    this.gain = made("input", { type: "text", value: plain(about.gain), id: "gain", inputMode: "decimal" });
    this.gain.addEventListener("change", () => this.send());
    const buttons = made(
      "div",
      { className: "buttons" },
      made("button", {
        type: "button",
        id: "clear",
        textContent: "Clear",
        onclick: () => {
          this.digit.clear();
          this.send();
        },
      }),
      made("button", {
        type: "button",
        id: "given",
        className: "plain",
        textContent: "The netlist's picture",
        onclick: () => {
          this.digit.clear();
          this.changed({ inputs: null });
        },
      }),
      made("label", {}, "White, V", this.gain),
      made("p", {
        id: "draw-keys",
        className: "keys",
        textContent: "Mouse, or keys: arrows move the pen, space puts it down or lifts it, Delete clears.",
      }),
    );
    const draw = made("div", {}, made("h3", { textContent: "Draw a digit" }), canvas, ...(live ? [buttons] : []));
    if (!live) draw.hidden = true;
    const rest = about.sizes.slice(1, -1);
    this.input = new Heat({
      label: `inputs ${about.labels[0]}`,
      tip,
      size: 200,
      tell: (row, col, value) => `pixel ${row}, ${col}: ${value}`,
    });
    this.hidden = rest.map(
      (size, k) =>
        new Heat({
          label: `hidden ${about.labels[k + 1]}`,
          tip,
          size: 220,
          tell: (row, col, value) => `unit ${row * this.width(k + 1) + col}: ${value}; click for its inputs`,
          pick: (row, col) => this.choose(k + 1, row * this.width(k + 1) + col),
        }),
    );
    this.outputs = made("div", { className: "outputs" });
    this.settling = made("div", { id: "settling" });
    this.detail = made("section", { id: "unit", "aria-live": "polite" });
    const part = (name, ...children) => made("div", {}, made("h3", { textContent: name }), ...children);
    this.box.replaceChildren(
      made(
        "div",
        { className: "row" },
        draw,
        part("Output voltages", this.outputs),
        part("Settling, sweep by sweep", this.settling),
        part("Inputs", this.input.root),
        ...this.hidden.map((heat, k) => part(`Hidden layer${rest.length > 1 ? ` ${k + 1}` : ""}`, heat.root)),
      ),
      this.detail,
    );
  }

  label(layer) {
    const { labels, sizes, shown } = this.about;
    const part = shown[layer] < sizes[layer] ? `, the first ${shown[layer]} of ${sizes[layer]}` : "";
    return labels[layer] + part;
  }

  width(layer) {
    return Math.max(1, Math.ceil(Math.sqrt(this.about.shown[layer])));
  }

  send() {
    const gain = Number(this.gain.value);
    if (!Number.isFinite(gain)) {
      fail(new Error(`white: '${this.gain.value}' is not a number of volts`));
      return;
    }
    const grey = this.digit.pixels().map((x) => gain * x);
    this.changed({ inputs: this.about.pair ? [...grey, ...grey.map((x) => -x)] : grey });
  }

  show(answer) {
    clearTimeout(this.timer);
    this.final = answer.layers;
    const frames = matchMedia("(prefers-reduced-motion: reduce)").matches ? [] : answer.frames;
    if (answer.frames.length) this.chart(answer.frames);
    this.play(frames, 0);
    if (this.unit) this.choose(...this.unit);
  }

  // One frame after the other, then the certified answer.
  play(frames, k) {
    const sizes = this.about.shown.slice(1);
    if (k >= frames.length) {
      this.layers(this.final);
      return;
    }
    let start = 0;
    this.layers([
      this.final[0],
      ...sizes.map((n) => {
        start += n;
        return frames[k].slice(start - n, start);
      }),
    ]);
    this.timer = setTimeout(() => this.play(frames, k + 1), 90);
  }

  layers(layers) {
    const { side } = this.about;
    this.input.show({
      rows: side,
      cols: side,
      values: layers[0].slice(0, side * side),
      unit: "V",
      label: this.about.pair ? `${this.about.labels[0]}, first half` : this.about.labels[0],
    });
    this.hidden.forEach((heat, k) => {
      const cols = this.width(k + 1),
        values = layers[k + 1];
      const rows = Math.ceil(values.length / cols);
      heat.show({
        rows,
        cols,
        unit: "V",
        values: [...values, ...new Array(rows * cols - values.length).fill(null)],
        scale: scaleOf(this.final[k + 1], "V", { symmetric: true }),
        label: this.label(k + 1),
      });
    });
    this.bars(layers[layers.length - 1].slice(0, 64));
  }

  bars(y) {
    const final = this.final[this.final.length - 1];
    const low = Math.min(0, ...final),
      high = Math.max(0, ...final),
      span = high - low || 1;
    const best = final.indexOf(Math.max(...final));
    const layer = this.about.sizes.length - 1;
    if (this.outputs.children.length !== 3 * y.length) {
      this.outputs.replaceChildren(
        ...y.flatMap((_, k) => [
          made("button", {
            type: "button",
            textContent: `${k}`,
            "aria-label": `Output ${k}: show its inputs`,
            onclick: () => this.choose(layer, k),
          }),
          made("div", { className: "track", "aria-hidden": "true" }, made("div", { className: "fill" })),
          made("span", {}),
        ]),
      );
    }
    y.forEach((v, k) => {
      const [name, track, value] = [0, 1, 2].map((n) => this.outputs.children[3 * k + n]);
      const x = Math.min(Math.max(v, low), high),
        fill = track.firstChild;
      fill.style.left = `${((Math.min(x, 0) - low) / span) * 100}%`;
      fill.style.width = `${(Math.abs(x) / span) * 100}%`;
      for (const part of [name, fill, value]) part.classList.toggle("best", k === best);
      value.textContent = withUnit(v, "V") + (k === best ? "  ← highest" : "");
    });
  }

  chart(frames) {
    const n = this.about.shown.at(-1),
      best = this.final.at(-1).indexOf(Math.max(...this.final.at(-1)));
    const lines = Array.from({ length: Math.min(n, 20) }, (_, k) => ({
      label: `${k}`,
      wide: k === best,
      values: frames.map((f) => f[f.length - n + k]),
    }));
    curves(this.settling, {
      x: frames.map((_, k) => k),
      lines,
      xLabel: "sweeps from 0 V",
      yLabel: "outputs",
      width: 360,
      height: 210,
    });
    const key = made(
      "p",
      { className: "keys" },
      ...lines.map((line, k) => {
        const s = made("span", { textContent: `${line.wide ? "━ " : "─ "}${k}  ` });
        s.style.color = colourOf(k);
        return s;
      }),
    );
    this.settling.append(key);
  }

  // What comes into a unit: conductances and currents, laid out like the layer before.
  async choose(layer, unit) {
    const chosen = [layer, unit];
    this.unit = chosen;
    let found;
    try {
      found = await ask("unit", { changes: state.changes, layer, unit });
    } catch (error) {
      if (this.unit !== chosen) return;
      this.detail.replaceChildren(made("p", { className: "note", textContent: error.message }));
      return;
    }
    if (this.unit !== chosen) return;
    const { side, pair } = this.about,
      first = layer === 1;
    const heats = [];
    const add = (values, unitName, label, symmetric, scale) => {
      const cols = first ? side : this.width(layer - 1),
        rows = Math.ceil(values.length / cols);
      const heat = new Heat({
        label,
        tip,
        size: 210,
        tell: (row, col, value) => `${first ? `pixel ${row}, ${col}` : `unit ${row * cols + col}`}: ${value}`,
      });
      heat.show({
        rows,
        cols,
        values: [...values, ...new Array(rows * cols - values.length).fill(null)],
        unit: unitName,
        label,
        symmetric,
        scale,
      });
      heats.push(heat.root);
    };
    const halves =
      first && pair
        ? [
            ["from +pixels", 0, side * side],
            ["from −pixels", side * side, 2 * side * side],
          ]
        : [["", 0, found.g.length]];
    const [gScale, iScale] = [scaleOf(found.g, "S"), scaleOf(found.i, "A", { symmetric: true })];
    for (const [said, from, to] of halves) add(found.g.slice(from, to), "S", `conductances ${said}`, false, gScale);
    for (const [said, from, to] of halves) add(found.i.slice(from, to), "A", `currents ${said}`, true, iScale);
    this.detail.replaceChildren(
      made("h3", {
        textContent:
          `Current into ${found.name}: ${withUnit(found.sum, "A")} through ` +
          `${this.about.crossbars[layer - 1]}, at ${withUnit(found.voltage, "V")}`,
      }),
      made("p", {
        className: "note",
        textContent:
          "Orange: current into the unit; blue: out of it. Each pixel is the conductance, or the current, from one " +
          "input or unit of the layer before.",
      }),
      made("div", { className: "row" }, ...heats),
    );
  }
}
