// CurveExplorer in the browser. A plain ES module: no build step, no other file, no request.
// Python sends the distinct scores, rising, with the number of ill and healthy cases at each. All else is computed here, so that the
// kernel is asked nothing while a slider moves. First the mathematics, pure functions without a page; then the page.

// ---------------------------------------------------------------- the mathematics

const ratioOf = (part, whole) => whole > 0 ? part / whole : NaN;
const oddsOf = share => share / (1 - share);

/** What the page needs of the steps, once: cumulative counts (of those that score at least each step), totals, which steps to draw. */
export function prepare({ scores, ill, healthy, trainedOn = null, edges, digits = 53 }) {
    const size = scores.length, found = new Float64Array(size + 1), alarms = new Float64Array(size + 1);
    for (let place = size - 1; place >= 0; place--) {
        found[place] = found[place + 1] + ill[place];
        alarms[place] = alarms[place + 1] + healthy[place];
    }
    const positives = found[0], negatives = alarms[0], own = positives / (positives + negatives);
    const steps = { scores, ill, healthy, found, alarms, positives, negatives, own, trained: trainedOn ?? own, edges, digits };
    return { ...steps, drawn: thinned(steps), area: areaUnder(steps) };
}

/** Steps enough to draw a curve by, going down: those that move the ROC curve visibly, or change one of its counts by a few percent. */
function thinned({ found, alarms, positives, negatives, scores }) {
    const kept = [];
    let lastFound = 0, lastAlarms = 0;
    for (let place = scores.length - 1; place >= 0; place--) {
        const up = found[place] - lastFound, across = alarms[place] - lastAlarms;
        const seen = up / positives + across / negatives > 0.003 || up > 0.04 * lastFound || across > 0.04 * lastAlarms;
        if (!seen && place) continue;
        kept.push(place);
        [lastFound, lastAlarms] = [found[place], alarms[place]];
    }
    return kept;
}

/** Area under the ROC curve: the share of pairs in which the ill case scores higher, ties counting half. */
function areaUnder({ ill, healthy, found, positives, negatives }) {
    let sum = 0;
    for (let place = 0; place < ill.length; place++) sum += healthy[place] * (found[place + 1] + ill[place] / 2);
    return sum / (positives * negatives);
}

/** The share of ill cases that the scores shown are made for: that of the training, or the prevalence where they are corrected for it. */
export function priorOf({ trained, own }, { prevalence, ratio, corrected }) {
    if (corrected) return prevalence ?? own;
    return ratio === null ? trained : 1 / (1 + ratio);
}

/** Scores carried from the share of ill cases in training to another, by Bayes' theorem. */
export function shifted({ scores, trained }, prior) {
    if (prior === trained) return scores;
    const ill = prior / trained, healthy = (1 - prior) / (1 - trained);
    return scores.map(score => score * ill / ((1 - score) * healthy + score * ill));
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

/** Positive and negative predictive value by Bayes' theorem. */
export function bayes(sensitivity, specificity, share) {
    const right = sensitivity * share, wrong = (1 - specificity) * (1 - share);
    const cleared = specificity * (1 - share), missed = (1 - sensitivity) * share;
    return { ppv: ratioOf(right, right + wrong), npv: ratioOf(cleared, cleared + missed) };
}

/** Average precision at a prevalence. */
export function averagePrecision({ ill, found, alarms, positives, negatives }, share) {
    let sum = 0;
    for (let place = ill.length - 1; place >= 0; place--) {
        const right = share * found[place] / positives;
        if (ill[place]) sum += ill[place] / positives * right / (right + (1 - share) * alarms[place] / negatives);
    }
    return sum;
}

/** Bins of the shown scores at a prevalence: mean score, share that is ill and weight of each; the mean score; the calibration error. */
export function reliability({ ill, healthy, positives, negatives, edges }, scores, share) {
    const bins = edges.length - 1, weight = new Float64Array(bins), stated = new Float64Array(bins), came = new Float64Array(bins);
    for (let place = 0, bin = 0; place < scores.length; place++) {
        while (bin < bins - 1 && scores[place] > edges[bin + 1]) bin++;
        const sick = ill[place] / positives * share, well = healthy[place] / negatives * (1 - share);
        weight[bin] += sick + well;
        stated[bin] += (sick + well) * scores[place];
        came[bin] += sick;
    }
    let mean = 0, ece = 0;
    for (let bin = 0; bin < bins; bin++) {
        mean += stated[bin];
        ece += Math.abs(came[bin] - stated[bin]);
    }
    return { weight, predicted: stated.map((sum, bin) => sum / weight[bin]), observed: came.map((sum, bin) => sum / weight[bin]), mean, ece };
}

/** Everything at one setting of the sliders. `scores` are the shifted ones. */
export function point(steps, scores, { threshold, prevalence }) {
    const share = prevalence ?? steps.own, cut = scores === steps.scores ? rounded(threshold, steps.digits) : threshold;
    const at = firstAtLeast(scores, cut);
    const tp = steps.found[at], fp = steps.alarms[at], fn = steps.positives - tp, tn = steps.negatives - fp;
    const sensitivity = tp / steps.positives, specificity = tn / steps.negatives;
    const right = sensitivity * share, wrong = (1 - specificity) * (1 - share), exchange = oddsOf(cut);
    return {
        tp, fp, fn, tn, sensitivity, specificity, ...bayes(sensitivity, specificity, share), f1: ratioOf(2 * right, right + wrong + share),
        net_benefit: cut < 1 ? right - wrong * exchange : NaN, treat_all: cut < 1 ? share - (1 - share) * exchange : NaN,
    };
}

/** Net benefit over the prevalence, for thresholds. */
export function benefits(steps, scores, share, thresholds) {
    return thresholds.map(threshold => point(steps, scores, { threshold, prevalence: share }).net_benefit / share);
}

/** The share of each class in each of `bins` bins of the scores, from `low` to `high`. */
export function histogram({ ill, healthy, positives, negatives }, scores, bins, low = 0, high = 1) {
    const bars = { ill: new Float64Array(bins), healthy: new Float64Array(bins) };
    for (let place = 0; place < scores.length; place++) {
        const bin = Math.min(bins - 1, Math.floor((scores[place] - low) / (high - low) * bins));
        bars.ill[bin] += ill[place] / positives;
        bars.healthy[bin] += healthy[place] / negatives;
    }
    return bars;
}

// ---------------------------------------------------------------- the page

const BINS = 40, REACH = 6.9;                    // bars; the sliders' ends, 0.1 % and 99.9 %
const SVG = "http://www.w3.org/2000/svg";
const GRID = Array.from({ length: 99 }, (_, place) => (place + 1) / 100);
const BOX = { wide: 320, tall: 212, left: 44, top: 24, right: 312, bottom: 178 };

/** An array of numbers from the bytes that Python sent. */
function array(Type, view) {
    const size = Type.BYTES_PER_ELEMENT, whole = view.byteOffset % size === 0;
    const buffer = whole ? view.buffer : view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
    return new Type(buffer, whole ? view.byteOffset : 0, view.byteLength / size);
}

function make(space, parent, tag, properties, text) {
    const element = parent.appendChild(space ? document.createElementNS(space, tag) : document.createElement(tag));
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
}
const add = (parent, tag, properties = {}, text = "") => make(null, parent, tag, properties, text);
const draw = (parent, tag, properties = {}, text = "") => make(SVG, parent, tag, properties, text);
const set = (element, properties) => { for (const name in properties) element.setAttribute(name, properties[name]); };

const signed = text => text.replace("-", "−");
const three = value => Number.isNaN(value) ? "–" : signed(value.toFixed(3));
/** Three digits behind the point, but two that count where there would be none, and one behind the point from 10 on. */
const fine = value => {
    const size = Math.abs(value);
    return size >= 10 ? signed(value.toFixed(1)) : size > 0 && size < 0.01 ? signed(String(Number(value.toPrecision(2)))) : three(value);
};
const few = value => String(Number(value.toPrecision(3)));
const percent = value => `${Number((100 * value).toPrecision(value > 0.99 ? 4 : 3))} %`;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const logit = share => Math.log(share / (1 - share));
const shareAt = place => {
    const share = 1 / (1 + Math.exp(-place));
    return share <= 0.5 ? Number(share.toPrecision(3)) : Number((1 - Number((1 - share).toPrecision(3))).toFixed(6));
};
const ratioAt = place => Number(Math.exp(-place).toPrecision(3));
const ratioText = ratio => ratio >= 1 ? `1 ill : ${few(ratio)} healthy` : `${few(1 / ratio)} ill : 1 healthy`;

/** Points as a path; those without a number are left out. */
function line(points, x, y) {
    let path = "", pen = "M";
    for (const [across, up] of points) {
        if (Number.isNaN(up)) { pen = "M"; continue; }
        path += `${pen}${x(across).toFixed(1)} ${y(up).toFixed(1)}`;
        pen = "L";
    }
    return path;
}

/** Bars as one path, from one end of the x axis to the other. */
function bars(values, highest, { x, y, xRange: [low, high] }) {
    const edge = bin => x(low + (high - low) * bin / values.length).toFixed(1);
    let path = `M${x(low)} ${y(0)}`;
    values.forEach((value, bin) => {
        const top = y(value / highest).toFixed(1);
        path += `L${edge(bin)} ${top}L${edge(bin + 1)} ${top}`;
    });
    return `${path}L${x(high)} ${y(0)}Z`;
}

/** One small multiple: axes and a title. xTicks and yTicks are [place from low to high, text]. */
function panel(parent, { name, title, xName, yName, xTicks, yTicks, xRange = [0, 1], yRange = [0, 1] }) {
    const figure = add(parent, "figure", { class: `mbc-panel mbc-${name}` });
    const svg = draw(figure, "svg", { viewBox: `0 0 ${BOX.wide} ${BOX.tall}`, role: "img" });
    const x = value => BOX.left + (value - xRange[0]) / (xRange[1] - xRange[0]) * (BOX.right - BOX.left);
    const y = value => BOX.bottom - (value - yRange[0]) / (yRange[1] - yRange[0]) * (BOX.bottom - BOX.top);
    const head = draw(svg, "text", { x: BOX.left, y: 14, class: "title" }, title), extra = draw(svg, "text", { x: BOX.right, y: 14, class: "end value" });
    for (const [at, text] of xTicks) {
        draw(svg, "line", { x1: x(at), x2: x(at), y1: BOX.top, y2: BOX.bottom, class: "grid" });
        draw(svg, "text", { x: x(at), y: BOX.bottom + 13, class: "tick middle" }, text);
    }
    for (const [at, text] of yTicks) {
        draw(svg, "line", { x1: BOX.left, x2: BOX.right, y1: y(at), y2: y(at), class: "grid" });
        draw(svg, "text", { x: BOX.left - 4, y: y(at) + 3.5, class: "tick end" }, text);
    }
    draw(svg, "text", { x: (BOX.left + BOX.right) / 2, y: BOX.tall - 6, class: "axis middle" }, xName);
    draw(svg, "text", { x: 9, y: (BOX.top + BOX.bottom) / 2, class: "axis middle", transform: `rotate(-90 9 ${(BOX.top + BOX.bottom) / 2})` }, yName);
    const clip = `mbc-clip-${Math.random().toString(36).slice(2)}`;
    const box = { x: BOX.left, y: BOX.top, width: BOX.right - BOX.left, height: BOX.bottom - BOX.top };
    draw(draw(svg, "clipPath", { id: clip }), "rect", box);
    const inner = draw(svg, "g", { "clip-path": `url(#${clip})` });
    return { svg, inner, x, y, head, extra, xRange, shape: (tag, kind, more = {}) => draw(inner, tag, { class: kind, ...more }),
             dot: kind => draw(svg, "circle", { r: 5, class: kind }) };
}

/** Where a pointer is along a panel's x axis, and up its y axis as a share. */
function placeIn({ svg, xRange }, event) {
    const place = svg.getBoundingClientRect(), scale = BOX.wide / place.width;
    const across = clamp(((event.clientX - place.left) * scale - BOX.left) / (BOX.right - BOX.left), 0, 1);
    const up = clamp((BOX.bottom - (event.clientY - place.top) * scale) / (BOX.bottom - BOX.top), 0, 1);
    return [xRange[0] + across * (xRange[1] - xRange[0]), up];
}

/** Ticks of an axis from `low` to `high` at round numbers, some four to eight of them: [place, text]. */
function roundTicks(low, high) {
    const power = 10 ** Math.floor(Math.log10((high - low) / 4)), digits = Math.max(0, -Math.floor(Math.log10(power)));
    const step = [1, 2, 5, 10].map(factor => factor * power).filter(each => (high - low) / each >= 3).pop();
    const ticks = [];
    for (let number = Math.ceil(low / step - 1e-9); number * step <= high + step * 1e-9; number++) ticks.push([number * step, signed((number * step).toFixed(digits))]);
    return ticks;
}

const UNIT = [0, 0.25, 0.5, 0.75, 1].map(at => [at, String(at)]);
const SHARES = [[0.001, "0.1 %"], [0.01, "1 %"], [0.1, "10 %"], [0.5, "50 %"], [0.9, "90 %"], [0.99, "99 %"]].map(([share, text]) => [logit(share), text]);

/** Put a dot where it belongs; hide it where it has no place. */
function place(dot, { x, y }, across, up) {
    const seen = !Number.isNaN(up) && y(up) <= BOX.bottom + 0.5;
    dot.style.display = seen ? "" : "none";
    if (seen) set(dot, { cx: x(across), cy: y(up) });
}

/** The two panels that need probabilities: the decision curve and the reliability diagram. */
function riskPanels(body, steps) {
    const benefit = panel(body, { name: "benefit", title: "net benefit ÷ prevalence", xName: "threshold", yName: "", xTicks: UNIT,
                                  yTicks: [[0, "0"], [0.5, "0.5"], [1, "1"]], yRange: [-0.25, 1.02] });
    benefit.shape("path", "none", { d: line([[0, 0], [1, 0]], benefit.x, benefit.y) });
    const all = benefit.shape("path", "chance"), model = benefit.shape("path", "curve");
    const bend = panel(body, { name: "reliability", title: "reliability", xName: "score, as shown", yName: "share that is ill", xTicks: UNIT, yTicks: UNIT });
    bend.shape("path", "chance", { d: line([[0, 0], [1, 1]], bend.x, bend.y) });
    const bendLine = bend.shape("path", "curve");
    const cuts = [benefit, bend].map(each => [each, each.shape("line", "cut", { y1: BOX.top, y2: BOX.bottom })]);
    const point = benefit.dot("point");
    const below = draw(benefit.svg, "path", { d: "M-6 -10L6 -10L0 0Z", class: "point below" });          // the net benefit is under the panel's edge
    const bins = Array.from({ length: steps.edges.length - 1 }, () => bend.shape("circle", "bin"));

    function show(state, shown, found, rel, words) {
        const share = state.prevalence ?? steps.own, t = state.threshold;
        for (const [each, cut] of cuts) set(cut, { x1: each.x(t), x2: each.x(t) });
        if (state.moved.prevalence || state.moved.scores) {
            const gained = benefits(steps, shown, share, GRID);
            model.setAttribute("d", line(GRID.map((at, number) => [at, gained[number]]), benefit.x, benefit.y));
            all.setAttribute("d", line(GRID.map(at => [at, 1 - (1 - share) / share * oddsOf(at)]), benefit.x, benefit.y));
            bendLine.setAttribute("d", line([...rel.predicted].map((at, bin) => [at, rel.observed[bin]]).filter(([at]) => !Number.isNaN(at)), bend.x, bend.y));
            bins.forEach((dot, bin) => set(dot, { r: rel.weight[bin] > 0 ? 2 + 7 * Math.sqrt(rel.weight[bin]) : 0, cx: bend.x(rel.predicted[bin] || 0), cy: bend.y(rel.observed[bin] || 0) }));
        }
        const gain = found.net_benefit / share, under = benefit.y(gain) > BOX.bottom + 0.5;
        place(point, benefit, t, gain);
        below.style.display = under ? "" : "none";
        set(below, { transform: `translate(${benefit.x(t)} ${BOX.bottom})` });
        benefit.extra.textContent = `here ${fine(gain)}${under ? " ↓" : ""}`;
        bend.extra.textContent = `error ${three(rel.ece)}`;
        set(benefit.svg, { "aria-label": `Decision curve; at ${words} net benefit ${fine(found.net_benefit)}, divided by the prevalence ${fine(gain)}${under ? ", below the panel" : ""}, treating all ${fine(found.treat_all)}, treating none 0` });
        set(bend.svg, { "aria-label": `Reliability diagram at prevalence ${percent(share)}: calibration error ${three(rel.ece)}, mean score ${three(rel.mean)}` });
    }
    return { show, benefit, bend };
}

/** The panels, and a function that draws them anew: six, or of scores that are no probabilities the first four. */
function panels(body, steps, { classes: [healthyName, illName], low, high, probabilities }) {
    const scores = panel(body, { name: "scores", title: "scores", xName: "score, as shown", yName: "share of its class",
                                 xTicks: probabilities ? UNIT : roundTicks(low, high), yTicks: [], xRange: [low, high] });
    const positive = scores.shape("rect", "positive", { y: BOX.top, height: BOX.bottom - BOX.top });
    const groups = { healthy: scores.shape("path", "healthy area"), ill: scores.shape("path", "ill area") };
    const roc = panel(body, { name: "roc", title: "ROC", xName: "1 − specificity", yName: "sensitivity", xTicks: UNIT, yTicks: UNIT });
    roc.shape("path", "chance", { d: line([[0, 0], [1, 1]], roc.x, roc.y) });
    roc.shape("path", "curve", { d: line([[0, 0], ...steps.drawn.map(at => [steps.alarms[at] / steps.negatives, steps.found[at] / steps.positives])], roc.x, roc.y) });
    roc.extra.textContent = `AUC ${three(steps.area)}`;
    const pr = panel(body, { name: "pr", title: "precision and recall", xName: "sensitivity (recall)", yName: "PPV (precision)", xTicks: UNIT, yTicks: UNIT });
    const prChance = pr.shape("path", "chance"), prCurve = pr.shape("path", "curve");
    const values = panel(body, { name: "values", title: "predictive values", xName: "prevalence", yName: "share that is right", xTicks: SHARES, yTicks: UNIT,
                                 xRange: [-REACH, REACH] });
    const here = values.shape("line", "cut", { y1: BOX.top, y2: BOX.bottom }), ppvLine = values.shape("path", "curve"), npvLine = values.shape("path", "curve dashed");
    const risks = probabilities ? riskPanels(body, steps) : null;
    const cut = scores.shape("line", "cut", { y1: BOX.top, y2: BOX.bottom });
    const dots = { roc: roc.dot("point"), pr: pr.dot("point"), ppv: values.dot("point"), npv: values.dot("point") };
    const legend = add(body, "p", { class: "mbc-legend" });
    for (const [kind, name] of [["ill", `${illName} (${steps.positives})`], ["healthy", `${healthyName} (${steps.negatives})`], ["now", "where the sliders stand"],
                                ["dashed", "NPV (PPV: unbroken)"], ["chance", probabilities ? "chance; treat all; perfect reliability" : "chance"]]) {
        const entry = add(legend, "span");
        add(entry, "span", { class: `mbc-swatch ${kind}`, "aria-hidden": "true" });
        add(entry, "span", {}, name);
    }
    const axis = Array.from({ length: 61 }, (_, place) => -REACH + 2 * REACH * place / 60);

    function show(state, shown, found, rel) {
        const share = state.prevalence ?? steps.own, t = state.threshold;
        const cutAt = scores.x(clamp(t, low, high));
        set(cut, { x1: cutAt, x2: cutAt });
        if (state.moved.scores) {
            const shares = histogram(steps, shown, BINS, low, high), highest = Math.max(...shares.ill, ...shares.healthy) * 1.05;
            for (const name of ["healthy", "ill"]) groups[name].setAttribute("d", bars(shares[name], highest, scores));
        }
        set(positive, { x: cutAt, width: BOX.right - cutAt });
        scores.extra.textContent = `mean ${three(rel.mean)}`;
        place(dots.roc, roc, 1 - found.specificity, found.sensitivity);
        if (state.moved.prevalence) {
            prChance.setAttribute("d", line([[0, share], [1, share]], pr.x, pr.y));
            prCurve.setAttribute("d", line(steps.drawn.map(at => {
                const sensitivity = steps.found[at] / steps.positives;
                return [sensitivity, bayes(sensitivity, 1 - steps.alarms[at] / steps.negatives, share).ppv];
            }), pr.x, pr.y));
        }
        place(dots.pr, pr, found.sensitivity, found.ppv);
        pr.extra.textContent = `average ${three(rel.average)}`;
        const curves = axis.map(at => [at, bayes(found.sensitivity, found.specificity, 1 / (1 + Math.exp(-at)))]);
        ppvLine.setAttribute("d", line(curves.map(([at, { ppv }]) => [at, ppv]), values.x, values.y));
        npvLine.setAttribute("d", line(curves.map(([at, { npv }]) => [at, npv]), values.x, values.y));
        const across = clamp(logit(share), -REACH, REACH);
        set(here, { x1: values.x(across), x2: values.x(across) });
        place(dots.ppv, values, across, found.ppv);
        place(dots.npv, values, across, found.npv);
        values.extra.textContent = `PPV ${three(found.ppv)} · NPV ${three(found.npv)}`;
        const words = `threshold ${few(t)}, prevalence ${percent(share)}`;
        set(scores.svg, { "aria-label": `Scores of ${healthyName} and ${illName}, mean ${three(rel.mean)} at prevalence ${percent(share)}` });
        set(roc.svg, { "aria-label": `ROC curve, area ${three(steps.area)}; at ${words} sensitivity ${three(found.sensitivity)}, specificity ${three(found.specificity)}` });
        set(pr.svg, { "aria-label": `Precision and recall, average precision ${three(rel.average)}; at ${words} recall ${three(found.sensitivity)}, precision ${three(found.ppv)}` });
        set(values.svg, { "aria-label": `Predictive values over prevalence; at ${words} PPV ${three(found.ppv)}, NPV ${three(found.npv)}` });
        risks?.show(state, shown, found, rel, words);
    }
    return { show, scores, roc, values, risks };
}

/** A slider with its name, its value in words, and a button that brings it back. */
function slider(parent, name, low, high, step, back) {
    const row = add(parent, "div", { class: "mbc-row" }), label = add(row, "label", { class: "mbc-name" }), output = add(row, "output");
    add(label, "span", {}, name);
    const input = add(label, "input", { type: "range", min: low, max: high, step, "aria-label": name });
    const button = back ? add(row, "button", { type: "button" }, back) : null;
    return { row, input, output, button };
}

/** The slider of the training's class ratio, and the box that corrects for the prevalence. */
function trainingControls(controls, steps) {
    const ratio = slider(controls, "training ratio", -REACH, REACH, 0.05, "as trained"), own = (1 - steps.trained) / steps.trained;
    const check = add(add(ratio.row, "label", { class: "mbc-check" }), "input", { type: "checkbox" });
    add(check.parentNode, "span", {}, "correct for the prevalence");
    set(ratio.button, { "aria-label": `ratio of the training, ${ratioText(own)}` });
    function show({ ratio: r, corrected }) {
        const text = ratioText(r ?? own);
        ratio.input.value = -Math.log(r ?? own);
        ratio.input.setAttribute("aria-valuetext", `${text}, ${percent(1 / (1 + (r ?? own)))} ill${corrected ? ", without effect while the scores are corrected" : ""}`);
        ratio.row.classList.toggle("mbc-idle", corrected);
        ratio.output.textContent = text;
        ratio.button.disabled = r === null;
        check.checked = corrected;
    }
    return { ratio, check, show };
}

/** The score, as shown, whose point on the ROC curve is nearest to a place. */
function scoreNear(steps, shown, across, up) {
    let best = 0, least = Infinity;
    for (let place = 0; place < shown.length; place++) {
        const far = (steps.alarms[place] / steps.negatives - across) ** 2 + (steps.found[place] / steps.positives - up) ** 2;
        if (far < least) [best, least] = [place, far];
    }
    return shown[best];
}

function render({ model, el }) {
    const facts = model.get("_facts"), { classes: [healthyName, illName], low, high, step, probabilities } = facts;
    const steps = prepare({ scores: array(Float64Array, model.get("_scores")), ill: array(Int32Array, model.get("_ill")),
                            healthy: array(Int32Array, model.get("_healthy")), trainedOn: facts.trained_on, edges: facts.edges, digits: facts.digits });
    const KEYS = ["threshold", "prevalence", "ratio", "corrected"];
    const state = { moved: { scores: true, prevalence: true } };
    const read = () => { for (const key of KEYS) state[key] = model.get(key); };
    read();

    const holder = add(el, "div", { class: "mbc medbook-widget" }), root = add(holder, "div", { class: "mbc-root", role: "group", "aria-label": facts.title || "curves of a score" });
    const controls = add(root, "div", { class: "mbc-controls" });
    if (facts.title) add(controls, "div", { class: "mbc-title" }, facts.title);
    const threshold = slider(controls, "threshold", low, high, step);
    const exact = add(threshold.row, "input", { type: "number", step: "any", "aria-label": "threshold, exactly", ...(probabilities ? { min: 0, max: 1 } : {}) });
    const prevalence = slider(controls, "prevalence", -REACH, REACH, 0.05, "as here");
    const training = probabilities ? trainingControls(controls, steps) : null;
    set(prevalence.button, { "aria-label": `prevalence of these cases, ${percent(steps.own)}` });
    if (!probabilities) add(controls, "p", { class: "mbc-why" }, "These scores are no probabilities: nothing to correct, no decision curve and no reliability diagram.");
    const note = add(controls, "p", { class: "mbc-note", role: "status" });
    const numbers = add(root, "div", { class: "mbc-numbers", role: "list" });
    const cells = {};
    for (const [key, name] of [["tp", "TP"], ["fp", "FP"], ["fn", "FN"], ["tn", "TN"], ["sensitivity", "sensitivity"], ["specificity", "specificity"], ["ppv", "PPV"],
                               ["npv", "NPV"], ["f1", "F1"], ...(probabilities ? [["net_benefit", "net benefit"]] : [])]) {
        const pair = add(numbers, "div", { role: "listitem" });
        add(pair, "span", {}, `${name} `);
        cells[key] = add(pair, "b", { "data-number": key });
    }
    const body = add(root, "div", { class: `mbc-body${probabilities ? "" : " mbc-four"}` });
    const drawn = panels(body, steps, facts);
    const words = add(root, "p", { class: "mbc-words", "aria-live": "polite" });

    // ---- showing
    let shown = steps.scores, prior = null, share = null, rel = null, found = null;
    function update() {
        const wanted = priorOf(steps, state), here = state.prevalence ?? steps.own;
        state.moved = { scores: wanted !== prior, prevalence: here !== share };
        if (state.moved.scores) shown = shifted(steps, wanted);
        if (state.moved.scores || state.moved.prevalence) {
            const average = state.moved.prevalence ? averagePrecision(steps, here) : rel.average;
            rel = { ...reliability(steps, shown, here), average };
        }
        [prior, share] = [wanted, here];
        found = point(steps, shown, state);
        drawn.show(state, shown, found, rel);
        for (const key in cells) cells[key].textContent = key.length === 2 && key !== "f1" ? found[key] : key === "net_benefit" ? fine(found[key]) : three(found[key]);
    }

    function showControls() {
        const { threshold: t, prevalence: p } = state;
        threshold.input.value = t;
        threshold.input.setAttribute("aria-valuetext", signed(few(t)));
        threshold.output.textContent = "";
        if (!typing) exact.value = t;
        const pText = percent(p ?? steps.own);
        prevalence.input.value = logit(p ?? steps.own);
        prevalence.input.setAttribute("aria-valuetext", pText);
        prevalence.output.textContent = pText;
        prevalence.button.disabled = p === null;
        training?.show(state);
    }

    /** The state in words, for those who do not see the panels; told after a rest. */
    function tell() {
        const all = share < 0.01 || share > 0.99 ? 100000 : 1000, ill = Math.round(all * share);
        const right = Math.round(all * share * found.sensitivity), alarms = Math.round(all * (1 - share) * (1 - found.specificity));
        const use = found.net_benefit > Math.max(0, found.treat_all) ? "better than treating all or none"
            : found.treat_all > 0 ? "no better than treating all" : "no better than treating none";
        const risk = probabilities ? ` Mean score ${three(rel.mean)}, calibration error ${three(rel.ece)}. Net benefit ${fine(found.net_benefit)}, treating all `
            + `${fine(found.treat_all)}, treating none 0: ${use}.` : "";
        words.textContent = `${all} people at prevalence ${percent(share)}: ${illName} ${ill}, ${healthyName} ${all - ill}. At the threshold ${signed(few(state.threshold))}, ${right} of the first `
            + `are predicted positive, and ${alarms} of the others${Number.isNaN(found.ppv) ? "" : `; ${percent(found.ppv)} of the positive results are right`}.${risk}`;
    }

    // ---- changing
    let waiting = 0, typing = false;
    function heard() {
        note.textContent = "";
        read();
        showControls();
        update();
        tell();
    }
    const tie = inStep({ model, names: KEYS, value: name => state[name], heard, before: tell });
    function change(changes, said = "") {
        Object.assign(state, changes);
        note.textContent = said;
        tie.changed();
        if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; showControls(); update(); });
    }

    threshold.input.addEventListener("input", () => change({ threshold: Number(threshold.input.value) }));
    exact.addEventListener("input", () => { typing = true; });
    exact.addEventListener("change", () => {
        typing = false;
        const typed = exact.value === "" ? NaN : Number(exact.value);
        const taken = Number.isNaN(typed) ? state.threshold : probabilities ? clamp(typed, 0, 1) : typed;
        change({ threshold: taken }, Number.isNaN(typed) ? `A threshold is a number${probabilities ? " from 0 to 1" : ""}; it stays at ${few(taken)}.`
            : typed === taken ? "" : `A threshold lies between 0 and 1; ${few(typed)} was taken as ${taken}.`);
    });
    prevalence.input.addEventListener("input", () => change({ prevalence: shareAt(Number(prevalence.input.value)) }));
    const back = ({ input, button }, key) => button.addEventListener("click", () => {
        input.focus();                                  // the button is about to go out, and would take the focus with it
        change({ [key]: null });
    });
    back(prevalence, "prevalence");
    if (training) {
        back(training.ratio, "ratio");
        training.ratio.input.addEventListener("input", () => change({ ratio: ratioAt(Number(training.ratio.input.value)) }));
        training.check.addEventListener("change", () => change({ corrected: training.check.checked }));
    }

    const follow = (plotted, act) => {
        let held = false;
        plotted.svg.classList.add("drag");
        plotted.svg.addEventListener("pointerdown", event => {
            held = true;
            plotted.svg.setPointerCapture(event.pointerId);
            event.preventDefault();
            act(...placeIn(plotted, event));
        });
        plotted.svg.addEventListener("pointermove", event => { if (held) act(...placeIn(plotted, event)); });
        for (const name of ["pointerup", "pointercancel"]) plotted.svg.addEventListener(name, () => { held = false; });
    };
    const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
    const tidy = at => Number((Math.round(at / step) * step).toFixed(digits));
    for (const each of [drawn.scores, ...(drawn.risks ? [drawn.risks.benefit, drawn.risks.bend] : [])]) follow(each, at => change({ threshold: tidy(at) }));
    follow(drawn.values, at => change({ prevalence: shareAt(at) }));
    follow(drawn.roc, (across, up) => change({ threshold: scoreNear(steps, shown, across, up) }));

    const free = keepKeys(root);
    heard();
    return () => {
        if (waiting) cancelAnimationFrame(waiting);
        tie.stop();
        free();
    };
}

export default { render };
