"""Split-brain autoencoders and colorization from files laid out as the official ones: the numbers of PyTorch."""

import numpy as np
import pytest

from keras_ssl import backbones, checkpoints
from keras_ssl.conversion import LAYOUTS, convert, extract, weights_digest
from keras_ssl.views.lab import rgb_to_lab
from tests.checkpoints import makers
from tests.conversion import color_rows, parity
from tests.conversion.color_rows import caffe_layers, flat

torch = pytest.importorskip("torch", reason="PyTorch computes the references")

from keras_ssl.conversion.references.torch_color import CaffeAlexNet, Colorization  # noqa: E402
from tests.without_values import without_values  # noqa: E402

ROWS = color_rows.rows()
MADE = {
    "splitbrain_caffe": color_rows.alexnet,
    "colorization_alexnet_caffe": color_rows.lightness_alexnet,
    "colorization_caffe": color_rows.colorization,
}
FULL = (96, 256, 384, 384, 256)
IMAGES = np.random.default_rng(1).uniform(size=(2, 75, 80, 3)).astype("float32")


@pytest.mark.parametrize("row", [row.parameter for row in ROWS])
def test_features_and_map_are_the_reference_s(row):
    assert parity.measure(row)["relative"] < 1e-5  # float32 rounding gave at most 1.4e-6


@pytest.mark.parametrize(("layout", "make"), MADE.items(), ids=MADE)
def test_the_maps_of_all_layers_are_the_reference_s(layout, make):
    module, network = make()
    convert(flat(caffe_layers(module)), network, LAYOUTS[layout])
    expected, got = color_rows.outputs(module, IMAGES)["layers"], network(IMAGES, output="layers")
    assert len(expected) == len(got["layers"]) == len(network.units)
    for theirs, ours in zip(expected, got["layers"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("legacy", [False, True], ids=["shapes", "four axes"])
@pytest.mark.parametrize(("layout", "make"), MADE.items(), ids=MADE)
def test_a_caffemodel_is_read_and_given_back(layout, make, legacy, tmp_path):
    """Through the reader of files; until 2014 Caffe wrote vectors with four axes too."""
    module, network = make()
    layers = caffe_layers(module, factor=0.5)  # a power of two: no digit is lost
    path = makers.write_caffemodel(tmp_path / "it.caffemodel", layers, legacy=legacy)
    tensors = checkpoints.select_tensors(checkpoints.read(path).tree)
    certificate = convert(tensors, network, LAYOUTS[layout])
    given, back = flat(layers), extract(network, LAYOUTS[layout])
    assert set(back) == set(given) - set(certificate["left_out"])
    norms = [key for key in given if "norm" in key]
    assert len(norms) == (3 * 7 if layout == "colorization_caffe" else 0)
    for key, value in back.items():
        np.testing.assert_array_equal(value, given[key] * (2.0 if key in norms else 1.0))
    for key in certificate["left_out"]:
        assert key.startswith(("fc6.", "fc7.", "conv8_"))


def test_the_torch_file_is_given_back():
    tensors, network, _ = ROWS[-1].make()
    certificate = convert(tensors, network, LAYOUTS["colorization_torch"])
    back = extract(network, LAYOUTS["colorization_torch"])
    assert set(back) == set(tensors) - set(certificate["left_out"])
    for key, value in back.items():
        np.testing.assert_allclose(
            value, tensors[key], rtol=3e-7 if key == "model1.0.weight" else 0
        )


def test_the_pools_round_up():
    """The third pool makes 2 x 2 of 4 x 4; rounding down gives 1 x 1 of 3 x 3 or 4, and other features."""
    module, network = color_rows.alexnet()
    convert(flat(caffe_layers(module)), network, LAYOUTS["splitbrain_caffe"])
    floor = backbones.AlexNet.from_config({**network.get_config(), "ceil_pool": False})
    for target, source in zip(floor.variables, network.variables, strict=True):
        target.assign(source)
    assert network(IMAGES)["map"].shape[1:3] == (2, 2) and floor(IMAGES)["map"].shape[1:3] == (1, 1)
    assert np.abs(network(IMAGES)["features"] - floor(IMAGES)["features"]).max() > 1e-3


def test_no_batches_are_mean_and_variance_zero():
    module, network = color_rows.colorization()
    convert(flat(caffe_layers(module, factor=0.0)), network, LAYOUTS["colorization_caffe"])
    norms = [unit.norm for unit in network.units if unit.norm is not None]
    assert len(norms) == 7
    assert all(not n.moving_mean.numpy().any() for n in norms)
    assert all(not n.moving_variance.numpy().any() for n in norms)


def test_the_lab_of_the_authors_caffe_is_nearly_this():
    """Their color layer has other last digits: a part in ten thousand of the white point and of the matrix."""
    rgb = np.random.default_rng(2).uniform(size=(1, 200, 200, 3))
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    rows = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750]]
    rows += [[0.0193339, 0.1191920, 0.9503041]]
    xyz = linear @ np.transpose(rows) / [0.95074, 1.0, 1.08883]
    x, y, z = np.moveaxis(np.where(xyz > 0.008867, np.cbrt(xyz), (903.3 * xyz + 16) / 116), -1, 0)
    theirs = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
    difference = np.abs(rgb_to_lab(rgb) - theirs).max((0, 1, 2))
    assert np.all(difference < [0.002, 0.05, 0.01]) and difference.max() > 0.01


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("splitbrain_caffe", lambda: CaffeAlexNet(FULL)),
        ("colorization_alexnet_caffe", lambda: CaffeAlexNet(FULL, 1)),
        (
            "colorization_caffe",
            lambda: Colorization((2, 2, 3, 3, 3, 3, 3), (64, 128, 256, *(512,) * 4), True),
        ),
    ],
)
def test_every_shape_of_the_official_network(name, module):
    from keras_ssl.zoo.published import published

    entry = next(entry for entry in published().values() if entry.layout == name)
    with torch.device("meta"):
        shapes = {key: tuple(v.shape) for key, v in module().state_dict().items()}
    with without_values():
        network = backbones.build(entry.backbone, image_size=entry.image_size, **entry.settings)
    ports = LAYOUTS[name].ports(network)
    own = [port.turn.to_source(np.zeros(port.variable.shape, bool)).shape for port in ports]
    wanted = [v for key, v in shapes.items() if v and not key.startswith("data_l")]
    assert own == wanted
    assert entry.payload == 4 * sum(int(np.prod(shape)) for shape in wanted)
    assert network.last_map == ((28, 28, 512) if name == "colorization_caffe" else (6, 6, 256))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("splitbrain_caffe", {"data_lab.0": None}, "'data_lab' and 'conv1'.*without data_lab.0"),
        ("splitbrain_caffe", {"data_lab.1": np.zeros(2)}, r"'conv1' sees, 3.*\(3,\), \(2,\)"),
        (
            "colorization_alexnet_caffe",
            {"data_l.0": None},
            "'data_l' and 'conv1'.*without data_l.0",
        ),
        ("splitbrain_caffe", {"conv3.0": np.zeros((12, 4, 3, 3))}, r"shape \(12, 8, 3, 3\)"),
        ("colorization_caffe", {"conv1_2norm.2": None}, "one factor in the layer 'conv1_2norm'"),
        ("colorization_caffe", {"conv6_1norm.2": np.zeros(2)}, r"\(10,\), \(10,\), \(2,\)"),
        ("colorization_caffe", {"conv7_1.0": None}, "without 1 of them: 'conv7_1.0'"),
        ("colorization_caffe", {"conv7_2.0": np.zeros(3)}, "1 more: 'conv7_2.0'"),
        ("colorization_torch", {"model9.0.bias": np.zeros(3)}, "1 more: 'model9.0.bias'"),
    ],
)
def test_what_is_not_the_file_is_refused(name, change, message):
    tensors, network, _ = next(row for row in ROWS if row.layout == name).make()
    before = weights_digest(network)
    changed = {k: v for k, v in {**tensors, **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        convert(changed, network, LAYOUTS[name])
    assert weights_digest(network) == before  # nothing was assigned


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("splitbrain_caffe", {"ceil_pool": False}),
        ("splitbrain_caffe", {"first_border": 2}),
        ("colorization_alexnet_caffe", {"first_norm": 1}),
        ("colorization_caffe", {"dilations": [1] * 7}),
        ("colorization_caffe", {"norm_affine": True}),
        ("colorization_torch", {"halved": 2}),
    ],
)
def test_a_network_of_another_form_is_refused(name, wrong):
    tensors, network, _ = next(row for row in ROWS if row.layout == name).make()
    other = type(network).from_config({**network.get_config(), **wrong})
    with pytest.raises(ValueError, match=f"as {name} checkpoints .* Received: {[*wrong][0]}="):
        convert(tensors, other, LAYOUTS[name])
