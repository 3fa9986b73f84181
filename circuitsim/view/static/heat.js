// A table of numbers as an image: hover and arrow keys tell a cell, click and Enter choose it.

import { scaleOf, showScale, withUnit } from "view/scales";

export class Heat {
  // tell(row, col, value): the words for a cell; pick(row, col): what a choice does (may be missing).
  constructor({ label, tip, tell, pick = null, size = 300 }) {
    this.tip = tip;
    this.tell = tell;
    this.pick = pick;
    this.size = size;
    this.label = label;
    this.root = document.createElement("figure");
    this.root.style.margin = "0";
    this.head = document.createElement("figcaption");
    this.head.textContent = label;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "heat";
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", pick ? "application" : "img");
    this.scaleBox = document.createElement("div");
    this.scaleBox.className = "scale";
    this.root.append(this.head, this.canvas, this.scaleBox);
    this.cursor = null;
    this.canvas.addEventListener("pointermove", (event) => this.#hover(event));
    this.canvas.addEventListener("pointerleave", () => this.tip.hide());
    this.canvas.addEventListener("blur", () => {
      this.tip.hide();
      this.cursor = null;
      this.#paint();
    });
    this.canvas.addEventListener("click", (event) => {
      const c = this.#cell(event);
      if (c && pick) pick(...c);
    });
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  show({ rows, cols, values, unit, scale = null, label = this.label, symmetric = false, quiet = false }) {
    Object.assign(this, { rows, cols, values, label });
    this.scale = scale ?? scaleOf(values, unit, { symmetric });
    this.head.textContent = label;
    this.canvas.setAttribute("aria-label", `${label}: ${rows} rows, ${cols} columns`);
    const factor = Math.max(1, Math.min(this.size / cols, this.size / rows, 40));
    this.canvas.style.width = `${Math.round(Math.max(cols * factor, 24))}px`;
    this.canvas.style.height = `${Math.round(Math.max(rows * factor, 24))}px`;
    this.#paint();
    this.scaleBox.hidden = quiet;
    if (!quiet) showScale(this.scaleBox, this.scale, "");
  }

  #paint() {
    if (!this.values) return;
    const { rows, cols, values } = this;
    this.canvas.width = cols;
    this.canvas.height = rows;
    const pen = this.canvas.getContext("2d");
    for (let k = 0; k < values.length; k += 1) {
      pen.fillStyle = this.scale.colour(values[k]);
      pen.fillRect(k % cols, Math.floor(k / cols), 1, 1);
    }
    if (this.cursor) {
      pen.fillStyle = "#ff00aa";
      pen.fillRect(this.cursor[1], this.cursor[0], 1, 1);
    }
  }

  #cell(event) {
    const box = this.canvas.getBoundingClientRect();
    const col = Math.floor(((event.clientX - box.left) / box.width) * this.cols);
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
    return row >= 0 && col >= 0 && row < this.rows && col < this.cols && this.values[row * this.cols + col] !== null
      ? [row, col]
      : null;
  }

  #words(row, col) {
    const value = this.values[row * this.cols + col];
    return this.tell(row, col, withUnit(value, this.scale.unit));
  }

  #hover(event) {
    const cell = this.#cell(event);
    if (cell) this.tip.show(this.#words(...cell), event.clientX, event.clientY);
    else this.tip.hide();
  }

  #key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const [row, col] = this.cursor ? [this.cursor[0] + step[0], this.cursor[1] + step[1]] : [0, 0];
      this.cursor = [Math.min(Math.max(row, 0), this.rows - 1), Math.min(Math.max(col, 0), this.cols - 1)];
      this.#paint();
      const box = this.canvas.getBoundingClientRect();
      const at = [((this.cursor[1] + 0.5) / this.cols) * box.width, ((this.cursor[0] + 0.5) / this.rows) * box.height];
      this.tip.show(this.#words(...this.cursor), box.left + at[0], box.top + at[1], true);
      event.preventDefault();
    } else if (event.key === "Enter" && this.cursor && this.pick) {
      this.pick(...this.cursor);
      event.preventDefault();
    }
  }
}
