// The page's side of medbook's FeatureExplorer: it draws what Python sent. Choosing another layer, map, scale, colour or zoom
// is done here, from bytes that are here already; only a pixel's arithmetic and maps not yet held are asked of the kernel.

// ---------- what was sent ----------

/** A copy of a part of the bytes as numbers of another type (a part may begin at any byte, so it cannot be viewed in place). */
function floats(view) {
  return view ? new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength - (view.byteLength % 4))) : new Float32Array(0);
}

function bytes(view) {
  return view ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array(0);
}

/** Everything that Python sent, ready to draw: rows (one or two), each with its layers, input, scores and held maps. */
function unpack(model) {
  const info = model.get("info"), numbers = floats(model.get("numbers")), pixels = bytes(model.get("pixels"));
  const blocks = model.get("blocks");
  const rows = (info.rows || []).map((row, place) => {
    const held = new Map();
    for (const block of blocks[place] || []) {
      const size = block.space[0] * block.space[1] * block.space[2] * block.count;
      held.set(`${block.layer}:${block.page}`, {
        ...block,
        values: pixels.subarray(block.at, block.at + size),
        low: numbers.subarray(block.ends, block.ends + block.count),
        high: numbers.subarray(block.ends + block.count, block.ends + 2 * block.count),
      });
    }
    const picture = (part, channels) => part && { ...part, channels, values: pixels.subarray(part.at, part.at + part.rows * part.columns * channels) };
    return {
      ...row, held, input: picture(row.input, row.input.channels), cam: picture(row.cam, 1),
      scores: numbers.subarray(row.scores.at, row.scores.at + row.scores.count),
      thumb: (layer) => numbers.subarray(row.thumbs[layer], row.thumbs[layer + 1]),
    };
  });
  return { rows, links: info.links || [], classes: info.classes || [], target: info.target };
}

/** The value of a pixel, from its byte: off by (high - low) / 510 at most. */
function valueAt(block, map, [z, r, c]) {
  const [, rows, columns] = block.space;
  const byte = block.values[((z * rows + r) * columns + c) * block.count + map];
  return block.low[map] + (byte / 255) * (block.high[map] - block.low[map]);
}

/** A map that has one value everywhere; a single value is dead where it is 0. */
function isDead(block, map) {
  const single = block.space[0] * block.space[1] * block.space[2] === 1;
  return block.low[map] === block.high[map] && (!single || block.low[map] === 0);
}

/** The map to show first: the first one, or where it is dead the one with the largest spread. */
function liveliest(block) {
  if (!isDead(block, 0)) return 0;
  let best = 0;
  for (let map = 1; map < block.count; map++) if (block.high[map] - block.low[map] > block.high[best] - block.low[best]) best = map;
  return best;
}

// ---------- numbers in words ----------

export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(2) : value.toFixed(size >= 100 ? 1 : size && size < 0.1 ? 1 - Math.floor(Math.log10(size)) + 1 : 3);
  return text.replace("-", "−");
}

/** Decimals that give the largest number of a table three significant digits. */
function decimals(most) {
  return most > 0 && Number.isFinite(most) ? Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(most)))) : 0;
}

/** A number with so many decimals; what rounds to zero is "0", without a sign. */
function fixed(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? "0" : text;
}

/** The largest magnitude among numbers. */
function largest(values) {
  return values.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0);
}

function positionText(layer, [z, r, c]) {
  if (layer.form === "units") return `unit ${c}`;
  if (layer.form === "signal") return `time ${c}`;
  return layer.form === "volume" ? `pixel (${z}, ${r}, ${c})` : `pixel (${r}, ${c})`;
}

// ---------- colours and drawing ----------

const PALETTES = ["gray", "viridis", "magma", "coolwarm", "inferno"];

/** The colours as 32-bit numbers, as an ImageData holds them on every common machine (little-endian: alpha, blue, green, red). */
function palettesFrom(view) {
  const all = bytes(view);
  return Object.fromEntries(PALETTES.map((name, place) => {
    const table = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const at = (place * 256 + i) * 3;
      table[i] = (255 << 24) | (all[at + 2] << 16) | (all[at + 1] << 8) | all[at];
    }
    return [name, table];
  }));
}

/** For each byte of one map its colour, when values from `low` to `high` take the whole palette. */
function colourTable(block, map, palette, [low, high]) {
  const span = high - low, a = block.low[map], step = (block.high[map] - a) / 255, table = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const share = span > 0 ? (a + byte * step - low) / span : 0;
    table[byte] = palette[Math.max(0, Math.min(255, Math.round(share * 255)))];
  }
  return table;
}

/** The range that a map is drawn with: its own, or that of all maps of the layer (around zero for the two-coloured palette). */
function rangeOf(blocks, map, scale, palette) {
  let low = Infinity, high = -Infinity;
  for (const block of blocks) {
    const maps = scale === "each" ? [map] : block.low.keys();
    for (const one of maps) {
      if (block.low[one] < low) low = block.low[one];
      if (block.high[one] > high) high = block.high[one];
    }
  }
  if (palette === "coolwarm") { const most = Math.max(Math.abs(low), Math.abs(high)); return [-most, most]; }
  return [low, high];
}

const HATCH = 0xff3b30d0;

/** One map of an image, or of a volume's slice, as an ImageData of its own size. */
function mapImage(block, map, slice, palette, range) {
  const [, rows, columns] = block.space, count = block.count, image = new ImageData(columns, rows);
  const out = new Uint32Array(image.data.buffer), values = block.values;
  if (Number.isNaN(block.low[map])) {
    for (let i = 0; i < out.length; i++) out[i] = ((i % columns) + Math.floor(i / columns)) % 4 ? 0xff808080 : HATCH;
    return image;
  }
  const table = colourTable(block, map, palette, range);
  let at = slice * rows * columns * count + map;
  for (let i = 0; i < out.length; i++, at += count) out[i] = table[values[at]];
  return image;
}

/** One map of two rows, the first minus the second, drawn around zero. */
function differenceImage(one, other, map, slice, palette, most) {
  const [, rows, columns] = one.space, image = new ImageData(columns, rows), out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < out.length; i++) {
    const at = [slice, Math.floor(i / columns), i % columns];
    const share = 0.5 + (valueAt(one, map, at) - valueAt(other, map, at)) / (2 * (most || 1));
    out[i] = palette[Math.max(0, Math.min(255, Math.round(share * 255)))];
  }
  return image;
}

const scratch = document.createElement("canvas");

/** Draw an ImageData enlarged, every pixel a square. */
function blit(context, image, x, y, width, height, smooth = false) {
  if (scratch.width < image.width || scratch.height < image.height) {
    scratch.width = Math.max(scratch.width, image.width);
    scratch.height = Math.max(scratch.height, image.height);
  }
  scratch.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = smooth;
  context.drawImage(scratch, 0, 0, image.width, image.height, x, y, width, height);
}

/** A picture (rows, columns, 1 or 3) of bytes as an ImageData. */
function pictureImage(picture, palette, alpha) {
  const image = new ImageData(picture.columns, picture.rows), out = new Uint32Array(image.data.buffer), v = picture.values;
  for (let i = 0; i < out.length; i++) {
    out[i] = picture.channels === 3 ? (255 << 24) | (v[3 * i + 2] << 16) | (v[3 * i + 1] << 8) | v[3 * i] : palette[v[i]];
    if (alpha) out[i] = (out[i] & 0x00ffffff) | (Math.round(alpha * v[i]) << 24);
  }
  return image;
}

/** Numbers (rows × columns) as an ImageData, from their least to their largest. */
function numbersImage(values, rows, columns, palette) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  const image = new ImageData(columns, rows), out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < out.length; i++) out[i] = palette[high > low ? Math.round((255 * (values[i] - low)) / (high - low)) : 0];
  return image;
}

/** Fit a canvas to a size in CSS pixels on this screen; its context, in CSS pixels. */
function sized(canvas, width, height) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const w = Math.max(1, Math.round(width * ratio)), h = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function frameRect(context, x, y, width, height, colour, line = 2) {
  context.lineWidth = line;
  context.strokeStyle = colour;
  context.strokeRect(x + line / 2, y + line / 2, Math.max(1, width - line), Math.max(1, height - line));
}

// ---------- elements ----------

let serial = 0;

function make(kind, options = {}, children = []) {
  const { text, ...rest } = options;
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(rest)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

function choice(label, names, onchange) {
  const select = make("select", { onchange, "aria-label": label }, names.map((name) => make("option", { value: name, text: name })));
  return [make("label", {}, [`${label} `, select]), select];
}

// ---------- the view ----------

class Explorer {
  constructor(model, el) {
    Object.assign(this, { model, el, id: `mbx${++serial}`, layer: 0, page: 0, map: 0, pixel: [0, 0, 0], slice: null, zoom: 1, scale: "each",
      palette: "gray", order: "number", only: "all", difference: false, pinned: false, row: 0, question: 0, frame: 0, fresh: true });
    this.layer = model.get("start").layer || 0;
    this.build();
    this.listeners = {
      "change:frame": () => this.received(), "change:card": () => this.drawCard(),
      "change:message": () => this.drawMessage(), "change:status": () => this.drawStatus(),
      "change:palettes": () => this.received(),
    };
    for (const [name, listener] of Object.entries(this.listeners)) model.on(name, listener);
    this.observer = new ResizeObserver(() => this.drawMaps());
    this.observer.observe(this.scroll);
    this.received();
  }

  // -- what is chosen

  get rows() { return this.data.rows; }
  get form() { return this.rows[0].layers[this.layer]; }
  layerOf(row) { return row === 0 ? this.layer : this.data.links[this.layer]; }

  /** The maps shown of a row, or undefined while they are not here. */
  block(row = 0) {
    const layer = this.layerOf(row);
    if (layer === undefined || layer < 0) return undefined;
    const { pages, held } = this.rows[row];
    return held.get(`${layer}:${Math.min(this.page, pages[layer][2] - 1)}`);
  }

  /** The numbers of the maps shown, within the block, in the order chosen. */
  shown() {
    const block = this.block();
    if (!block) return [];
    let maps = [...Array(block.count).keys()];
    if (this.only !== "all") maps = maps.filter((map) => isDead(block, map) === (this.only === "silent"));
    if (this.order === "strongest") maps.sort((a, b) => block.high[b] - block.high[a]);
    return maps;
  }

  // -- building

  build() {
    const { el, id } = this;
    el.classList.add("medbook-widget", "mbx");
    this.alert = make("div", { class: "mbx-alert", role: "alert" });
    this.inputs = make("div", { class: "mbx-inputs" });
    this.inputs.style.height = `${this.model.get("start").height || 236}px`;
    this.strip = make("div", { class: "mbx-strip", role: "listbox", "aria-label": "layers of the network, left to right", tabindex: "0",
      "aria-orientation": "horizontal", onkeydown: (event) => this.stripKey(event) });
    this.title = make("h3", { class: "mbx-title", id: `${id}-title` });
    const redraw = () => this.draw();
    let scale, palette, order, only;
    [scale, this.scaleBox] = choice("scale", ["each", "shared"], () => { this.scale = this.scaleBox.value; redraw(); });
    [palette, this.paletteBox] = choice("colours", PALETTES.slice(0, 4), () => { this.palette = this.paletteBox.value; redraw(); });
    [order, this.orderBox] = choice("order", ["number", "strongest"], () => { this.order = this.orderBox.value; redraw(); });
    [only, this.onlyBox] = choice("show", ["all", "active", "silent"], () => { this.only = this.onlyBox.value; redraw(); });
    this.search = make("input", { type: "search", placeholder: "map number or layer  ( / )", "aria-label": "find a map by its number, or a layer by its name",
      oninput: () => this.find(this.search.value), onkeydown: (event) => { if (event.key === "Enter" || event.key === "Escape") this.scroll.focus(); } });
    const zoom = (factor, name, text) => make("button", { type: "button", "aria-label": name, title: name, text, onclick: () => this.setZoom(factor) });
    this.sliceBox = make("input", { type: "range", min: "0", step: "1", "aria-label": "slice of the volume", oninput: () => { this.slice = +this.sliceBox.value; this.pixel[0] = this.slice; redraw(); } });
    this.sliceLabel = make("label", { class: "mbx-slice" }, ["slice ", this.sliceBox]);
    this.differenceBox = make("input", { type: "checkbox", onchange: () => { this.difference = this.differenceBox.checked; redraw(); } });
    this.differenceLabel = make("label", {}, [this.differenceBox, " difference"]);
    const turn = (step, name, text) => make("button", { type: "button", "aria-label": name, title: name, text, onclick: () => this.choose({ page: this.page + step, map: 0 }) });
    this.pageText = make("span");
    this.pageBox = make("span", { class: "mbx-pages" }, [turn(-1, "page before", "‹"), this.pageText, turn(1, "next page", "›")]);
    this.bar = make("div", { class: "mbx-bar" }, [scale, palette, order, only, make("span", {}, [zoom(1 / 1.5, "smaller", "−"), zoom(1.5, "larger", "+")]),
      this.sliceLabel, this.differenceLabel, this.pageBox, this.search]);
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.sheet = document.createElement("canvas");
    this.scroll = make("div", { class: "mbx-maps", tabindex: "0", role: "application", "aria-roledescription": "feature maps", "aria-describedby": `${id}-help`,
      onkeydown: (event) => this.mapKey(event), onpointermove: (event) => this.point(event, false), onpointerdown: (event) => this.point(event, true) }, [this.canvas]);
    this.help = make("div", { class: "mbx-help", id: `${id}-help`,
      text: "arrows: map · shift + arrows: pixel · [ ]: layer · Home, End · + −: size · /: search · click holds a pixel, Esc lets go" });
    this.card = make("aside", { class: "mbx-card", "aria-label": "the arithmetic behind the chosen pixel" });
    this.status = make("div", { class: "mbx-status" });
    this.live = make("div", { class: "mbx-live", role: "status", "aria-live": "polite" });
    el.append(this.alert, this.inputs, this.strip, make("section", { class: "mbx-middle", "aria-labelledby": `${id}-title` },
      [this.title, this.bar, this.scroll, this.help]), this.card, this.status, this.live);
    requestAnimationFrame(() => {
      this.outer = el.closest(".medbook-explorer") || el;
      this.letKeys = keepKeys(this.outer);
      setTimeout(() => this.nameSliders(), 1000);
    });
  }

  remove() {
    for (const [name, listener] of Object.entries(this.listeners)) this.model.off(name, listener);
    this.observer.disconnect();
    if (this.letKeys) this.letKeys();
    clearTimeout(this.question);
  }

  // -- receiving

  received() {
    const info = this.model.get("info");
    if (!info || !info.rows) return;
    this.palettes = palettesFrom(this.model.get("palettes"));
    this.data = unpack(this.model);
    const paths = JSON.stringify(info.rows.map((row) => row.layers.map((layer) => layer.path)));
    if (paths !== this.paths) {
      if (!this.paths) this.pixel = this.form.space.map((count) => Math.floor(count / 2));
      this.paths = paths;
      this.buildStrip();
      this.buildInputs();
    }
    this.layer = Math.min(this.layer, this.rows[0].layers.length - 1);
    this.frame = this.model.get("frame");
    this.asked = null;
    this.greet();
    this.draw();
    this.drawMessage();
    this.drawStatus();
    this.askSoon();
    this.el.dataset.frame = this.frame;
    this.nameSliders();
  }

  /** The sliders beside the canvas bear their names for screen readers too. */
  nameSliders() {
    const outer = this.el.closest(".medbook-explorer");
    for (const handle of outer ? outer.querySelectorAll(".noUi-handle:not([aria-label])") : []) {
      const label = handle.closest(".widget-inline-hbox")?.querySelector(".widget-label");
      if (label) handle.setAttribute("aria-label", label.textContent);
    }
  }

  buildStrip() {
    this.strip.replaceChildren();
    this.thumbs = this.rows[0].layers.map((layer, place) => {
      const canvas = make("canvas", { "aria-hidden": "true" });
      const item = make("div", { class: "mbx-layer", role: "option", id: `${this.id}-layer${place}`, "aria-selected": "false", title: `${layer.path} · ${layer.type} · ${layer.shape.join(" × ")}`,
        "aria-label": `${layer.path}, ${layer.type}, ${layer.shape.join(" by ")}`,
        onclick: () => { this.choose({ layer: place, page: 0, map: 0 }); this.strip.focus({ preventScroll: true }); } },
      [canvas, make("span", { text: layer.path.split("/").pop() })]);
      this.strip.append(item);
      return { canvas, item };
    });
    this.answer = make("div", { class: "mbx-scores" });
    this.strip.append(this.answer);
  }

  buildInputs() {
    this.inputs.replaceChildren();
    this.inputCanvases = this.rows.map((row, place) => {
      const canvas = make("canvas", { role: "img" });
      this.inputs.append(make("figure", {}, [canvas, make("figcaption", { text: row.title || "input" })]));
      return canvas;
    });
  }

  /** On a layer that was just opened choose a map that is not dead, once its maps are here. */
  greet() {
    const block = this.block();
    if (this.fresh && block) { this.map = liveliest(block); this.fresh = false; }
  }

  // -- choosing: everything here is drawn from what is held; the kernel is asked only afterwards

  choose(change) {
    const before = this.layer, page = this.page, old = (this.block() || this.form).space;
    Object.assign(this, change);
    this.asked = null;
    const layers = this.rows[0].layers;
    this.layer = Math.max(0, Math.min(layers.length - 1, this.layer));
    this.page = Math.max(0, Math.min(this.rows[0].pages[this.layer][2] - 1, this.page));
    if (this.layer !== before) { this.slice = null; this.scroll.scrollTop = 0; this.fresh = this.map === 0; }
    else if ("map" in change) this.fresh = false;
    this.greet();
    const block = this.block();
    const [depth, rows, columns] = block ? block.space : this.form.space;
    this.map = Math.max(0, Math.min((block ? block.count : this.form.maps) - 1, this.map));
    if (this.layer !== before) {                    // the same place of the picture, on the new layer's grid
      this.pixel = [depth, rows, columns].map((count, axis) => Math.floor(((this.pixel[axis] + 0.5) * count) / old[axis]));
      this.row = 0;
    }
    const within = (value, count) => Math.max(0, Math.min(count - 1, value));
    this.pixel = [within(this.pixel[0], depth), within(this.pixel[1], rows), within(this.pixel[2], columns)];
    this.draw(false);
    this.reveal();
    this.askSoon();
    if ((this.layer !== before || this.page !== page) && !this.rows.every((row) => row.whole)) {
      this.model.set("asked", { layer: this.layer, page: this.page });
      this.model.save_changes();
    }
  }

  find(text) {
    const word = text.trim().toLowerCase();
    if (!word) return;
    if (/^\d+$/.test(word)) {
      const per = this.rows[0].pages[this.layer][1], map = Math.min(+word, this.form.maps - 1);
      this.choose({ page: Math.floor(map / per), map: map % per });
      return;
    }
    const layers = this.rows[0].layers, found = layers.findIndex((layer) => `${layer.path} ${layer.type}`.toLowerCase().includes(word));
    if (found >= 0 && found !== this.layer) this.choose({ layer: found, page: 0, map: 0 });
  }

  setZoom(factor) {
    this.zoom = Math.max(0.3, Math.min(8, this.zoom * factor));
    this.drawMaps();
    this.reveal();
  }

  stripKey(event) {
    const moves = { ArrowLeft: this.layer - 1, ArrowRight: this.layer + 1, ArrowUp: this.layer - 1, ArrowDown: this.layer + 1, Home: 0, End: this.rows[0].layers.length - 1 };
    if (event.key in moves) { event.preventDefault(); this.choose({ layer: moves[event.key], page: 0, map: 0 }); }
    else this.commonKey(event);
  }

  commonKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const does = {
      "/": () => this.search.focus(), "+": () => this.setZoom(1.5), "=": () => this.setZoom(1.5), "-": () => this.setZoom(1 / 1.5),
      "[": () => this.choose({ layer: this.layer - 1, page: 0, map: 0 }), "]": () => this.choose({ layer: this.layer + 1, page: 0, map: 0 }),
      PageUp: () => this.choose({ page: this.page - 1 }), PageDown: () => this.choose({ page: this.page + 1 }), Escape: () => { this.pinned = false; },
    }[event.key];
    if (does) { event.preventDefault(); does(); }
  }

  mapKey(event) {
    const shown = this.shown(), place = Math.max(0, shown.indexOf(this.map)), across = this.grid ? this.grid.across : 1;
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const line = this.form.form === "units" || this.form.form === "signal";
    if (step && (event.shiftKey || this.form.form === "units")) {
      this.pinned = true;
      this.choose({ pixel: [this.pixel[0], this.pixel[1] + (line ? 0 : step[0]), this.pixel[2] + step[1] + (line ? step[0] * 10 : 0)] });
    } else if (step) {
      const next = place + step[0] * across + step[1];
      if (next >= 0 && next < shown.length) { this.pinned = true; this.choose({ map: shown[next] }); }
    } else if (event.key === "Home" || event.key === "End") {
      if (this.form.form === "units") this.choose({ pixel: [0, 0, event.key === "Home" ? 0 : Infinity] });
      else if (shown.length) this.choose({ map: shown[event.key === "Home" ? 0 : shown.length - 1] });
    } else { this.commonKey(event); return; }
    event.preventDefault();
  }

  /** A pointer over the maps: it moves the choice, unless a click holds it. */
  point(event, click) {
    const found = this.hit(event);
    if (!found) return;
    if (click) {
      const same = this.pinned && found.map === this.map && found.pixel.join() === this.pixel.join();
      this.pinned = !same;
    } else if (this.pinned) return;
    if (!click && found.map === this.map && found.row === this.row && found.pixel.join() === this.pixel.join()) return;
    this.row = found.row;
    this.choose({ map: found.map, pixel: found.pixel, quiet: true });
  }

  hit(event) {
    const grid = this.grid;
    if (!grid) return null;
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    for (const part of grid.parts) {
      const across = Math.floor((x - grid.left) / grid.stepX), down = Math.floor((y - part.top) / grid.stepY), place = down * grid.across + across;
      if (x < grid.left || across >= grid.across || y < part.top || place >= grid.maps.length || y >= part.top + part.height) continue;
      const inX = (x - grid.left - across * grid.stepX) / grid.width, inY = (y - part.top - down * grid.stepY) / grid.height;
      if (inX >= 1 || inY >= 1 || inX < 0 || inY < 0) return null;
      const [, rows, columns] = grid.space;
      return { map: grid.maps[place], row: part.row, pixel: [this.slice ?? 0, grid.flat ? 0 : Math.floor(inY * rows), Math.floor(inX * columns)] };
    }
    return null;
  }

  /** Ask for the arithmetic behind the chosen pixel once the hand has come to rest. */
  askSoon() {
    clearTimeout(this.question);
    this.question = setTimeout(() => {
      const block = this.block(this.row);
      if (!block) return;
      const layer = this.layerOf(this.row), form = this.rows[this.row].layers[layer], at = this.pixel.map((n) => n * block.every);
      const place = at.slice(3 - Math.max(1, form.shape.length - 1));
      const index = form.form === "units" ? place : [...place, block.first + this.map];
      this.asked = { row: this.row, layer, index, frame: this.frame };
      this.model.set("selected", this.asked);
      this.model.save_changes();
      this.drawCard();                              // the answer may be here from before
    }, 120);
  }

  // -- drawing

  draw(all = true) {
    if (!this.data) return;
    const started = performance.now();
    this.syncSlice();
    this.drawMaps();
    if (all) this.drawStrip();
    else this.markStrip();
    this.drawInputs();
    this.drawCard();
    this.el.dataset.drawn = (performance.now() - started).toFixed(2);
  }

  syncSlice() {
    const block = this.block(), deep = this.form.form === "volume" && block && block.space[0] > 1;
    this.sliceLabel.hidden = !deep;
    this.differenceLabel.hidden = this.rows.length < 2;
    const pages = this.rows[0].pages[this.layer][2];
    this.pageBox.hidden = pages < 2;
    this.pageText.textContent = ` page ${this.page + 1} of ${pages} `;
    if (!deep) { this.slice = 0; return; }
    if (this.slice === null || this.slice >= block.space[0]) { this.slice = Math.floor(block.space[0] / 2); this.pixel[0] = this.slice; }
    this.sliceBox.max = block.space[0] - 1;
    this.sliceBox.value = this.slice;
  }

  drawTitle() {
    const form = this.form, block = this.block();
    const kind = `${form.type} ${form.shape.join(" × ")}`;
    if (!block) { this.title.textContent = `${form.path} · ${kind} · coming …`; return; }
    let dead = 0;
    if (form.form === "units") { for (const value of block.values) dead += block.low[0] + (value / 255) * (block.high[0] - block.low[0]) === 0; }
    else for (let map = 0; map < block.count; map++) dead += isDead(block, map);
    const things = form.form === "units" ? `${form.shape[0]} units, ${dead} at zero` : `${form.maps} map${form.maps === 1 ? "" : "s"}, ${dead} silent here${block.count < form.maps ? " of those shown" : ""}`;
    this.title.textContent = `${form.form === "units" ? "" : "maps of "}${form.path} · ${kind} · ${things}${block.every > 1 ? ` · every ${block.every}th pixel` : ""}`;
  }

  drawMaps() {
    if (!this.data) return;
    this.drawTitle();
    const block = this.block(), width = Math.max(120, this.scroll.clientWidth - 14);
    if (!block) { sized(this.canvas, width, 60).fillText("", 0, 0); this.grid = null; return; }
    if (this.form.form === "units") this.drawUnits(width);
    else this.drawGrid(block, width);
    this.describe();
  }

  /** The rows that can be shown for the layer: each with its block. */
  parts() {
    return this.rows.map((_, row) => ({ row, block: this.block(row) })).filter((part) => part.block);
  }

  /** The largest tiles with which all maps fit without scrolling, within bounds, times the zoom. */
  tileSize(block, width) {
    const [, rows, columns] = block.space, flat = this.form.form === "signal", ratio = flat ? 0.5 : rows / columns;
    const count = this.shown().length || 1, parts = this.parts().length + (this.difference && this.parts().length === 2 ? 1 : 0);
    const height = (Math.max(160, this.scroll.clientHeight - 10) - (parts > 1 ? 22 * parts : 0)) / parts;
    const [least, most] = flat ? [90, 280] : [28, 150];
    let across = 1;
    const side = () => Math.floor((width - 2) / across) - 4;
    while (side() > least && (side() > most || Math.ceil(count / across) * (side() * ratio + 4) > height)) across++;
    const w = Math.max(least, Math.min(width - 6, Math.round(Math.max(side(), least) * this.zoom)));
    return [w, Math.max(4, Math.round(w * ratio))];
  }

  drawGrid(block, width) {
    const maps = this.shown(), [w, h] = this.tileSize(block, width), gap = 4, left = 2, flat = this.form.form === "signal";
    const stepX = w + gap, stepY = h + gap, across = Math.max(1, Math.floor((width - left) / stepX)), down = Math.ceil(maps.length / across);
    const parts = this.parts(), titled = this.rows.length > 1 ? 16 : 0, both = parts.length === 2 && this.difference;
    let top = 2;
    for (const part of parts) { part.top = top + titled; part.height = down * stepY; top = part.top + part.height + 4; }
    const list = both ? [...parts, { row: "difference", top: top + titled, height: down * stepY }] : parts;
    const tall = Math.max(40, (both ? top + titled + down * stepY : top) + 2), dark = getComputedStyle(this.el).color;
    this.grid = { maps, across, left, stepX, stepY, width: w, height: h, parts, space: block.space, flat };
    const key = [this.frame, this.layer, this.page, this.slice, this.scale, this.palette, this.order, this.only, both, w, width, tall, dark].join();
    if (key !== this.sheetKey) this.drawSheet(sized(this.sheet, width, tall), { parts, list, both, titled, top });
    this.sheetKey = key;
    const context = sized(this.canvas, width, tall), place = maps.indexOf(this.map);
    context.drawImage(this.sheet, 0, 0, width, tall);
    for (const part of place < 0 ? [] : parts) {
      this.mark(context, part, left + (place % across) * stepX, part.top + Math.floor(place / across) * stepY, w, h, flat);
    }
  }

  /** All maps of the layer, without the marks of what is chosen: kept until something else than the choice changes. */
  drawSheet(context, { parts, list, both, titled, top }) {
    const { maps, across, left, stepX, stepY, width: w, height: h, flat } = this.grid;
    if (!maps.length) { this.ink(context); context.fillText(`no map is ${this.only}`, 8, 24); }
    const blocks = parts.map((part) => part.block), palette = this.palettes[this.palette], all = rangeOf(blocks, 0, "shared", this.palette);
    const most = both ? this.largestDifference(blocks) : 0;
    for (const part of list) {
      if (titled) { this.ink(context); context.fillText(part.row === "difference" ? "first minus second" : this.rows[part.row].title, left, part.top - 4); }
      maps.forEach((map, place) => {
        const x = left + (place % across) * stepX, y = part.top + Math.floor(place / across) * stepY;
        if (part.row === "difference") { blit(context, differenceImage(...blocks, map, this.slice, this.palettes.coolwarm, most), x, y, w, h); return; }
        const range = this.scale === "shared" ? all : rangeOf([part.block], map, "each", this.palette);
        if (flat) this.drawLine(context, part.block, map, range, x, y, w, h);
        else blit(context, mapImage(part.block, map, Math.min(this.slice, part.block.space[0] - 1), palette, range), x, y, w, h);
      });
    }
    if (titled && parts.length < 2) { this.ink(context); context.fillText(`the second model has no layer ${this.form.path}`, left, top + 8); }
  }

  ink(context) {
    context.font = "12px sans-serif";
    context.fillStyle = getComputedStyle(this.el).color;
  }

  largestDifference([one, other]) {
    let most = 0;
    for (let i = 0; i < one.values.length; i++) {
      const map = i % one.count;
      const d = one.low[map] - other.low[map] + (one.values[i] * (one.high[map] - one.low[map]) - other.values[i] * (other.high[map] - other.low[map])) / 255;
      if (Math.abs(d) > most) most = Math.abs(d);
    }
    return most;
  }

  mark(context, part, x, y, w, h, flat) {
    frameRect(context, x - 2, y - 2, w + 4, h + 4, "#e69500", 2);
    const [, rows, columns] = part.block.space, [, r, c] = this.pixel;
    const pw = w / columns, ph = flat ? h : h / rows;
    frameRect(context, x + c * pw - 1, y + (flat ? 0 : r * ph) - 1, Math.max(3, pw + 2), Math.max(3, ph + 2), "#e69500", 1.5);
  }

  drawLine(context, block, map, [low, high], x, y, w, h) {
    const columns = block.space[2], span = high - low || 1;
    context.fillStyle = "rgba(128,128,128,0.15)";
    context.fillRect(x, y, w, h);
    context.strokeStyle = getComputedStyle(this.el).color;
    context.lineWidth = 1;
    context.beginPath();
    for (let c = 0; c < columns; c++) {
      const value = valueAt(block, map, [0, 0, c]);
      context.lineTo(x + ((c + 0.5) * w) / columns, y + h - 2 - ((value - low) / span) * (h - 4));
    }
    context.stroke();
  }

  /** A layer of units as bars up and down from zero, the scores with their names. */
  drawUnits(width) {
    const parts = this.parts(), blocks = parts.map((part) => part.block), count = blocks[0].space[2], height = Math.max(90, Math.min(220, this.scroll.clientHeight / parts.length - 24));
    const titled = this.rows.length > 1 ? 16 : 0, total = parts.length * (height + titled + 24), wide = Math.max(width, 0) * Math.max(1, this.zoom);
    const context = sized(this.canvas, wide, total), bar = (wide - 4) / count;
    let [low, high] = rangeOf(blocks, 0, "shared", "");
    low = Math.min(0, low); high = Math.max(0, high);
    const span = high - low || 1, named = count <= 24 && this.data.classes.length === count && this.layer === this.rows[0].layers.length - 1;
    parts.forEach((part, place) => { part.top = place * (height + titled + 24) + titled; part.height = height; });
    this.grid = { maps: [0], across: 1, left: 2, stepX: wide, stepY: height, width: wide - 4, height, parts, space: blocks[0].space, flat: true };
    for (const part of parts) {
      if (titled) { this.ink(context); context.fillText(this.rows[part.row].title, 2, part.top - 4); }
      const zero = part.top + (high / span) * height;
      for (let c = 0; c < count; c++) {
        const y = part.top + ((high - valueAt(part.block, 0, [0, 0, c])) / span) * height;
        context.fillStyle = c === this.pixel[2] ? "#e69500" : "#5b8db8";
        context.fillRect(2 + c * bar, Math.min(y, zero), Math.max(bar - (bar > 3 ? 1 : 0), 0.5), Math.max(Math.abs(y - zero), 1));
        if (named || (count <= 24 && bar > 18)) { this.ink(context); context.fillText((named ? this.data.classes[c] : String(c)).slice(0, Math.max(1, Math.floor(bar / 7))), 4 + c * bar, part.top + height + 14); }
      }
      context.fillStyle = "rgba(128,128,128,0.8)";
      context.fillRect(2, zero, wide - 4, 1);
    }
  }

  drawStrip() {
    this.thumbs.forEach(({ canvas }, layer) => {
      const form = this.rows[0].layers[layer], [rows, columns] = form.thumb, values = this.rows[0].thumb(layer);
      const size = 44, context = sized(canvas, size, size), ratio = rows / columns;
      const w = ratio <= 1 ? size : size / ratio, h = rows === 1 ? 12 : ratio <= 1 ? size * ratio : size;
      if (values.every(Number.isFinite)) blit(context, numbersImage(values, rows, columns, this.palettes.gray), (size - w) / 2, (size - h) / 2, w, h);
      else { context.fillStyle = "#d0303b"; context.font = "12px sans-serif"; context.fillText("NaN", 10, 26); }
    });
    this.drawScores();
    this.markStrip();
  }

  /** Mark the chosen layer in the strip, and bring it into view. */
  markStrip() {
    const { item } = this.thumbs[this.layer], before = this.strip.querySelector("[aria-selected=true]");
    if (before === item) return;
    if (before) before.setAttribute("aria-selected", "false");
    item.setAttribute("aria-selected", "true");
    this.strip.setAttribute("aria-activedescendant", item.id);
    const box = item.offsetLeft - this.strip.offsetLeft, view = this.strip.scrollLeft, room = this.strip.clientWidth - this.answer.offsetWidth;
    if (box < view || box + item.offsetWidth > view + room) this.strip.scrollLeft = box - room / 2;
  }

  drawScores() {
    const most = this.rows.length > 1 ? 3 : 4;
    this.answer.replaceChildren(...this.rows.map((row) => {
      const order = [...row.scores.keys()].sort((a, b) => row.scores[b] - row.scores[a]).slice(0, most);
      return make("div", { class: "mbx-answer" }, [...(row.title ? [make("i", { text: row.title })] : []), ...order.map((place) => make("div", { class: place === this.data.target ? "mbx-score mbx-target" : "mbx-score" }, [
        make("span", { text: this.data.classes[place] ?? place }), make("meter", { min: "0", max: "1", value: Math.max(0, Math.min(1, row.scores[place])), "aria-hidden": "true" }),
        make("b", { text: Number.isFinite(row.scores[place]) ? row.scores[place].toFixed(3).replace("-", "−") : "NaN" })]))]);
    }));
  }

  drawInputs() {
    const card = this.currentCard();
    this.inputCanvases.forEach((canvas, place) => {
      const { input, cam } = this.rows[place], ratio = input.rows < 4 ? 0.35 : input.rows / input.columns;
      const room = this.rows.length > 1 ? 180 : 206, w = Math.min(206, room / ratio), h = Math.min(room, w * ratio);
      const context = sized(canvas, w, h);
      blit(context, pictureImage(input, this.palettes.gray), 0, 0, w, h, input.columns > w);
      if (cam) blit(context, pictureImage(cam, this.palettes.inferno, 0.75), 0, 0, w, h, true);
      canvas.nextElementSibling.textContent = (this.rows[place].title || "input") + this.noHeat(place);
      canvas.setAttribute("aria-label", `${this.rows[place].title || "input"}, ${input.rows} by ${input.columns} pixels${cam ? ", with Grad-CAM" : ""}`);
      const box = card && card.asked.row === place && card.field_box;
      if (box && box.length === 2) {
        const [[r0, r1], [c0, c1]] = box, y = h / input.rows, x = w / input.columns;
        frameRect(context, c0 * x, r0 * y, (c1 - c0) * x, (r1 - r0) * y, "#e69500", 2);
      }
    });
  }

  /** Why Grad-CAM shows nothing, where it is zero everywhere. */
  noHeat(place) {
    const { cam, scores } = this.rows[place];
    if (!cam || cam.values.some((value) => value > 0)) return "";
    const spoken = this.data.target >= 0 ? this.data.target : scores.indexOf(Math.max(...scores));
    return `: no part of this layer speaks for ${this.data.classes[spoken] ?? "this class"}`;
  }

  /** The card, when it is about what is chosen now. */
  currentCard() {
    const card = this.model.get("card"), asked = this.asked;
    return card && card.asked && asked && JSON.stringify(card.asked) === JSON.stringify(asked) && asked.layer === this.layerOf(this.row) ? card : null;
  }

  drawCard() {
    if (!this.data) return;
    const block = this.block(this.row), form = this.form;
    if (!block) { this.card.replaceChildren(make("p", { text: "These maps are on their way." })); return; }
    const card = this.currentCard(), map = form.form === "units" ? "" : `map ${block.first + this.map}, `;
    const heading = `${map}${positionText(form, this.pixel.map((n) => n * block.every))}`;
    const value = card && card.value !== undefined ? card.value : valueAt(block, Math.min(this.map, block.count - 1), this.pixel);
    const parts = [make("h3", { text: heading }), make("p", { class: "mbx-value" }, [make("b", { text: short(value) }),
      card && card.value !== undefined ? "" : ` ± ${short((block.high[this.map] - block.low[this.map]) / 510)}`])];
    if (card) parts.push(...this.cardParts(card));
    if (form.form !== "units" && form.form !== "signal") parts.splice(2, 0, this.largeMap(block, card));
    this.card.replaceChildren(...parts);
    if (card) this.drawInputs();
  }

  /** The chosen map, larger, with the pixel; beside it the layer's input with the patch. */
  largeMap(block, card) {
    const [, rows, columns] = block.space, canvas = make("canvas", { "aria-hidden": "true" }), size = 132, ratio = rows / columns;
    const w = ratio > 1 ? size / ratio : size, h = ratio > 1 ? size : size * ratio, context = sized(canvas, w, h);
    const range = rangeOf([block], this.scale === "each" ? this.map : 0, this.scale, this.palette);
    blit(context, mapImage(block, this.map, Math.min(this.slice ?? 0, block.space[0] - 1), this.palettes[this.palette], range), 0, 0, w, h);
    const [, r, c] = this.pixel;
    frameRect(context, (c * w) / columns - 1, (r * h) / rows - 1, Math.max(4, w / columns + 2), Math.max(4, h / rows + 2), "#e69500", 1.5);
    canvas.addEventListener("pointerdown", (event) => {
      const box = canvas.getBoundingClientRect();
      this.pinned = true;
      this.choose({ pixel: [this.pixel[0], Math.floor(((event.clientY - box.top) / box.height) * rows), Math.floor(((event.clientX - box.left) / box.width) * columns)] });
    });
    return make("div", { class: "mbx-large" }, [make("figure", {}, [canvas, make("figcaption", { text: "the map" })]), ...this.sourceFigure(card)]);
  }

  /** The mean of the maps that the layer looks at, or the input image, with the patch marked. */
  sourceFigure(card) {
    const box = card && card.patch_box;
    if (!box || box.length !== 2) return [];
    const layers = this.rows[this.row].layers, from = this.form.from, source = from >= 0 ? layers[from] : null, canvas = make("canvas", { "aria-hidden": "true" });
    const held = source && this.rows[this.row].held.get(`${from}:0`), size = 132;
    let image, rows, columns;
    if (held && held.every === 1 && held.count === source.maps && source.form === "image") {
      [, rows, columns] = held.space;
      const mean = new Float32Array(rows * columns);
      for (let map = 0; map < held.count; map++) {
        const step = (held.high[map] - held.low[map]) / 255;
        for (let i = 0; i < mean.length; i++) mean[i] += held.low[map] + held.values[i * held.count + map] * step;
      }
      image = numbersImage(mean, rows, columns, this.palettes.gray);
    } else if (!source && from === -1) {
      const { input } = this.rows[this.row];
      [rows, columns] = [input.rows, input.columns];
      image = pictureImage(input, this.palettes.gray);
    } else return [];
    const ratio = rows / columns, w = ratio > 1 ? size / ratio : size, h = ratio > 1 ? size : size * ratio, context = sized(canvas, w, h);
    blit(context, image, 0, 0, w, h);
    const [[r0, r1], [c0, c1]] = box;
    frameRect(context, (c0 * w) / columns, (r0 * h) / rows, ((c1 - c0) * w) / columns, ((r1 - r0) * h) / rows, "#2f9e8f", 2);
    return [make("figure", {}, [canvas, make("figcaption", { text: source ? `patch on ${source.path}` : "patch on the input" })])];
  }

  cardParts(card) {
    const parts = [];
    const tables = (card.tables || []).filter((table) => Array.isArray(table.values) && table.values.length);
    const signs = tables.length === 3 ? ["", "×", "="] : [];
    const row = make("div", { class: "mbx-tables" });
    const lines = tables.map(({ values }) => (Array.isArray(values[0]) ? values : [values]));
    const list = tables.length > 1 && lines.every((line) => line.length === 1 && line[0].length === lines[0][0].length) && lines[0][0].length > 7;
    if (list) row.append(this.listTable(tables, lines.map((line) => line[0])));
    else tables.forEach((table, place) => {
      if (signs[place]) row.append(make("span", { class: "mbx-sign", text: signs[place] }));
      row.append(this.table(table));
    });
    if (tables.length) parts.push(row);
    if (card.steps && card.steps.length) {
      parts.push(make("table", { class: "mbx-steps" }, card.steps.map(([name, value]) => make("tr", {}, [make("th", { scope: "row", text: name }), make("td", { text: short(value) })]))));
    }
    if (card.agrees === false) parts.push(make("p", { class: "mbx-note", text: `the layer itself gave ${short(card.value)}, the arithmetic ${short(card.total)}` }));
    if (card.note) parts.push(make("p", { class: "mbx-note", text: card.note }));
    return parts;
  }

  /** A cell coloured by its value's share of the largest of its table. */
  cell(value, most, digits) {
    const share = most ? value / most : 0, colour = share < 0 ? "47, 110, 180" : "210, 110, 40";
    const text = !Number.isFinite(value) ? "·" : Number.isInteger(value) && (most === 0 || most >= 10) ? String(value) : fixed(value, digits);
    return make("td", { style: `background: rgba(${colour}, ${(0.55 * Math.abs(share)).toFixed(2)})`, text: text.replace("-", "−"), title: short(value) });
  }

  /** A small table, coloured by its values; of a large one the first 11 rows and columns. */
  table({ name, values }) {
    const rows = (Array.isArray(values[0]) ? values : [values]).slice(0, 11), most = largest(rows.flat()), digits = decimals(most);
    const lines = rows.map((line) => make("tr", {}, line.slice(0, 11).map((value) => this.cell(value, most, digits))));
    return make("table", { class: "mbx-numbers" }, [make("caption", { text: name }), ...lines]);
  }

  /** Several long rows as the columns of one table. */
  listTable(tables, columns) {
    const most = columns.map((column) => (column.every(Number.isInteger) ? 0 : largest(column))), head = make("tr", {}, tables.map(({ name }) => make("th", { scope: "col", text: name })));
    const lines = columns[0].slice(0, 16).map((_, line) => make("tr", {}, columns.map((column, place) => this.cell(column[line], most[place], decimals(most[place])))));
    return make("table", { class: "mbx-numbers mbx-list" }, [head, ...lines]);
  }

  describe() {
    const form = this.form, block = this.block();
    if (!block) return;
    const value = valueAt(block, Math.min(this.map, block.count - 1), this.pixel), at = positionText(form, this.pixel.map((n) => n * block.every));
    const text = form.form === "units" ? `${form.path}, ${at} of ${form.shape[0]}: ${short(value)}`
      : `map ${block.first + this.map} of ${form.maps} of ${form.path}, values from ${short(block.low[this.map])} to ${short(block.high[this.map])}, ${at}: ${short(value)}`;
    this.scroll.setAttribute("aria-label", text);
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { if (this.el.contains(document.activeElement)) this.live.textContent = text; }, 400);
  }

  reveal() {
    const grid = this.grid, place = grid ? grid.maps.indexOf(this.map) : -1;
    if (place < 0 || !grid.parts.length) return;
    const y = grid.parts[0].top + Math.floor(place / grid.across) * grid.stepY, { scrollTop, clientHeight } = this.scroll;
    if (y < scrollTop) this.scroll.scrollTop = y - 6;
    else if (y + grid.height > scrollTop + clientHeight && grid.height < clientHeight) this.scroll.scrollTop = y + grid.height - clientHeight + 12;
  }

  drawMessage() {
    const text = this.model.get("message") || "";
    if (this.alert.textContent !== text) this.alert.textContent = text;
    this.alert.hidden = !text;
  }

  drawStatus() { this.status.textContent = this.model.get("status") || ""; }
}

export default {
  render({ model, el }) {
    const explorer = new Explorer(model, el);
    return () => explorer.remove();
  },
};
