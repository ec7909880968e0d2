"""Grad-CAM and Score-CAM on MobileNetV2 at 224×224 with random weights.

Against a compiled forward and backward pass, and tf-keras-vis.
"""

import contextlib
import io
import warnings
from functools import partial

import keras
import numpy as np

from medbook.inspection.activation_maps import grad_cam
from medbook.inspection.masks import score_cam
from tests.bench import faster


def mobile_net(images):
    """MobileNetV2 with random weights and normalisations as after training; softmax and not."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    open_ended = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    open_ended.set_weights(model.get_weights())
    return model, open_ended


def forward_and_backward(model, image):
    """A call that computes one score and its gradient by the image, compiled."""
    import tensorflow as tf

    image = tf.constant(image)

    @tf.function
    def call(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = model(x, training=False)[:, 3]
        return tape.gradient(score, x)

    return lambda: np.asarray(call(image))


def scorecam(model, image, most):
    """A call of tf-keras-vis's Score-CAM without its progress; it takes the softmax itself."""
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.scores import CategoricalScore

    explainer = Scorecam(model)

    def call():
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return explainer(CategoricalScore(3), image, max_N=most, normalize_cam=False)

    return call


def rows():
    if keras.backend.backend() != "tensorflow":
        return  # tf-keras-vis knows no other backend
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    images = np.random.default_rng(0).random((8, 224, 224, 3)).astype("float32")
    model, open_ended = mobile_net(images)
    image = images[:1]
    explainer = Gradcam(model)

    def ours():
        return grad_cam(model, image, target=3, layer="Conv_1")

    yield faster(
        "Grad-CAM, MobileNetV2 at 224x224, batch 1, against a compiled forward and backward pass "
        "(at most 1.5 times its time), s",
        ours,
        forward_and_backward(model, image),
        ">= 0.667",
        repeats=15,
    )
    yield faster(
        "Grad-CAM, the same, against tf-keras-vis, s",
        ours,
        lambda: explainer(CategoricalScore(3), image),
        ">= 8",
        repeats=9,
    )
    for most in (64, 512):
        yield faster(
            f"Score-CAM with the {most} most varied of 1280 maps, batches of 32, against "
            "tf-keras-vis, s",
            partial(score_cam, model, image, target=3, layer="Conv_1", maps=most, softmax=False),
            scorecam(open_ended, image, most),
            ">= 5",
            repeats=3,
        )
