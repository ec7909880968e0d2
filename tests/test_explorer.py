"""The explorer without a page: what it holds and sends, what it answers, what it refuses."""

import gc
import io
import weakref

import ipywidgets
import keras
import numpy as np
import psutil
import pytest
from keras import layers
from PIL import Image

from medbook.images.dicom import MedicalImage
from medbook.inspection.backend import InspectionError
from medbook.inspection.explorer import PALETTES, FeatureExplorer, prepare_image
from medbook.inspection.explorer_parts import _page_plan
from medbook.inspection.feature_maps import feature_maps, quantised_maps
from medbook.inspection.perturbation import Perturbation, perturb


def digits(channels=1, name="digits"):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            layers.Input((12, 10, channels)),
            layers.Conv2D(5, 3, activation="relu", name="first"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="scores"),
        ],
        name=name,
    )


def functional(shape, body):
    inputs = layers.Input(shape)
    return keras.Model(inputs, body(inputs))


def nested():
    backbone = functional(
        (12, 10, 1), lambda x: layers.ReLU(name="relu")(layers.Conv2D(4, 3, name="conv")(x))
    )
    backbone.name = "backbone"
    return functional(
        (12, 10, 1),
        lambda x: layers.Dense(2, name="out")(
            layers.GlobalAveragePooling2D(name="mean")(backbone(x))
        ),
    )


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.out = (
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Dense(2, name="out"),
        )

    def call(self, x):
        return self.out(keras.ops.mean(self.conv(x * 2), axis=(1, 2)))


def own():
    model = Own()
    model(np.zeros((1, 12, 10, 1), "float32"))
    return model


def two_inputs():
    image, age = layers.Input((12, 10, 1), name="image"), layers.Input((2,), name="age")
    joined = layers.Concatenate(name="join")(
        [layers.Flatten(name="flat")(layers.Conv2D(3, 3, name="conv")(image)), age]
    )
    return keras.Model([image, age], layers.Dense(2, name="out")(joined))


def signal():
    return functional(
        (30, 2),
        lambda x: layers.Dense(2, name="out")(
            layers.Flatten(name="flat")(layers.Conv1D(4, 5, name="conv")(x))
        ),
    )


def volume():
    return functional(
        (6, 8, 7, 1),
        lambda x: layers.Dense(2, name="out")(
            layers.Flatten(name="flat")(layers.Conv3D(3, 3, name="conv")(x))
        ),
    )


def picture(*shape, seed=0):
    return np.random.default_rng(seed).random(shape or (12, 10)).astype("float32")


KINDS = {
    "sequential": (digits, (12, 10)),
    "nested": (nested, (12, 10)),
    "subclassed": (own, (12, 10, 1)),
    "1-D": (signal, (30, 2)),
    "3-D": (volume, (6, 8, 7, 1)),
}


@pytest.fixture
def opened():
    """Makes explorers, and closes them when the test ends."""
    kept = []
    yield (
        lambda *arguments, **options: (
            kept.append(FeatureExplorer(*arguments, **options)) or kept[-1]
        )
    )
    for one in kept:
        one.close()


def sent(explorer, row=0):
    """What the page would unpack: dict path → (values (…, maps), low, high)."""
    pixels, numbers = (
        np.frombuffer(explorer.view.pixels, "uint8"),
        np.frombuffer(explorer.view.numbers, "float32"),
    )
    result = {}
    for block in explorer.view.blocks[row]:
        size, count = int(np.prod(block["space"])) * block["count"], block["count"]
        ends = numbers[block["ends"] : block["ends"] + 2 * count]
        path = explorer.view.info["rows"][row]["layers"][block["layer"]]["path"]
        result[path] = (
            pixels[block["at"] : block["at"] + size].reshape(*block["space"], count),
            ends[:count],
            ends[count:],
        )
    return result


def restored(explorer, path, row=0):
    values, low, high = sent(explorer, row)[path]
    return low + values / np.float32(255) * (high - low)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_sent_are_the_quantised_maps(opened, kind):
    make, shape = KINDS[kind]
    model, image = make(), picture(*shape)
    explorer, batch = opened(model, image), prepare_image(model, image)
    _, wanted = quantised_maps(model, batch)
    found = sent(explorer)
    assert list(found) == list(wanted)
    for path, (values, low, high) in found.items():
        one = wanted[path]
        assert (
            np.abs(values.ravel().astype(int) - one.values.ravel().astype(int)).max() <= 1
        )  # a half may round either way
        np.testing.assert_allclose(low, one.low.ravel(), atol=1e-6)
        np.testing.assert_allclose(high, one.high.ravel(), atol=1e-6)
    assert explorer.message == ""


def test_every_value_is_within_half_a_step_of_the_layers_own_output(opened):
    model, image = digits(), picture()
    explorer = opened(model, image)
    for path, maps in feature_maps(model, prepare_image(model, image)).items():
        values, low, high = sent(explorer)[path]
        bound = np.broadcast_to((high - low) / 510 + 1e-6, values.shape).ravel()
        assert (np.abs(restored(explorer, path).ravel() - maps.ravel()) <= bound).all()


@pytest.mark.backends
def test_several_inputs(opened):
    model = two_inputs()
    explorer = opened(model, [picture(12, 10, 1), picture(2)])
    assert explorer.view.info["rows"][0]["input"]["rows"] == 12
    before = restored(explorer, "conv")
    explorer.controls.sliders["contrast"].value = 2.0
    assert explorer.message == "" and not np.allclose(before, restored(explorer, "conv"))


def test_a_layer_knows_which_layer_it_looks_at(opened):
    rows = opened(nested(), picture()).view.info["rows"][0]["layers"]
    named = {
        one["path"]: rows[one["from"]]["path"] if one["from"] >= 0 else one["from"] for one in rows
    }
    assert (
        named["backbone/conv"] == -1
        and named["backbone/relu"] == "backbone/conv"
        and named["mean"] == "backbone/relu"
    )


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("noise", 0.2, Perturbation(noise=0.2)),
        ("contrast", 2.0, Perturbation(contrast=2.0)),
        ("angle", 30, Perturbation(angle=30)),
        ("down", 2, Perturbation(shift=(2, 0))),
        ("right", -3, Perturbation(shift=(0, -3))),
        ("width", 0.5, Perturbation(center=0.5, width=0.5)),
    ],
)
def test_a_slider_changes_the_maps_as_its_perturbation_does(opened, name, value, wanted):
    model, image = digits(), picture()
    explorer = opened(model, image)
    frame, before = explorer.view.frame, restored(explorer, "first")
    explorer.controls.sliders[name].value = value
    changed = feature_maps(model, perturb(image[..., None], wanted)[None])["first"][0]
    assert explorer.view.frame == frame + 1
    assert (
        np.abs(restored(explorer, "first")[0] - changed).max()
        < 0.01
        < np.abs(before[0] - changed).max()
    )
    explorer.controls.reset.click()
    np.testing.assert_array_equal(restored(explorer, "first"), before)
    assert explorer.view.frame == frame + 2  # one pass for all sliders that go back


def test_the_square_hides_what_is_under_it(opened):
    explorer = opened(digits(), picture())
    explorer.controls.set(size=4, row=5, column=5)
    place = explorer.view.info["rows"][0]["input"]["at"]
    shown = np.frombuffer(explorer.view.pixels, "uint8")[place : place + 120].reshape(12, 10)
    assert np.ptp(shown[4:7, 4:7].astype(int)) == 0 and np.ptp(shown.astype(int)) > 100


def test_values_outside_0_to_1_keep_their_scale(opened):
    model, image = digits(), picture() * 300 - 100
    explorer = opened(model, image)
    explorer.controls.sliders["down"].value = 1
    wanted = feature_maps(model, perturb(image[..., None], Perturbation(shift=(1, 0)))[None])[
        "first"
    ]
    assert np.abs(restored(explorer, "first") - wanted).max() <= np.ptp(wanted) / 255


@pytest.mark.backends
def test_grad_cam_follows_and_goes(opened):
    explorer = opened(digits(), picture(), target=1)
    assert explorer.view.info["rows"][0]["cam"] is None
    explorer.controls.overlay.value = True
    place = explorer.view.info["rows"][0]["cam"]
    heat = np.frombuffer(explorer.view.pixels, "uint8")[
        place["at"] : place["at"] + place["rows"] * place["columns"]
    ]
    assert (
        explorer.message == ""
        and (place["rows"], place["columns"]) == (12, 10)
        and heat.max() in (0, 255)
    )
    explorer.controls.overlay.value = False
    assert explorer.view.info["rows"][0]["cam"] is None


@pytest.mark.backends
@pytest.mark.parametrize(
    "layer, index", [("first", (3, 4, 2)), ("pool", (1, 2, 0)), ("flat", (7,)), ("scores", (1,))]
)
def test_the_card_holds_the_layers_own_value(opened, layer, index):
    model, image = digits(), picture()
    explorer = opened(model, image)
    place = [one["path"] for one in explorer.view.info["rows"][0]["layers"]].index(layer)
    explorer.view.selected = {"row": 0, "layer": place, "index": list(index), "frame": 1}
    assert explorer.view.card["asked"]["index"] == list(index)
    assert (
        abs(
            explorer.view.card["value"]
            - feature_maps(model, prepare_image(model, image))[layer][(0, *index)]
        )
        < 1e-4
    )
    assert abs(explorer.view.card["total"] - explorer.view.card["value"]) < 1e-4


def test_a_card_that_cannot_be_made_says_why(opened):
    explorer = opened(digits(), picture())
    explorer.view.selected = {"row": 0, "layer": 0, "index": [99, 0, 0], "frame": 1}
    assert explorer.view.card["note"] and explorer.view.card["asked"]["index"] == [99, 0, 0]


def test_a_big_model_holds_the_layers_looked_at_within_its_budget(opened):
    model, image = digits(), picture()
    explorer = opened(
        model, image, budget=600
    )  # conv 400 bytes a map of 80, pool 100, flat 100, scores 3
    side = explorer.sides[0]
    assert not side.whole and list(sent(explorer)) == ["first"]
    for layer in (1, 2, 3, 0, 1):
        explorer.view.asked = {"layer": layer, "page": 0}
        assert sum(values.size for _, _, values in side.held.values()) <= 600
        assert side.forms[layer]["path"] in sent(explorer)
    wanted = feature_maps(model, prepare_image(model, image))["pool"]
    assert np.abs(restored(explorer, "pool")[0] - wanted[0]).max() < 0.02
    explorer.controls.sliders["noise"].value = 0.1
    assert list(sent(explorer)) == ["pool"]  # after a change only what is looked at


def test_pages_and_thinned_maps(opened):
    model = functional((40, 40, 1), lambda x: layers.Conv2D(100, 3, padding="same", name="wide")(x))
    image = picture(40, 40)
    explorer = opened(model, image, budget=1600 * 70)
    wanted = feature_maps(model, prepare_image(model, image))["wide"][0]
    assert explorer.sides[0].plans[0] == (1, 64, 2)
    explorer.view.asked = {"layer": 0, "page": 1}
    assert explorer.view.blocks[0][-1]["first"] == 64 and explorer.view.blocks[0][-1]["count"] == 36
    assert np.abs(restored(explorer, "wide")[0] - wanted[..., 64:]).max() < 0.02
    small = opened(model, image, budget=500)
    assert small.view.blocks[0][0]["every"] == 2 and small.view.blocks[0][0]["count"] == 1
    assert np.abs(restored(small, "wide")[0] - wanted[::2, ::2, :1]).max() < 0.02


def test_two_images_and_two_models(opened):
    model = digits()
    pair = opened(model, picture(), compare=picture(seed=1))
    assert [row["title"] for row in pair.view.info["rows"]] == [
        "first image",
        "second image",
    ] and pair.links == [0, 1, 2, 3]
    wanted = feature_maps(model, picture(seed=1)[None, ..., None])["first"]
    np.testing.assert_allclose(restored(pair, "first", row=1), wanted, atol=0.01)
    other = digits(name="other")
    keras.utils.set_random_seed(5)
    other.set_weights(
        [np.random.default_rng(3).standard_normal(w.shape) for w in other.get_weights()]
    )
    both = opened(model, picture(), compare=other)
    assert not np.allclose(restored(both, "first"), restored(both, "first", row=1))
    unlike = opened(model, picture(), compare=nested())
    assert unlike.links == [-1, -1, -1, -1]


@pytest.mark.backends
def test_checkpoints_are_shown_and_the_models_own_weights_come_back(opened, tmp_path):
    model, image = digits(), picture()
    own_weights, later = model.get_weights(), [w + 0.3 for w in model.get_weights()]
    before = restored(opened(model, image), "first")
    model.set_weights(later)
    model.save_weights(tmp_path / "epoch_10.weights.h5")
    model.save(tmp_path / "epoch_9.keras")
    np.savez(tmp_path / "checkpoint.npz", **{f"weights_{i}": w for i, w in enumerate(later)})
    changed = feature_maps(model, prepare_image(model, image))["first"]
    model.set_weights(own_weights)
    explorer = opened(model, image, checkpoints=tmp_path)
    assert [name for name, _ in explorer.weights.named] == ["checkpoint", "epoch_9", "epoch_10"]
    for choice in ([tmp_path / "checkpoint.npz"], [later]):
        other = opened(model, image, checkpoints=choice)
        other.controls.checkpoint.value = 0
        assert np.abs(restored(other, "first") - changed).max() < 0.02
        other.close()
    for place in (0, 1, 2):
        explorer.controls.checkpoint.value = place
        assert explorer.message == "" and np.abs(restored(explorer, "first") - changed).max() < 0.02
    explorer.controls.checkpoint.value = 3
    np.testing.assert_array_equal(restored(explorer, "first"), before)
    explorer.controls.checkpoint.value = 0
    explorer.close()
    for one, other in zip(model.get_weights(), own_weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_checkpoints_of_another_model_are_refused_and_leave_the_weights(opened, tmp_path):
    model = digits()
    own_weights = model.get_weights()
    explorer = opened(model, picture(), checkpoints=[[np.zeros(3)]])
    explorer.controls.checkpoint.value = 0
    assert "do not fit model 'digits'" in explorer.message
    np.testing.assert_array_equal(model.get_weights()[0], own_weights[0])
    with pytest.raises(InspectionError, match="none given or found"):
        FeatureExplorer(model, picture(), checkpoints=tmp_path)
    with pytest.raises(InspectionError, match="no file 'gone.keras'"):
        FeatureExplorer(model, picture(), checkpoints=[tmp_path / "gone.keras"])


def test_what_cannot_be_explored_is_refused_with_a_reason():
    unbuilt = keras.Sequential([layers.Conv2D(2, 3)], name="bare")
    for model, image, options, words in [
        (unbuilt, picture(), {}, "'bare' has no weights yet"),
        ("no model", picture(), {}, "expected a keras.Model"),
        (digits(), picture(5, 5), {}, "takes \\(batch, 12, 10, 1\\)"),
        (digits(), np.array(["a"]), {}, "numbers"),
        (digits(), np.full((12, 10), np.nan), {}, "NaN or infinity"),
        (digits(), picture(), {"layers": "nothing"}, "no layer 'nothing'"),
        (digits(), picture(), {"classes": ["a", "b"]}, "2 classes are named, the model gives 3"),
        (digits(), picture(), {"target": "c"}, "target 'c'"),
    ]:
        count = len(ipywidgets.widgets.widget._instances)
        with pytest.raises(InspectionError, match=words):
            FeatureExplorer(model, image, **options)
        assert len(ipywidgets.widgets.widget._instances) == count


def test_a_wrong_image_later_raises_and_is_told_in_the_widget(opened):
    explorer = opened(digits(), picture())
    before = restored(explorer, "first")
    with pytest.raises(InspectionError, match="shape"):
        explorer.image = picture(3, 3)
    assert "takes (batch, 12, 10, 1)" in explorer.message
    np.testing.assert_array_equal(restored(explorer, "first"), before)
    explorer.image = picture(seed=4)
    assert explorer.message == "" and not np.allclose(restored(explorer, "first"), before)


def test_maps_that_are_not_finite_are_told(opened):
    model = digits()
    weights = model.get_weights()
    weights[2] = weights[2] * np.nan
    model.set_weights(weights)
    explorer = opened(model, picture())
    assert "'scores'" in explorer.message and "NaN" in explorer.message
    weights = digits().get_weights()
    weights[0] = weights[0] * np.nan
    through_training = opened(digits(), picture(), checkpoints=[weights])
    assert through_training.message == ""
    through_training.controls.checkpoint.value = 0
    assert "NaN" in through_training.message and "first" in through_training.message
    through_training.controls.checkpoint.value = 1
    assert through_training.message == ""


def test_a_model_that_fails_while_it_is_looked_at_is_told(opened, monkeypatch):
    explorer = opened(digits(), picture())

    def fails(batch):
        raise RuntimeError("the device is full\nmore")

    explorer.sides[0].forward = fails
    explorer.controls.sliders["noise"].value = 0.3
    assert explorer.message == "the device is full"
    explorer.view.asked = {"layer": 99, "page": 0}
    assert "no layer 99" in explorer.message


def test_images_are_prepared_for_the_model():
    grey, colour = digits(), digits(3)
    assert (
        prepare_image(grey, picture()).shape
        == prepare_image(grey, picture(1, 12, 10, 1)).shape
        == (1, 12, 10, 1)
    )
    assert prepare_image(colour, picture()).shape == (1, 12, 10, 3)
    stored = (picture() * 255).astype("uint8")
    np.testing.assert_array_equal(prepare_image(grey, stored)[0, ..., 0], stored)
    scan = MedicalImage(
        np.linspace(-1000, 1000, 64 * 48, dtype="float32").reshape(64, 48),
        units="HU",
        modality="CT",
    )
    ready = prepare_image(colour, scan)
    assert (
        ready.shape == (1, 12, 10, 3)
        and ready.min() == 0
        and ready.max() == 1
        and (np.diff(ready[0, :, 0, 0]) >= 0).all()
    )
    frames = MedicalImage(
        np.stack([np.full((20, 20), k, "float32") + np.eye(20, dtype="float32") for k in range(5)])
    )
    assert prepare_image(grey, frames).shape == (1, 12, 10, 1)
    assert prepare_image(volume(), frames).shape == (1, 6, 8, 7, 1)


def test_prepare_takes_the_place_of_our_own(opened):
    explorer = opened(digits(), "ignored", prepare=lambda image: picture(12, 10, 1))
    np.testing.assert_array_equal(explorer.image[0], picture(12, 10, 1))


def test_a_saved_notebook_shows_a_picture(opened):
    bundle, _ = opened(digits(), picture(), classes=["a", "b", "c"])._repr_mimebundle_()
    data = bundle["image/png"]
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    assert (
        len(data) < 80_000
        and shown.std() > 20
        and "application/vnd.jupyter.widget-view+json" in bundle
    )
    assert bundle["text/plain"] == "FeatureExplorer('digits', 4 layers)"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_picture(opened, kind):
    make, shape = KINDS[kind]
    assert opened(make(), picture(*shape)).still()[:4] == b"\x89PNG"


def test_closing_frees_everything():
    model = digits()
    FeatureExplorer(model, picture()).close()
    gc.collect()
    count = len(ipywidgets.widgets.widget._instances)
    explorer = FeatureExplorer(model, picture())
    explorer.view.selected = {"row": 0, "layer": 0, "index": [0, 0, 0], "frame": 1}
    seen = [
        weakref.ref(one) for one in (explorer, explorer.view, explorer.controls, explorer.sides[0])
    ]
    explorer.close()
    explorer.close()  # twice does no harm
    del explorer
    gc.collect()
    assert [one() for one in seen] == [None] * 4
    assert len(ipywidgets.widgets.widget._instances) == count


def test_a_hundred_images_do_not_grow_it(opened):
    model = functional((72, 72, 1), lambda x: layers.Conv2D(48, 3, name="conv")(x))
    explorer = opened(model, picture(72, 72))
    for seed in range(20):
        explorer.image = picture(72, 72, seed=seed)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for seed in range(100):
        explorer.image = picture(72, 72, seed=seed)
    gc.collect()
    assert (
        psutil.Process().memory_info().rss - before < 15e6
    )  # a hundred images' maps are 24 MB in bytes, 94 MB in float32
    assert explorer.shown_bytes < 2e6


def test_the_page_finds_its_script_and_style(opened):
    view = opened(digits(), picture()).view
    assert "export default" in view._esm and ".mbx" in view._css and "http" not in view._css
    assert len(view.palettes) == 768 * len(PALETTES)


def trained(model):
    """Train a model a little, as somebody may while an explorer is open."""
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(picture(8, 12, 10, 1), np.arange(8) % 3, verbose=0)
    return model.get_weights()


def assert_weights(model, wanted):
    for one, other in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_beside_an_open_explorer_is_not_undone(opened):
    model = digits()
    explorer = opened(model, picture(), checkpoints=[[w * 0.5 for w in model.get_weights()]])
    new = trained(model)
    explorer.close()  # nothing was put in, so nothing goes back
    assert_weights(model, new)
    explorer = opened(model, picture(), checkpoints=[[w * 0.5 for w in new]])
    explorer.controls.checkpoint.value = 0
    later = trained(model)  # from the checkpoint on
    explorer.controls.checkpoint.value = 1
    assert_weights(model, later)
    explorer.controls.checkpoint.value = 0
    assert_weights(model, [np.float32(w * 0.5) for w in new])
    explorer.controls.checkpoint.value = 1  # what was put in stands there: the own ones come back
    assert_weights(model, later)
    explorer.controls.checkpoint.value = 0
    last = trained(model)
    explorer.close()
    assert_weights(model, last)


@pytest.mark.backends
def test_the_scores_are_those_of_predict(opened):
    scaled = functional(
        (12, 10, 1),
        lambda x: layers.Dense(2, activation="softmax", name="out")(
            layers.Flatten(name="flat")(layers.Rescaling(1 / 255, name="scale")(x))
        ),
    )
    stored = (picture() * 255).astype("uint8")
    for model in (scaled, digits()):
        for image in (stored, stored[..., None], stored.astype("float32")):
            wanted = model.predict(image.reshape(1, 12, 10, 1), verbose=0)[0]
            np.testing.assert_allclose(opened(model, image).sides[0].scores, wanted, atol=1e-5)
    scan = MedicalImage(picture(40, 30) * 900)
    explorer = opened(scaled, scan)
    assert (
        "windowed to [0, 1]" in explorer.message
        and "'scale'" in explorer.message
        and "prepare=" in explorer.message
    )
    assert (
        opened(scaled, scan, prepare=lambda image: stored).message
        == opened(digits(), scan).message
        == ""
    )


def test_the_field_is_on_the_input_that_is_shown(opened):
    image, age = layers.Input((12, 10, 1), name="image"), layers.Input((2,), name="age")
    joined = layers.Concatenate(name="join")(
        [age, layers.Flatten(name="flat")(layers.Conv2D(3, 3, name="conv")(image))]
    )
    model = keras.Model({"age": age, "image": image}, layers.Dense(2, name="out")(joined))
    card = opened(model, {"age": picture(2), "image": picture(12, 10, 1)}).explain(
        "conv", (2, 3, 1)
    )
    assert card["field_box"] == [[2, 5], [3, 6]] and card["field_input"] == "image"
    other = layers.Input((12, 10, 1), name="other")
    halves = [
        layers.GlobalAveragePooling2D(name=f"mean{k}")(layers.Conv2D(3, 3, name=f"conv{k}")(x))
        for k, x in enumerate((image, other))
    ]
    pair = opened(
        keras.Model(
            [image, other], layers.Dense(2, name="out")(layers.Subtract(name="minus")(halves))
        ),
        [picture(12, 10, 1), picture(12, 10, 1, seed=1)],
    )
    assert (
        pair.explain("conv0", (2, 3, 1))["field_box"] == [[2, 5], [3, 6]]
        and pair.explain("conv1", (2, 3, 1))["field_box"] is None
    )
    froms = {one["path"]: one["from"] for one in pair.view.info["rows"][0]["layers"]}
    assert froms["conv0"] == -1 and froms["conv1"] == -2


def test_pixels_of_one_layer_need_one_run(opened, monkeypatch):
    from medbook.inspection import pixel

    explorer, runs = opened(digits(), picture()), []
    original = pixel._record_layer
    monkeypatch.setattr(
        pixel, "_record_layer", lambda *arguments: runs.append(arguments[1]) or original(*arguments)
    )
    for row in range(4):
        explorer.explain("first", (row, 2, 1))
    explorer.explain("pool", (1, 1, 0))
    assert runs == ["first", "pool"]
    explorer.controls.sliders["contrast"].value = 2.0
    wanted = feature_maps(explorer.model, explorer.batches[0])["scores"][0, 1]
    assert (
        runs == ["first", "pool"]
        and abs(explorer.explain("scores", (1,))["value"] - wanted) < 1e-5
        and len(runs) == 3
    )


def test_a_film_shows_its_middle_frame_on_a_scale_of_its_own():
    frames = np.stack([picture(20, 20, 3, seed=k) * 200 + 55 * k for k in range(2)]).astype(
        "float32"
    )
    ready = prepare_image(digits(3), MedicalImage(frames))
    np.testing.assert_array_equal(ready, prepare_image(digits(3), MedicalImage(frames[1])))
    assert ready.shape == (1, 12, 10, 3) and 0 <= ready.min() < ready.max() <= 1
    grey = np.stack([picture(20, 20, seed=k) * 10**k for k in range(4)])
    np.testing.assert_array_equal(
        prepare_image(digits(), MedicalImage(grey)), prepare_image(digits(), MedicalImage(grey[2]))
    )


def test_sliders_follow_an_image_of_another_size(opened):
    model = functional(
        (None, None, 1),
        lambda x: layers.Dense(2, name="out")(
            layers.GlobalAveragePooling2D(name="mean")(layers.Conv2D(3, 3, name="conv")(x))
        ),
    )
    explorer = opened(model, picture(16, 16))
    explorer.image = picture(40, 60)
    fresh = opened(model, picture(40, 60)).controls.sliders
    for name, one in explorer.controls.sliders.items():
        assert name == "fill" or (one.min, one.max, one.value) == (
            fresh[name].min,
            fresh[name].max,
            fresh[name].value,
        )
    explorer.controls.set(size=6, row=30, column=55)
    frame = explorer.view.frame
    explorer.image = picture(16, 16)
    assert (
        explorer.view.frame == frame + 1
        and explorer.controls.sliders["column"].value == 15
        and explorer.message == ""
    )


def test_a_second_model_with_fewer_classes_goes_without_grad_cam(opened):
    few = functional(
        (12, 10, 1),
        lambda x: layers.Dense(2, name="out")(
            layers.Flatten(name="flat")(layers.Conv2D(4, 3, name="conv")(x))
        ),
    )
    explorer = opened(digits(), picture(), compare=few)
    explorer.controls.overlay.value = True
    explorer.controls.target.value = 2
    frame = explorer.view.frame
    explorer.controls.sliders["noise"].value = 0.1
    cams = [row["cam"] for row in explorer.view.info["rows"]]
    assert (
        explorer.view.frame == frame + 1
        and cams[0] is not None
        and cams[1] is None
        and "gives 2 scores" in explorer.message
    )
    explorer.controls.target.value = 1
    assert all(row["cam"] for row in explorer.view.info["rows"]) and explorer.message == ""


def test_grad_cam_of_a_chosen_layer(opened):
    from medbook.inspection.activation_maps import grad_cam

    explorer, image = opened(digits(), picture()), picture()[None, ..., None]
    explorer.controls.overlay.value, explorer.controls.target.value = True, 1
    assert [path for _, path in explorer.controls.cam_layer.options] == [None, "first", "pool"]
    for layer in ("first", "pool"):
        explorer.controls.cam_layer.value = layer
        place = explorer.view.info["rows"][0]["cam"]
        heat = np.frombuffer(explorer.view.pixels, "uint8")[
            place["at"] : place["at"] + 120
        ].reshape(12, 10)
        wanted = np.maximum(
            grad_cam(explorer.model, image, target=1, layer=layer, logits=True)[0], 0
        )
        assert (
            explorer.message == ""
            and np.abs(heat / 255 - wanted / (wanted.max() or 1)).max() < 0.01
        )


@pytest.mark.parametrize(
    "budget, compare", [(0, None), (1, True), (150, True), (-5, None), (2.5, None), (True, None)]
)
def test_a_budget_that_holds_nothing_is_refused(budget, compare):
    with pytest.raises(InspectionError, match="budget"):
        FeatureExplorer(
            digits(), picture(), budget=budget, compare=picture(seed=1) if compare else None
        )
    assert (
        _page_plan({"space": [3, 9, 7], "maps": 5}, 0)[0] == 9
    )  # it ends, whatever it is asked for


def test_a_fixed_batch_is_refused_unless_it_is_one():
    for count in (1, 4):
        inputs = layers.Input((12, 10, 1), batch_size=count)
        model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)), name="fixed")
        if count == 1:
            FeatureExplorer(model, picture()).close()
            continue
        with pytest.raises(InspectionError, match="'fixed' takes batches of exactly 4 images"):
            FeatureExplorer(model, picture())
