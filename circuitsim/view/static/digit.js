// A picture drawn by hand, brought to MNIST's form: 20 pixels in its longer side, centred by mass in a square.

const PIXELS = 280;
const PEN = 22;

export class Digit {
  constructor(canvas, side, changed) {
    Object.assign(this, { canvas, side, changed, drawing: false, pen: [PIXELS / 2, PIXELS / 2], down: false });
    canvas.width = canvas.height = PIXELS;
    this.ink = document.createElement("canvas");
    this.ink.width = this.ink.height = PIXELS;
    this.pencil = this.ink.getContext("2d", { willReadFrequently: true });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drawing = true;
      this.last = this.#at(event);
      this.#line(this.last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.drawing) this.#line(this.#at(event));
    });
    canvas.addEventListener("pointerup", () => {
      this.drawing = false;
      this.changed();
    });
    canvas.addEventListener("pointercancel", () => {
      this.drawing = false;
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => {
      this.down = false;
      this.#show();
    });
    canvas.addEventListener("focus", () => this.#show());
    this.clear();
  }

  clear() {
    this.pencil.clearRect(0, 0, PIXELS, PIXELS);
    this.empty = true;
    this.#show();
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * PIXELS, ((event.clientY - box.top) / box.height) * PIXELS];
  }

  #line(to) {
    const pen = this.pencil;
    Object.assign(pen, { strokeStyle: "#fff", lineWidth: PEN, lineCap: "round", lineJoin: "round" });
    this.empty = false;
    pen.beginPath();
    pen.moveTo(...this.last);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
    this.last = to;
    this.#show();
    if (!this.soon)
      this.soon = setTimeout(() => {
        this.soon = null;
        this.changed();
      }, 150);
  }

  #key(event) {
    const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (step) {
      const to = this.pen.map((x, k) => Math.min(Math.max(x + 10 * step[k], PEN), PIXELS - PEN));
      if (this.down) {
        this.last = this.pen;
        this.#line(to);
      }
      this.pen = to;
    } else if (event.key === " ") {
      this.down = !this.down;
      if (this.down) {
        this.last = this.pen;
        this.#line(this.pen);
      }
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
      this.changed();
    } else return;
    event.preventDefault();
    this.#show();
  }

  #show() {
    const pen = this.canvas.getContext("2d");
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, PIXELS, PIXELS);
    pen.drawImage(this.ink, 0, 0);
    if (this.empty) {
      Object.assign(pen, { fillStyle: "#9aa5b1", font: "18px system-ui, sans-serif", textAlign: "center" });
      pen.fillText("draw here", PIXELS / 2, PIXELS / 2);
    }
    if (document.activeElement === this.canvas) {
      pen.strokeStyle = this.down ? "#e08a00" : "#6baed6";
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(...this.pen, PEN / 2, 0, 7);
      pen.stroke();
    }
  }

  // Grey values from 0 to 1, row by row.
  pixels() {
    const { side } = this;
    const data = this.pencil.getImageData(0, 0, PIXELS, PIXELS).data;
    let [left, right, top, bottom] = [PIXELS, -1, PIXELS, -1];
    for (let k = 0; k < PIXELS * PIXELS; k += 1) {
      if (data[4 * k + 3] > 0) {
        const [x, y] = [k % PIXELS, Math.floor(k / PIXELS)];
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = Math.min(top, y);
        bottom = Math.max(bottom, y);
      }
    }
    const out = new Array(side * side).fill(0);
    if (right < 0) return out;
    const [wide, high] = [right - left + 1, bottom - top + 1];
    const size = Math.max(1, Math.round((side * 20) / 28)),
      factor = size / Math.max(wide, high);
    const [w, h] = [wide, high].map((n) => Math.max(1, Math.round(n * factor)));
    // Means over the drawing's pixels under each small one, then moved so that the centre of mass is the centre.
    const small = new Array(w * h).fill(0);
    for (let y = 0; y < h; y += 1) {
      for (let x = 0; x < w; x += 1) {
        const [x0, x1] = [
          Math.floor((x * wide) / w),
          Math.max(Math.floor((x * wide) / w) + 1, Math.ceil(((x + 1) * wide) / w)),
        ];
        const [y0, y1] = [
          Math.floor((y * high) / h),
          Math.max(Math.floor((y * high) / h) + 1, Math.ceil(((y + 1) * high) / h)),
        ];
        let sum = 0;
        for (let j = y0; j < y1; j += 1)
          for (let i = x0; i < x1; i += 1) sum += data[4 * ((top + j) * PIXELS + left + i) + 3];
        small[y * w + x] = sum / (255 * (x1 - x0) * (y1 - y0));
      }
    }
    let [mass, mx, my] = [0, 0, 0];
    small.forEach((grey, k) => {
      mass += grey;
      mx += grey * (k % w);
      my += grey * Math.floor(k / w);
    });
    const [dx, dy] = [mx, my].map((m) => Math.round((side - 1) / 2 - m / mass));
    small.forEach((grey, k) => {
      const [x, y] = [(k % w) + dx, Math.floor(k / w) + dy];
      if (x >= 0 && y >= 0 && x < side && y < side) out[y * side + x] = Math.round(grey * 255) / 255;
    });
    return out;
  }
}
