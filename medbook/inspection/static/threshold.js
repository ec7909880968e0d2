// ThresholdExplorer in the browser. A plain ES module: no build step, no other file, no request.
// Python sends the distinct scores, rising, and how many ill and healthy cases score at least each of them. Every count at every
// threshold is then one look-up here: positive is whoever scores at least the threshold.

const REST = 150;               // milliseconds of rest before Python is told
const BINS = 40;
const SVG = "http://www.w3.org/2000/svg";

/** An array of numbers from the bytes that Python sent. */
function array(Type, view) {
    const size = Type.BYTES_PER_ELEMENT, whole = view.byteOffset % size === 0;
    const buffer = whole ? view.buffer : view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
    return new Type(buffer, whole ? view.byteOffset : 0, view.byteLength / size);
}

/** The first place in rising `scores` that holds at least `threshold`; their number where none does. */
export function firstAtLeast(scores, threshold) {
    let low = 0, high = scores.length;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (scores[middle] < threshold) low = middle + 1; else high = middle;
    }
    return low;
}

/** A threshold in the scores' own precision, so many binary digits; halves go to the even neighbour, as NumPy rounds. */
export function rounded(threshold, digits) {
    if (digits > 52 || threshold === 0) return threshold;
    const step = 2 ** Math.max(digits === 24 ? -149 : -24, Math.floor(Math.log2(Math.abs(threshold))) - digits + 1);
    const share = threshold / step, low = Math.floor(share), rest = share - low;
    return step * (rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low);
}

/** The four counts at a threshold. */
export function counts({ scores, ill, healthy, digits = 53 }, threshold) {
    const at = firstAtLeast(scores, rounded(threshold, digits));
    return { tp: ill[at], fp: healthy[at], fn: ill[0] - ill[at], tn: healthy[0] - healthy[at] };
}

const ratio = (part, whole) => whole > 0 ? part / whole : NaN;

/** The rates of four counts; PPV and NPV by Bayes' theorem where a prevalence is given. */
export function rates({ tp, fp, fn, tn }, prevalence = null) {
    const sensitivity = ratio(tp, tp + fn), specificity = ratio(tn, tn + fp);
    let ppv = ratio(tp, tp + fp), npv = ratio(tn, tn + fn);
    if (prevalence !== null) {
        const found = sensitivity * prevalence, alarms = (1 - specificity) * (1 - prevalence);
        const missed = (1 - sensitivity) * prevalence, cleared = specificity * (1 - prevalence);
        [ppv, npv] = [ratio(found, found + alarms), ratio(cleared, cleared + missed)];
    }
    return { sensitivity, specificity, ppv, npv, f1: ratio(2 * tp, 2 * tp + fp + fn) };
}

/** The share of each class in every bin of [0, 1]. */
function histogram({ scores, ill, healthy }) {
    const bars = { ill: new Float64Array(BINS), healthy: new Float64Array(BINS) };
    scores.forEach((score, place) => {
        const bin = Math.min(BINS - 1, Math.floor(score * BINS));
        bars.ill[bin] += (ill[place] - ill[place + 1]) / ill[0];
        bars.healthy[bin] += (healthy[place] - healthy[place + 1]) / healthy[0];
    });
    return bars;
}

function add(parent, tag, properties = {}, text = "") {
    const element = parent.appendChild(document.createElement(tag));
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
}

function draw(parent, tag, properties = {}, text = "") {
    const element = parent.appendChild(document.createElementNS(SVG, tag));
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
}

/** A number that can be read again as the same number, without a needless tail. */
const plain = value => String(Number(value.toPrecision(6)));
const share = value => Number.isNaN(value) ? "–" : value.toFixed(3);

/** A plot with axes from 0 to 1: its drawing area in the units of its viewBox. */
function plot(parent, { wide, tall, name, xName, yName, yTop = 1 }) {
    const box = { left: 50, top: 8, right: wide - 10, bottom: tall - 34 };
    const svg = draw(parent, "svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", class: `medbook-plot ${name}` });
    const x = value => box.left + value * (box.right - box.left), y = value => box.bottom - value / yTop * (box.bottom - box.top);
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
        draw(svg, "line", { x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom, class: "grid" });
        draw(svg, "text", { x: x(tick), y: box.bottom + 14, class: "tick middle" }, String(tick));
        draw(svg, "line", { x1: box.left, x2: box.right, y1: y(tick * yTop), y2: y(tick * yTop), class: "grid" });
        draw(svg, "text", { x: box.left - 5, y: y(tick * yTop) + 4, class: "tick end" }, String(Number((tick * yTop).toPrecision(3))));
    }
    draw(svg, "text", { x: (box.left + box.right) / 2, y: tall - 4, class: "axis middle" }, xName);
    const middle = (box.top + box.bottom) / 2;
    draw(svg, "text", { x: 11, y: middle, class: "axis middle", transform: `rotate(-90 11 ${middle})` }, yName);
    return { svg, x, y, box, wide, tall };
}

/** The least of 4, 8, 20, 40, 80 ... hundredths (or their tenths) that is not below a share, so that a quarter of it is a round number. */
function roundTop(share) {
    for (let power = 1e-4; ; power *= 10) for (const factor of [4, 8, 20]) if (factor * power >= share) return factor * power;
}

/** Where a pointer is, in the units of a plot's axes. */
function valueAt({ svg, box, wide, tall }, event) {
    const place = svg.getBoundingClientRect(), scale = Math.min(place.width / wide, place.height / tall);
    const x = (event.clientX - place.left - (place.width - scale * wide) / 2) / scale;
    const y = (event.clientY - place.top - (place.height - scale * tall) / 2) / scale;
    return [(x - box.left) / (box.right - box.left), (box.bottom - y) / (box.bottom - box.top)];
}

/** The ROC curve as a path; points nearer than a quarter of a unit to the last one drawn are left out of the drawing, not of the counts. */
function rocPath({ ill, healthy }, x, y) {
    let path = "", lastX = -9, lastY = -9;
    for (let place = ill.length - 1; place >= 0; place--) {
        const across = x(healthy[place] / healthy[0]), up = y(ill[place] / ill[0]);
        if (place && Math.abs(across - lastX) + Math.abs(up - lastY) < 0.25) continue;
        path += `${path ? "L" : "M"}${across.toFixed(2)} ${up.toFixed(2)}`;
        [lastX, lastY] = [across, up];
    }
    return path;
}

function render({ model, el }) {
    const facts = model.get("_facts"), [healthyName, illName] = facts.classes;
    const steps = { scores: array(Float64Array, model.get("_scores")), ill: array(Int32Array, model.get("_ill")),
                    healthy: array(Int32Array, model.get("_healthy")), digits: facts.digits };
    const state = { threshold: model.get("threshold"), prevalence: model.get("prevalence") };
    const cases = steps.ill[0] + steps.healthy[0], own = steps.ill[0] / cases;

    // ---- the parts of the page
    const root = add(el, "div", { class: "medbook-viewer medbook-threshold" });
    if (facts.title) add(root, "div", { class: "medbook-title" }, facts.title);
    const row = (name, low, high, step) => {
        const label = add(root, "label", { class: "medbook-slider wide" });
        add(label, "span", {}, name);
        return { slider: add(label, "input", { type: "range", min: low, max: high, step, "aria-label": name }), label };
    };
    const { slider, label: thresholdRow } = row("threshold", 0, 1, 0.001);
    const exact = add(thresholdRow, "input", { type: "number", step: "any", "aria-label": "threshold, exactly" });
    const { slider: prevalenceSlider, label: prevalenceRow } = row("prevalence", 0, 1000, 1);
    const prevalenceText = add(prevalenceRow, "output");
    const ownButton = add(root, "button", { type: "button", class: "medbook-own" }, `prevalence of these cases, ${(100 * own).toPrecision(3)} %`);

    const body = add(root, "div", { class: "medbook-body" });
    const bars = histogram(steps), highest = Math.max(...bars.ill, ...bars.healthy);
    const left = add(body, "div", { class: "medbook-half" });
    const scoresPlot = plot(left, { wide: 420, tall: 300, name: "medbook-histogram", xName: "score", yName: "share of its class", yTop: roundTop(highest) });
    for (const [name, values] of [["healthy", bars.healthy], ["ill", bars.ill]]) {
        values.forEach((value, bin) => value && draw(scoresPlot.svg, "rect", {
            x: scoresPlot.x(bin / BINS), y: scoresPlot.y(value), width: scoresPlot.x(1 / BINS) - scoresPlot.x(0) - 0.6,
            height: scoresPlot.box.bottom - scoresPlot.y(value), class: name,
        }));
    }
    const positive = draw(scoresPlot.svg, "rect", { y: scoresPlot.box.top, height: scoresPlot.box.bottom - scoresPlot.box.top, class: "positive" });
    const cut = draw(scoresPlot.svg, "line", { y1: scoresPlot.box.top, y2: scoresPlot.box.bottom, class: "cut" });
    const legend = add(left, "div", { class: "medbook-legend" });
    for (const [kind, name, number] of [["healthy", healthyName, steps.healthy[0]], ["ill", illName, steps.ill[0]]]) {
        add(legend, "span", { class: `medbook-swatch ${kind}` });
        add(legend, "span", {}, ` ${name} (${number})   `);
    }

    const right = add(body, "div", { class: "medbook-half roc" });
    const roc = plot(right, { wide: 310, tall: 300, name: "medbook-roc", xName: "1 − specificity", yName: "sensitivity" });
    draw(roc.svg, "line", { x1: roc.x(0), y1: roc.y(0), x2: roc.x(1), y2: roc.y(1), class: "chance" });
    draw(roc.svg, "path", { d: rocPath(steps, roc.x, roc.y), class: "curve" });
    const dot = draw(roc.svg, "circle", { r: 6, class: "point" });

    const foot = add(root, "div", { class: "medbook-body" });
    const table = add(foot, "table", { class: "medbook-confusion" });
    add(table, "caption", {}, "confusion matrix: score ≥ threshold is positive");
    const head = add(table, "tr");
    for (const name of ["", "called positive", "called negative"]) add(head, name ? "th" : "td", name ? { scope: "col" } : {}, name);
    const cells = {};
    for (const [name, pair] of [[illName, ["tp", "fn"]], [healthyName, ["fp", "tn"]]]) {
        const line = add(table, "tr");
        add(line, "th", { scope: "row" }, name);
        for (const count of pair) {
            const cell = add(line, "td", { class: count === "tp" || count === "tn" ? "right" : "wrong" });
            add(cell, "small", {}, `${count.toUpperCase()} `);
            cells[count] = add(cell, "b", { "data-count": count });
        }
    }
    const list = add(foot, "table", { class: "medbook-rates" });
    const rateCells = {}, ratePairs = {};
    for (const [key, name] of [["sensitivity", "sensitivity"], ["specificity", "specificity"], ["ppv", "PPV"], ["npv", "NPV"], ["f1", "F1"]]) {
        const line = add(list, "tr");
        add(line, "th", { scope: "row" }, name);
        rateCells[key] = add(line, "td", { "data-rate": key });
        ratePairs[key] = add(line, "td", { class: "how" });
    }
    const people = add(root, "p", { class: "medbook-readout", "aria-live": "polite" });

    let resting = 0, waiting = 0, typing = false, saving = false;

    // ---- showing
    const span = Math.log10(0.9 / 0.0001);              // the prevalence's slider: 0.01 % to 90 %, each step the same factor
    const prevalenceAt = at => Number((0.0001 * 10 ** (span * at / 1000)).toPrecision(3));
    const placeOf = value => 1000 * Math.log10(Math.max(0.0001, value) / 0.0001) / span;
    const percent = value => `${Number((100 * value).toPrecision(3))} %`;

    function show() {
        const { threshold, prevalence } = state, four = counts(steps, threshold), found = rates(four, prevalence), { tp, fp, fn, tn } = four;
        slider.value = threshold;
        slider.setAttribute("aria-valuetext", plain(threshold));
        if (!typing) exact.value = Number(plain(threshold)) === threshold ? plain(threshold) : threshold;
        const across = scoresPlot.x(Math.min(1, Math.max(0, threshold)));
        cut.setAttribute("x1", across);
        cut.setAttribute("x2", across);
        positive.setAttribute("x", across);
        positive.setAttribute("width", Math.max(0, scoresPlot.box.right - across));
        dot.setAttribute("cx", roc.x(1 - found.specificity));
        dot.setAttribute("cy", roc.y(found.sensitivity));
        for (const name of Object.keys(cells)) cells[name].textContent = four[name];
        for (const name of Object.keys(rateCells)) rateCells[name].textContent = share(found[name]);
        const how = prevalence === null ? { ppv: `${tp} / ${tp + fp}`, npv: `${tn} / ${tn + fn}` }
            : { ppv: `at ${percent(prevalence)}`, npv: `at ${percent(prevalence)}` };
        Object.assign(how, { sensitivity: `${tp} / ${tp + fn}`, specificity: `${tn} / ${tn + fp}`, f1: `${2 * tp} / ${2 * tp + fp + fn}` });
        for (const name of Object.keys(how)) ratePairs[name].textContent = how[name];
        const here = prevalence === null ? own : prevalence;
        prevalenceSlider.value = placeOf(here);
        prevalenceSlider.setAttribute("aria-valuetext", percent(here));
        prevalenceText.textContent = percent(here);
        ownButton.disabled = prevalence === null;
        tell(found, here);
        const words = `threshold ${plain(threshold)}`;
        scoresPlot.svg.setAttribute("aria-label", `scores of ${steps.healthy[0]} ${healthyName} and ${steps.ill[0]} ${illName}, ${words}: ${tp + fp} called positive`);
        roc.svg.setAttribute("aria-label", `ROC curve, ${words}: sensitivity ${share(found.sensitivity)}, specificity ${share(found.specificity)}`);
    }

    /** Rates as people: of so many, how many ill, how many found. */
    function tell({ sensitivity, specificity }, here) {
        const all = here < 0.01 ? 100000 : 1000, ill = Math.round(all * here);
        const found = Math.round(all * here * sensitivity), alarms = Math.round(all * (1 - here) * (1 - specificity));
        people.textContent = `Of ${all} people at ${percent(here)}: ${ill} ${illName}, ${found} of them called positive; `
            + `with them ${alarms} of ${all - ill} ${healthyName}.`;
    }

    // ---- changing
    function save() {
        [resting, saving] = [0, true];                  // what is set here is not heard as news from Python
        for (const name of ["threshold", "prevalence"]) model.set(name, state[name]);
        saving = false;
        model.save_changes();
    }

    function set(changes) {
        Object.assign(state, changes);
        if (resting) clearTimeout(resting);
        resting = setTimeout(save, REST);
        if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; show(); });
    }

    slider.addEventListener("input", () => set({ threshold: Number(slider.value) }));
    exact.addEventListener("input", () => { typing = true; });
    exact.addEventListener("change", () => {
        typing = false;
        const read = Number(exact.value);
        set({ threshold: exact.value !== "" && Number.isFinite(read) ? read : state.threshold });
    });
    prevalenceSlider.addEventListener("input", () => set({ prevalence: prevalenceAt(Number(prevalenceSlider.value)) }));
    ownButton.addEventListener("click", () => set({ prevalence: null }));

    const follow = (plotted, act) => {
        let held = false;
        plotted.svg.addEventListener("pointerdown", event => {
            held = true;
            plotted.svg.setPointerCapture(event.pointerId);
            event.preventDefault();
            act(valueAt(plotted, event));
        });
        plotted.svg.addEventListener("pointermove", event => held && act(valueAt(plotted, event)));
        for (const name of ["pointerup", "pointercancel"]) plotted.svg.addEventListener(name, () => { held = false; });
    };
    follow(scoresPlot, ([x]) => set({ threshold: Number(Math.min(1, Math.max(0, x)).toFixed(3)) }));
    follow(roc, ([x, y]) => {
        let best = 0, least = Infinity;
        steps.scores.forEach((_, place) => {
            const far = (steps.healthy[place] / steps.healthy[0] - x) ** 2 + (steps.ill[place] / steps.ill[0] - y) ** 2;
            if (far < least) [best, least] = [place, far];
        });
        set({ threshold: steps.scores[best] });
    });

    root.addEventListener("keydown", event => event.stopPropagation());      // the notebook's own keys stay out of the widget
    const heard = () => {
        if (resting || saving) return;
        Object.assign(state, { threshold: model.get("threshold"), prevalence: model.get("prevalence") });
        show();
    };
    for (const name of ["threshold", "prevalence"]) model.on(`change:${name}`, heard);
    show();
    return () => {
        if (waiting) cancelAnimationFrame(waiting);
        if (resting) { clearTimeout(resting); save(); }
        for (const name of ["threshold", "prevalence"]) model.off(`change:${name}`, heard);
    };
}

export default { render };
