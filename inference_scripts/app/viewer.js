// The radiograph on the screen: window, zoom, outlines, a heat map. Knows nothing of the page around it.
//
//     const viewer = new Viewer(stage, {onState: (state) => ...});     // stage has a canvas, an img and an svg
//     viewer.open(4000, 3000);                                         // the radiograph's own size
//     viewer.setPixels(await unpacked(message));                       // as `values.py` packs them
//     viewer.setOutlines([{number: 1, label: "...", score: 0.9, box: {...}, colour: "#fff", dash: "9 4"}]);
//
// Boxes are in pixels of the radiograph. The canvas has the pixels that were sent and is scaled by CSS; outlines are
// drawn in pixels of the screen, so that their lines and names keep their size.

const SVG = "http://www.w3.org/2000/svg";
const LARGEST = 16; // pixels of the screen for one of the radiograph
const STEP = 1.25; // of a zoom
const PAN = 48; // pixels, of an arrow key
const FONT = 13;

// What `packed` of values.py made: planes of differences along rows, deflated, in base64.
async function unpacked(message) {
  const sent = await fetch("data:application/octet-stream;base64," + message.packed);
  const stream = sent.body.pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = message.width * message.height;
  const deep = message.bytes === 2;
  const values = deep ? new Uint16Array(count) : new Uint8Array(count);
  for (let row = 0; row < message.height; row++) {
    let value = 0;
    for (let place = row * message.width; place < (row + 1) * message.width; place++) {
      value += deep ? (bytes[place] << 8) | bytes[count + place] : bytes[place];
      values[place] = value; // the array keeps the lower bits
      value = values[place];
    }
  }
  const table = message.table ? Uint8Array.from(atob(message.table), (letter) => letter.charCodeAt(0)) : null;
  return {
    values,
    table: table || Uint8Array.from({length: 256}, (_, grey) => grey),
    deep,
    width: message.width,
    height: message.height,
    slope: message.slope || 1,
    intercept: message.intercept || 0,
    reduced: message.reduced,
  };
}

class Viewer {
  constructor(stage, {onState}) {
    this.stage = stage;
    this.onState = onState;
    this.canvas = stage.querySelector("canvas");
    this.heat = stage.querySelector("img");
    this.svg = stage.querySelector("svg");
    this.measure = document.createElement("canvas").getContext("2d");
    this.measure.font = FONT + "px system-ui, sans-serif";
    this.pointers = new Map();
    this.close();
    this.listen();
  }

  // --- What is shown ---

  close() {
    this.size = null;
    this.pixels = null;
    this.outlines = [];
    this.chosen = null;
    this.inverted = false;
    this.outlined = true;
    this.window = null; // null: as the model saw it
    this.fitted = true;
    this.canvas.hidden = true;
    this.setHeat(null);
    this.draw();
  }

  open(width, height) {
    this.close();
    this.size = {width, height};
    this.fit();
  }

  setPixels(pixels) {
    this.pixels = pixels;
    this.canvas.width = pixels.width;
    this.canvas.height = pixels.height;
    this.canvas.hidden = false;
    this.first = firstWindow(pixels);
    this.window = null;
    this.paint();
    this.place();
  }

  setOutlines(outlines) {
    this.outlines = outlines;
    this.draw();
  }

  choose(number) {
    this.chosen = number;
    this.draw();
  }

  setHeat(url) {
    this.heat.hidden = !url;
    if (url) this.heat.src = url;
    else this.heat.removeAttribute("src");
    this.place();
  }

  setOpacity(share) {
    this.heat.style.opacity = share;
  }

  // --- Window ---

  get shownWindow() {
    return this.window || this.first;
  }

  setWindow(width, level) {
    if (!this.pixels) return;
    const least = (this.first.range || 1) / 512;
    this.window = {width: Math.max(least, width), level};
    this.paintSoon();
  }

  moveWindow(across, down) {
    if (!this.pixels) return;
    const {width, level} = this.shownWindow;
    this.setWindow(width + across * this.first.range, level + down * this.first.range);
  }

  resetWindow() {
    this.window = null;
    this.inverted = false;
    this.paintSoon();
  }

  paintSoon() {
    if (this.painting) return;
    this.painting = true;
    requestAnimationFrame(() => {
      this.painting = false;
      this.paint();
    });
  }

  paint() {
    const pixels = this.pixels;
    if (!pixels) return;
    const greys = new Uint32Array(pixels.table.length);
    for (let value = 0; value < greys.length; value++) {
      let grey = pixels.table[value];
      if (this.window) {
        const {width, level} = this.window;
        const share = (value * pixels.slope + pixels.intercept - level) / width + 0.5;
        grey = Math.round(255 * Math.min(1, Math.max(0, this.first.falling ? 1 - share : share)));
      }
      if (this.inverted) grey = 255 - grey;
      greys[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    const image = new ImageData(pixels.width, pixels.height);
    const out = new Uint32Array(image.data.buffer);
    for (let place = 0; place < out.length; place++) out[place] = greys[pixels.values[place]];
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.tell();
  }

  // --- Zoom ---

  get fitting() {
    const {clientWidth, clientHeight} = this.stage;
    return Math.min(clientWidth / this.size.width, clientHeight / this.size.height);
  }

  fit() {
    if (!this.size) return;
    this.fitted = true;
    this.scale = this.fitting;
    this.x = (this.stage.clientWidth - this.scale * this.size.width) / 2;
    this.y = (this.stage.clientHeight - this.scale * this.size.height) / 2;
    this.place();
  }

  reset() {
    this.resetWindow();
    this.fit();
  }

  zoomTo(scale, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.size) return;
    const least = this.fitting / 2;
    const next = Math.min(LARGEST, Math.max(least, scale));
    this.x = x - ((x - this.x) * next) / this.scale;
    this.y = y - ((y - this.y) * next) / this.scale;
    this.scale = next;
    this.fitted = false;
    this.place();
  }

  zoom(by, x, y) {
    this.zoomTo(this.scale * by, x, y);
  }

  move(x, y) {
    if (!this.size) return;
    this.x += x;
    this.y += y;
    this.fitted = false;
    this.place();
  }

  // Puts canvas and map where the radiograph lies; some of it stays in sight.
  place() {
    if (!this.size) return this.draw();
    const {width, height} = this.size;
    const {clientWidth, clientHeight} = this.stage;
    const kept = 40;
    this.x = Math.min(clientWidth - kept, Math.max(kept - this.scale * width, this.x));
    this.y = Math.min(clientHeight - kept, Math.max(kept - this.scale * height, this.y));
    for (const layer of [this.canvas, this.heat]) {
      layer.style.width = this.scale * width + "px";
      layer.style.height = this.scale * height + "px";
      layer.style.transform = "translate(" + this.x + "px, " + this.y + "px)";
    }
    const onScreen = this.pixels ? (this.scale * width) / this.pixels.width : 1;
    this.canvas.style.imageRendering = onScreen * devicePixelRatio >= 4 ? "pixelated" : "auto";
    // A finger on the whole radiograph scrolls the page; on a part of it, it moves the part.
    this.stage.style.touchAction = this.fitted ? "pan-y" : "none";
    this.draw();
  }

  // --- Outlines ---

  draw() {
    this.svg.replaceChildren();
    if (this.size && this.outlined) {
      const boxes = this.outlines.map((outline) => ({outline, ...this.onScreen(outline.box)}));
      for (const box of [...boxes].reverse()) this.svg.append(this.outline(box)); // the surest lies on top
      const taken = [];
      for (const box of boxes) {
        const name = this.name(box, taken);
        if (name) this.svg.append(name);
      }
    }
    this.tell();
  }

  onScreen(box) {
    return {
      x: this.x + this.scale * box.xmin,
      y: this.y + this.scale * box.ymin,
      width: this.scale * (box.xmax - box.xmin),
      height: this.scale * (box.ymax - box.ymin),
    };
  }

  outline({outline, x, y, width, height}) {
    const group = drawn("g", {class: "lg-outline", "data-number": outline.number});
    const chosen = outline.number === this.chosen;
    const place = {x, y, width: Math.max(width, 2), height: Math.max(height, 2), fill: "none"};
    const line = chosen ? 4 : 2;
    group.append(drawn("rect", {...place, stroke: "#000", "stroke-width": line + 2, "stroke-opacity": 0.7}));
    group.append(
      drawn("rect", {...place, stroke: outline.colour, "stroke-width": line, "stroke-dasharray": outline.dash}),
    );
    return group;
  }

  // A finding's name beside its box: on no other name, inside the stage; where there is no room its number alone.
  name({outline, x, y, width, height}, taken) {
    const {clientWidth, clientHeight} = this.stage;
    if (x > clientWidth || y > clientHeight || x + width < 0 || y + height < 0) return null;
    const score = outline.score === null ? "" : " " + outline.score.toFixed(2);
    for (const text of [outline.number + "  " + outline.label + score, String(outline.number)]) {
      const room = {width: this.measure.measureText(text).width + 10, height: FONT + 7};
      const right = x + width - room.width;
      for (const [left, top] of [
        [x, y - room.height - 2],
        [right, y - room.height - 2],
        [x, y + height + 2],
        [right, y + height + 2],
        [x + 3, y + 3],
        [right - 3, y + 3],
        [x + 3, y + height - room.height - 3],
        [right - 3, y + height - room.height - 3],
      ]) {
        const place = {x: Math.min(Math.max(left, 0), clientWidth - room.width), y: top, ...room};
        const inside = place.y >= 0 && place.y + room.height <= clientHeight;
        if (!inside || taken.some((other) => overlap(place, other))) continue;
        taken.push(place);
        const group = drawn("g", {class: "lg-name"});
        group.append(drawn("rect", {...place, fill: "#000", "fill-opacity": 0.75}));
        const words = drawn("text", {x: place.x + 5, y: place.y + FONT + 1, fill: outline.colour, "font-size": FONT});
        words.textContent = text;
        group.append(words);
        return group;
      }
    }
    return null;
  }

  // --- Hands and keys ---

  listen() {
    const stage = this.stage;
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("dblclick", () => this.reset());
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.moved(event));
    for (const end of ["pointerup", "pointercancel"]) {
      stage.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    stage.addEventListener("pointerleave", () => this.tell());
    stage.addEventListener("keydown", (event) => {
      if (this.key(event)) event.preventDefault();
    });
    stage.addEventListener(
      "wheel",
      (event) => {
        if (!this.size) return;
        event.preventDefault();
        const {x, y} = this.within(event);
        this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), x, y);
      },
      {passive: false},
    );
    new ResizeObserver(() => (this.fitted ? this.fit() : this.place())).observe(stage);
  }

  within(event) {
    const edge = this.stage.getBoundingClientRect();
    return {x: event.clientX - edge.left, y: event.clientY - edge.top};
  }

  down(event) {
    if (!this.size) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.within(event));
    this.windowing = event.button === 2 || event.shiftKey;
  }

  moved(event) {
    const now = this.within(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.tell(now);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const spread = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      this.zoom(spread(now) / spread(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
      this.move((now.x - before.x) / 2, (now.y - before.y) / 2);
    } else if (this.windowing) {
      const {clientWidth, clientHeight} = this.stage;
      this.moveWindow((2 * (now.x - before.x)) / clientWidth, (now.y - before.y) / clientHeight);
    } else if (!(event.pointerType === "touch" && this.fitted)) {
      this.move(now.x - before.x, now.y - before.y);
    }
    this.pointers.set(event.pointerId, now);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.size) return false;
    const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) this.moveWindow(arrow[0] / 20, arrow[1] / 20);
    else if (arrow) this.move(-PAN * arrow[0], -PAN * arrow[1]);
    else return this.do({"+": "in", "=": "in", "-": "out", 0: "fit", 1: "full", i: "invert", b: "boxes"}[event.key]);
    return true;
  }

  do(what) {
    if (what === "in") this.zoom(STEP);
    else if (what === "out") this.zoom(1 / STEP);
    else if (what === "fit") this.reset();
    else if (what === "full") this.zoomTo(1 / devicePixelRatio);
    else if (what === "invert") {
      this.inverted = !this.inverted;
      this.paintSoon();
      this.tell();
    } else if (what === "boxes") {
      this.outlined = !this.outlined;
      this.draw();
    } else return false;
    return true;
  }

  tell(point) {
    const pixels = this.pixels;
    const state = {
      zoom: this.size ? this.scale : null,
      window: pixels ? this.shownWindow : null,
      first: pixels ? this.first : null,
      asSeen: !this.window,
      inverted: this.inverted,
      outlined: this.outlined,
      pixel: null,
    };
    if (point && pixels) {
      const x = Math.floor((point.x - this.x) / this.scale);
      const y = Math.floor((point.y - this.y) / this.scale);
      const column = Math.floor((x * pixels.width) / this.size.width);
      const row = Math.floor((y * pixels.height) / this.size.height);
      if (column >= 0 && row >= 0 && column < pixels.width && row < pixels.height) {
        const value = pixels.values[row * pixels.width + column] * pixels.slope + pixels.intercept;
        state.pixel = {x, y, value: Math.round(value)};
      }
    }
    this.onState(state);
  }
}

// The window that the picture as the model saw it has: where its greys leave black and reach white.
function firstWindow({table, slope, intercept}) {
  const last = table.length - 1;
  let low = 0;
  let high = last;
  while (low < last && Math.abs(table[low + 1] - table[0]) < 2) low++;
  while (high > low + 1 && Math.abs(table[high - 1] - table[last]) < 2) high--;
  const width = Math.max(1, high - low) * Math.abs(slope);
  return {
    width,
    level: ((low + high) / 2) * slope + intercept,
    falling: table[last] < table[0] !== slope < 0,
    range: Math.max(width, 1),
    lowest: Math.min(intercept, last * slope + intercept),
    highest: Math.max(intercept, last * slope + intercept),
  };
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function overlap(one, other) {
  return (
    one.x < other.x + other.width &&
    other.x < one.x + one.width &&
    one.y < other.y + other.height &&
    other.y < one.y + one.height
  );
}
