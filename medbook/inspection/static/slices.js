// SliceViewer in the browser, behind what all widgets share (medbook/static/widget.js): no build step, no request.
// The volume comes once, as codes: value = low + scale * (code - 1), and code 0 where there is no value. What is seen of it, window,
// plane, slice, zoom, is worked out here; Python is told of it when the hand rests.

const HEIGHT = 420;             // of the picture, in CSS pixels
const NOTHING = [58, 48, 92];   // colour of pixels without a value

/** The volume's codes and the masks' bits, and what is still to come: a large volume follows in parts, for which `arrived` is called. */
function received(model, facts, arrived) {
    const voxels = facts.shape.reduce((product, size) => product * size, 1), size = voxels * (facts.bytes + (facts.masks.length ? 1 : 0));
    const data = new Uint8Array(size), sent = model.get("_data"), parts = new Set();
    const volume = {
        codes: facts.bytes === 1 ? new Uint8Array(data.buffer, 0, voxels) : new Uint16Array(data.buffer, 0, voxels),
        bits: facts.masks.length ? new Uint8Array(data.buffer, voxels * facts.bytes) : null, missing: size - sent.byteLength, stop: () => {},
    };
    data.set(new Uint8Array(sent.buffer, sent.byteOffset, sent.byteLength));
    if (!volume.missing) return volume;
    const part = (content, buffers) => {
        if (content?.start === undefined || parts.has(content.start)) return;
        parts.add(content.start);
        const { buffer, byteOffset, byteLength } = buffers[0];
        data.set(new Uint8Array(buffer, byteOffset, byteLength), content.start);
        volume.missing -= byteLength;
        arrived();
    };
    model.on("msg:custom", part);
    volume.stop = () => model.off("msg:custom", part);
    model.send("volume");
    return volume;
}

/** The level of grey, 0 to 255, of a value under a window. */
export function grey(value, centre, width) {
    return Math.floor(255 * Math.min(1, Math.max(0, (value - centre) / width + 0.5)) + 0.5);
}

/** For each code the pixel that it becomes, red, green, blue, alpha in one number as the canvas stores them. */
function pixelTable(facts, centre, width) {
    const table = new Uint32Array(facts.bytes === 1 ? 256 : 65536);
    const bytes = new Uint8Array(table.buffer);
    for (let code = 0; code < table.length; code++) {
        const level = grey(facts.low + facts.scale * (code - 1), centre, width);
        bytes.fill(level, 4 * code, 4 * code + 3);
        bytes[4 * code + 3] = 255;
    }
    bytes.set(NOTHING, 0);
    return table;
}

/** Where the pixels of a plane lie in the volume: the first one, and the steps down a row and across a column. */
export function layout(facts, plane, index) {
    const [, rows, columns] = facts.shape, slice = rows * columns;
    const steps = [slice, columns, 1];
    const [down, across] = [0, 1, 2].filter(axis => axis !== plane);
    const turned = plane !== 0 && facts.lastOnTop;
    const height = facts.shape[down], width = facts.shape[across];
    return {
        down, across, height, width, turned, start: steps[plane] * index + (turned ? steps[down] * (height - 1) : 0),
        stepDown: turned ? -steps[down] : steps[down], stepAcross: steps[across], mmDown: facts.spacing[down], mmAcross: facts.spacing[across],
    };
}

/** A number with as many decimals as its rounding step deserves. */
function told(value, step) {
    const decimals = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step))));
    return step < 1e-6 || Math.abs(value) >= 1e7 ? value.toPrecision(5) : value.toFixed(decimals).replace("-", "−");
}

function short(value) {
    return String(Number(value.toPrecision(4))).replace("-", "−");
}

function add(parent, tag, properties = {}, text = "") {
    const element = parent.appendChild(document.createElement(tag));
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
}

function render({ model, el }) {
    const facts = model.get("_facts");
    const volume = received(model, facts, () => draw()), { codes, bits } = volume;
    const state = {
        plane: model.get("plane"), place: [...model.get("place")], centre: model.get("centre"), width: model.get("width"),
        opacity: model.get("opacity"), zoom: 1, x: 0, y: 0, seen: facts.masks.map(() => true), pointer: null,
    };
    const windows = Object.entries(facts.windows);
    const unit = facts.units ? ` ${facts.units}` : "";

    // ---- the parts of the page
    const root = add(el, "div", { class: "medbook-widget medbook-slices" });
    if (facts.title) add(root, "div", { class: "medbook-title" }, facts.title);
    const body = add(root, "div", { class: "medbook-body" });
    const main = add(body, "div", { class: "medbook-main" });
    const canvas = add(main, "canvas", { tabindex: "0", role: "img", class: "medbook-canvas" });
    const line = add(main, "div", { class: "medbook-readout" });
    const side = add(body, "div", { class: "medbook-side" });

    const group = (name) => {
        const box = add(side, "div", { class: "medbook-group", role: "group", "aria-label": name });
        add(box, "div", { class: "medbook-label" }, name);
        return box;
    };
    const button = (box, text, hint, act) => {
        const one = add(box, "button", { type: "button", title: hint }, text);
        one.addEventListener("click", act);
        return one;
    };
    const slider = (box, name, low, high, step, act) => {
        const label = add(box, "label", { class: "medbook-slider" });
        add(label, "span", {}, name);
        const input = add(label, "input", { type: "range", min: low, max: high, step, "aria-label": name });
        const value = add(label, "output");
        input.addEventListener("input", () => act(Number(input.value)));
        return { input, value };
    };

    const planeBox = group("plane");
    const planeRow = add(planeBox, "div", { class: "medbook-row" });
    const planeButtons = facts.planes.map((name, plane) => {
        const one = button(planeRow, name, `show the ${name} plane (key ${name[0]})`, () => set({ plane }));
        one.disabled = facts.shape.filter((_, axis) => axis !== plane).some(size => size < 2) && plane !== 0;
        return one;
    });
    const sliceSlider = slider(planeBox, "slice", 0, 1, 1, at => turnTo(at));

    const windowBox = group(`window${unit ? ` in${unit}` : ""}`);
    const windowRow = add(windowBox, "div", { class: "medbook-row" });
    const windowButtons = windows.map(([name, [centre, width]], number) => button(
        windowRow, name, `centre ${short(centre)}, width ${short(width)}${number < 9 ? ` (key ${number + 1})` : ""}`, () => set({ centre, width })));
    const span = Math.max(facts.high - facts.low, ...windows.map(([, [, width]]) => width));
    const centres = windows.map(([, [centre]]) => centre);
    const centreSlider = slider(windowBox, "centre", Math.min(facts.low, ...centres), Math.max(facts.high, ...centres), "any", centre => set({ centre }));
    const widthSlider = slider(windowBox, "width", 0, 1000, 1, at => set({ width: widthAt(at) }));
    const widthAt = at => span * 10 ** (3 * (at / 1000 - 1));
    const placeOfWidth = width => 1000 * (1 + Math.log10(width / span) / 3);

    const maskBoxes = [];
    let opacitySlider = null;
    if (bits) {
        const maskBox = group("masks");
        const list = add(maskBox, "div", { class: "medbook-row" });
        facts.masks.forEach((name, number) => {
            const label = add(list, "label", { class: "medbook-check" });
            const box = add(label, "input", { type: "checkbox" });
            box.checked = true;
            add(label, "span", { class: "medbook-swatch", style: `background: rgb(${facts.colours[number].join(",")})` });
            add(label, "span", {}, name);
            box.addEventListener("change", () => { state.seen[number] = box.checked; draw(); });
            maskBoxes.push(box);
        });
        opacitySlider = slider(maskBox, "opacity", 0, 1, 0.01, opacity => set({ opacity }));
    }

    const zoomBox = group("zoom");
    const zoomRow = add(zoomBox, "div", { class: "medbook-row" });
    button(zoomRow, "−", "smaller (key −)", () => zoomBy(1 / 1.25)).setAttribute("aria-label", "zoom out");
    const zoomText = add(zoomRow, "output", { class: "medbook-zoom" });
    button(zoomRow, "+", "larger (key +)", () => zoomBy(1.25)).setAttribute("aria-label", "zoom in");
    button(zoomRow, "reset", "whole picture, first window (key 0)", reset);
    for (const note of facts.notes) add(side, "div", { class: "medbook-note" }, note);
    add(side, "div", { class: "medbook-help" },
        "Wheel or arrow keys: slice · drag: window · Shift and drag: move · Ctrl and wheel: zoom · double click: reset");

    // ---- drawing
    const sheet = document.createElement("canvas");     // the plane, a pixel a voxel
    let table = null, tableOf = "", waiting = 0;

    function paint() {
        const at = layout(facts, state.plane, state.place[state.plane]);
        const key = `${state.centre} ${state.width}`;
        if (tableOf !== key) [table, tableOf] = [pixelTable(facts, state.centre, state.width), key];
        if (sheet.width !== at.width || sheet.height !== at.height) [sheet.width, sheet.height] = [at.width, at.height];
        const context = sheet.getContext("2d"), image = context.createImageData(at.width, at.height);
        const pixels = new Uint32Array(image.data.buffer);
        for (let row = 0, to = 0; row < at.height; row++) {
            let from = at.start + row * at.stepDown;
            for (let column = 0; column < at.width; column++, from += at.stepAcross) pixels[to++] = table[codes[from]];
        }
        if (bits) colour(image.data, at);
        context.putImageData(image, 0, 0);
        return at;
    }

    function colour(data, at) {
        const seen = state.seen.reduce((sum, yes, number) => sum | (yes ? 1 << number : 0), 0);
        const mixes = mixtures(seen, facts.colours);
        for (let row = 0, to = 0; row < at.height; row++) {
            let from = at.start + row * at.stepDown;
            for (let column = 0; column < at.width; column++, from += at.stepAcross, to += 4) {
                const here = bits[from] & seen;
                if (here) for (let c = 0; c < 3; c++) data[to + c] = Math.floor(mixes[3 * here + c] * state.opacity + data[to + c] * (1 - state.opacity) + 0.5);
            }
        }
    }

    /** Where the plane lies on the canvas, in canvas pixels: a voxel's height and width, and the left upper corner. */
    function frame(at) {
        const tall = at.height * at.mmDown, wide = at.width * at.mmAcross;
        const scale = Math.min(canvas.height / tall, canvas.width / wide) * state.zoom;
        return {
            down: scale * at.mmDown, across: scale * at.mmAcross,
            left: (canvas.width - scale * wide) / 2 + state.x * canvas.width, top: (canvas.height - scale * tall) / 2 + state.y * canvas.height,
        };
    }

    function draw() {
        if (!waiting) waiting = requestAnimationFrame(drawNow);
    }

    function drawNow() {
        waiting = 0;
        const ratio = window.devicePixelRatio || 1, wide = Math.max(1, Math.round(canvas.clientWidth * ratio));
        const tall = Math.max(1, Math.round((canvas.clientHeight || HEIGHT) * ratio));
        if (canvas.width !== wide || canvas.height !== tall) [canvas.width, canvas.height] = [wide, tall];
        const at = paint(), where = frame(at), context = canvas.getContext("2d");
        context.fillStyle = "black";
        context.fillRect(0, 0, canvas.width, canvas.height);
        context.imageSmoothingEnabled = Math.min(where.down, where.across) < 1;
        context.drawImage(sheet, where.left, where.top, at.width * where.across, at.height * where.down);
        tell(at);
    }

    function tell(at) {
        const slices = facts.shape[state.plane], slice = state.place[state.plane];
        planeButtons.forEach((one, plane) => one.setAttribute("aria-pressed", plane === state.plane));
        sliceSlider.input.max = slices - 1;
        sliceSlider.input.value = slice;
        sliceSlider.input.disabled = slices < 2;
        sliceSlider.input.setAttribute("aria-valuetext", `${slice + 1} of ${slices}`);
        sliceSlider.value.textContent = `${slice + 1} / ${slices}`;
        let named = "window ";
        windowButtons.forEach((one, number) => {
            const [name, [centre, width]] = windows[number];
            const same = Math.abs(centre - state.centre) <= 1e-6 * width && Math.abs(width - state.width) <= 1e-6 * width;
            one.setAttribute("aria-pressed", same);
            if (same && named === "window ") named = `window ${name}, `;
        });
        centreSlider.input.value = state.centre;
        centreSlider.value.textContent = short(state.centre);
        widthSlider.input.value = placeOfWidth(state.width);
        widthSlider.input.setAttribute("aria-valuetext", short(state.width));
        widthSlider.value.textContent = short(state.width);
        if (opacitySlider) {
            opacitySlider.input.value = state.opacity;
            opacitySlider.value.textContent = `${Math.round(100 * state.opacity)} %`;
        }
        zoomText.textContent = `${Math.round(100 * state.zoom)} %`;
        const title = facts.title ? `${facts.title}, ` : "";
        canvas.setAttribute("aria-label", `${title}${facts.planes[state.plane]} slice ${slice + 1} of ${slices}, ${named}`
            + `centre ${short(state.centre)}${unit}, width ${short(state.width)}${unit}`);
        read(at);
    }

    /** The voxel under the pointer, [slice, row, column], or null. */
    function voxel(at) {
        if (!state.pointer) return null;
        const where = frame(at), box = canvas.getBoundingClientRect();
        const x = (state.pointer[0] - box.left) * canvas.width / box.width, y = (state.pointer[1] - box.top) * canvas.height / box.height;
        const column = Math.floor((x - where.left) / where.across), row = Math.floor((y - where.top) / where.down);
        if (row < 0 || row >= at.height || column < 0 || column >= at.width) return null;
        const found = [...state.place];
        found[at.down] = at.turned ? at.height - 1 - row : row;
        found[at.across] = column;
        return found;
    }

    function read(at) {
        const found = voxel(at);
        if (volume.missing) {
            line.textContent = `the volume is coming, ${(volume.missing / 1e6).toFixed(0)} MB to go`;
            return;
        }
        if (!found) {
            line.textContent = "point at the picture to read a value";
            return;
        }
        const [, rows, columns] = facts.shape, code = codes[(found[0] * rows + found[1]) * columns + found[2]];
        const rounded = facts.error > 0 ? ` (± ${facts.error.toPrecision(1)})` : "";
        const value = code ? `${told(facts.low + facts.scale * (code - 1), facts.scale)}${unit}${rounded}` : "no value";
        const mm = found.map((index, axis) => (index * facts.spacing[axis]).toFixed(1)).join(", ");
        const covering = bits ? facts.masks.filter((_, number) => bits[(found[0] * rows + found[1]) * columns + found[2]] >> number & 1) : [];
        line.textContent = `${value} · slice ${found[0]}, row ${found[1]}, column ${found[2]}${facts.known ? ` · ${mm} mm` : ""}`
            + (covering.length ? ` · ${covering.join(", ")}` : "");
    }

    // ---- changing
    const names = ["plane", "place", "centre", "width", "opacity"];
    const copy = value => Array.isArray(value) ? [...value] : value;
    const step = inStep({
        model, names, value: name => copy(state[name]),
        heard() {
            for (const name of names) state[name] = copy(model.get(name));
            draw();
        },
    });

    function set(changes) {
        Object.assign(state, changes);
        step.changed();
        draw();
    }

    /** Show the slice `index` of the present plane, or the nearest; whether that is another one. */
    function turnTo(index) {
        const at = Math.min(facts.shape[state.plane] - 1, Math.max(0, Math.round(index)));
        if (at === state.place[state.plane]) return false;
        const place = [...state.place];
        place[state.plane] = at;
        set({ place });
        return true;
    }

    function zoomBy(factor) {
        const zoom = Math.min(32, Math.max(1, state.zoom * factor)), by = zoom / state.zoom;
        Object.assign(state, { zoom, x: zoom === 1 ? 0 : state.x * by, y: zoom === 1 ? 0 : state.y * by });
        draw();
    }

    function reset() {
        const [centre, width] = windows[0][1];
        set({ zoom: 1, x: 0, y: 0, centre, width });
    }

    // ---- wheel, pointer, keys
    let scrolled = 0;
    canvas.addEventListener("wheel", event => {
        if (event.ctrlKey) {
            event.preventDefault();
            zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15);
            return;
        }
        scrolled += event.deltaMode === 0 ? event.deltaY / 100 : event.deltaY;
        const steps = Math.trunc(scrolled);
        const inside = state.place[state.plane] + Math.sign(event.deltaY);
        if (inside >= 0 && inside < facts.shape[state.plane]) event.preventDefault();     // at the ends the page scrolls on
        if (!steps) return;
        scrolled = 0;
        turnTo(state.place[state.plane] + Math.sign(steps) * Math.min(3, Math.abs(steps)));
    }, { passive: false });

    let drag = null;
    canvas.addEventListener("pointerdown", event => {
        if (event.button > 1) return;
        drag = { x: event.clientX, y: event.clientY, centre: state.centre, width: state.width, panX: state.x, panY: state.y,
                 move: event.shiftKey || event.button === 1 };
        canvas.setPointerCapture(event.pointerId);
        canvas.focus({ preventScroll: true });
        event.preventDefault();
    });
    canvas.addEventListener("pointermove", event => {
        state.pointer = [event.clientX, event.clientY];
        if (!drag) {
            read(layout(facts, state.plane, state.place[state.plane]));
            return;
        }
        const right = (event.clientX - drag.x) / canvas.clientWidth, down = (event.clientY - drag.y) / canvas.clientHeight;
        if (drag.move) {
            Object.assign(state, { x: drag.panX + right, y: drag.panY + down });
            draw();
        } else if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 3 || drag.begun) {
            drag.begun = true;                          // right: wider, down: darker
            set({ width: Math.max(span / 1000, drag.width * 8 ** right), centre: drag.centre + drag.width * down });
        }
    });
    const release = () => { drag = null; };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => { state.pointer = null; read(layout(facts, state.plane, state.place[state.plane])); });
    canvas.addEventListener("dblclick", reset);

    const here = () => state.place[state.plane];
    const keys = {
        ArrowUp: () => turnTo(here() - 1), ArrowLeft: () => turnTo(here() - 1), ArrowDown: () => turnTo(here() + 1),
        ArrowRight: () => turnTo(here() + 1), PageUp: () => turnTo(here() - 10), PageDown: () => turnTo(here() + 10), Home: () => turnTo(0),
        End: () => turnTo(Infinity), "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(1 / 1.25), 0: reset,
        m: () => maskBoxes.forEach(box => { box.checked = !box.checked; box.dispatchEvent(new Event("change")); }),
    };
    windows.slice(0, 9).forEach((_, number) => { keys[number + 1] = () => windowButtons[number].click(); });
    facts.planes.forEach((name, plane) => { keys[name.startsWith("across") ? "xyz"[plane] : name[0]] = () => planeButtons[plane].click(); });
    canvas.addEventListener("keydown", event => {
        if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
        event.preventDefault();
        keys[event.key]();
    });
    const letKeys = keepKeys(root);

    // ---- the page's size
    const watcher = new ResizeObserver(draw);
    watcher.observe(canvas);
    draw();

    return () => {
        watcher.disconnect();
        volume.stop();
        if (waiting) cancelAnimationFrame(waiting);
        step.stop();
        letKeys();
    };
}

/** For each set of masks, a byte of bits, the colour of the last of those that are seen: three numbers each. */
function mixtures(seen, colours) {
    const mixes = new Float32Array(3 * 256);
    for (let set = 1; set < 256; set++) {
        const top = colours.findLast((_, number) => set & seen & 1 << number) || [0, 0, 0];
        for (let c = 0; c < 3; c++) mixes[3 * set + c] = top[c];
    }
    return mixes;
}

export default { render };
