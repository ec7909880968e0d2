// What the scripts of medbook's widgets share; `medbook.core.script` puts it before each of them.

/**
 * Keep the traits `names` of Python's `model` and the page in step. `value(name)` gives the page's own value. After `changed()`
 * Python is told once the hand has rested; what Python sets is `heard()`. `stop()` tells what is left and ends it.
 */
function inStep({ model, names, value, heard, before = () => {}, rest = 150 }) {
    let resting = 0, saving = false;
    const save = () => {
        [resting, saving] = [0, true];                  // what is set here is not heard as news from Python
        before();
        for (const name of names) model.set(name, value(name));
        saving = false;
        model.save_changes();
    };
    const listen = () => { if (!resting && !saving) heard(); };
    for (const name of names) model.on(`change:${name}`, listen);
    return {
        changed() {
            if (resting) clearTimeout(resting);
            resting = setTimeout(save, rest);
        },
        stop() {
            if (resting) { clearTimeout(resting); save(); }
            for (const name of names) model.off(`change:${name}`, listen);
        },
    };
}

/** Keep the notebook's own keys out of a widget; returns a function that lets them in again. */
function keepKeys(root) {
    const keep = event => event.stopPropagation();
    root.addEventListener("keydown", keep);
    return () => root.removeEventListener("keydown", keep);
}

