"""Licences of published weights, and how each family prepares its images. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Licence:
    """Terms of published weights.

    Args:
        name: str. As a table shows it.
        commercial: bool. Whether commercial use is allowed; None: read the text.
        consent: bool. Whether loading asks for `accept_licence=True`.
        where: str. Where the text is.
        summary: str. What to know, in a sentence. It is no legal advice.
    """

    name: str
    commercial: bool | None
    consent: bool
    where: str
    summary: str

    def text(self) -> str:
        """Returns the terms as a sentence or two."""
        use = {True: "allowed", False: "not allowed", None: "see the text"}[self.commercial]
        consent = " Loading asks for consent." if self.consent else ""
        return f"{self.name} ({self.where}). {self.summary} Commercial use: {use}.{consent}"


LICENCES: dict[str, Licence] = {
    "apache-2.0": Licence(
        "Apache-2.0",
        True,
        False,
        "https://www.apache.org/licenses/LICENSE-2.0",
        "Keep the notices.",
    ),
    "mit": Licence("MIT", True, False, "https://opensource.org/license/mit", "Keep the notice."),
    "gpl-3.0": Licence(
        "GPL-3.0",
        True,
        False,
        "https://www.gnu.org/licenses/gpl-3.0.html",
        "The licence of the project's repository; the weights are not spoken of separately.",
    ),
    "cc-by-nc-4.0": Licence(
        "CC BY-NC 4.0",
        False,
        True,
        "https://creativecommons.org/licenses/by-nc/4.0/",
        "Name the authors; no commercial use.",
    ),
    "seer": Licence(
        "SEER licence",
        False,
        True,
        "in the VISSL repository, project SEER",
        "Non-commercial research only, with the attribution notice that it asks for, and no sublicensing.",
    ),
    "dinov3": Licence(
        "DINOv3 License",
        None,
        True,
        "LICENSE.md of facebookresearch/dinov3",
        "A licence of its own with restrictions of use; whoever passes the weights on passes a copy of the "
        "agreement on.",
    ),
    "not-stated": Licence(
        "not stated",
        None,
        True,
        "none was found",
        "The publisher states no licence for the weights; the right to use them is for you to clear.",
    ),
}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a family prepares an image for evaluation; the normalization is inside our encoders.

    Args:
        steps: str. Resize and crop, in words; `{size}` is the entry's image size.
        mean: three floats. Subtracted from RGB in [0, 1], and
        std: three floats. divides after that. Both given to the backbone.
        remark: str. What else to know.
        inside: str. What the encoder does instead of subtracting and dividing. Defaults to `""` (it does that).
    """

    steps: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    remark: str = ""
    inside: str = ""

    def text(self, image_size: int) -> str:
        """Returns the steps for images of a size, with what the encoder does itself."""
        inside = f"Inside the encoder: subtract {self.mean}, divide by {self.std}."
        if (self.mean, self.std) == (NO_MEAN, NO_STD):
            inside = "No mean and no deviation: [0, 1] goes in as it is."
        if self.inside:
            inside = f"Inside the encoder: {self.inside}."
        return " ".join([self.steps.format(size=image_size), inside, self.remark]).rstrip()


NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_TORCHVISION = "Shorter side to 256 pixels ({kernel}, antialiased), centre crop of {{size}}."
_BILINEAR = _TORCHVISION.format(kernel="bilinear")
_LIGHTNESS = "the L channel of CIE Lab is made of the image, minus 50, and seen alone"
_BICUBIC = _TORCHVISION.format(kernel="bicubic")

PREPROCESSING: dict[str, Preprocessing] = {
    "imagenet": Preprocessing(_BILINEAR),
    "imagenet_bicubic": Preprocessing(_BICUBIC),
    "swav": Preprocessing(
        _BILINEAR,
        std=(0.228, 0.224, 0.225),
        remark="The deviation of red is 0.228, not 0.229, as in the authors' code.",
    ),
    "dinov2": Preprocessing(_BICUBIC, remark="Any multiple of 14 pixels works; 518 is native."),
    "dinov3": Preprocessing("Both sides to {size} pixels (bilinear, antialiased), no crop."),
    "dinov3_satellite": Preprocessing(
        "Both sides to {size} pixels (bilinear, antialiased), no crop.",
        mean=(0.430, 0.411, 0.296),
        std=(0.213, 0.156, 0.143),
    ),
    "square": Preprocessing("Shorter side to {size} pixels (bilinear), centre crop of {size}."),
    "simclr": Preprocessing(
        "Centre crop of 87.5 % of the shorter side, resized to {size} (bicubic, not antialiased), clipped "
        "to [0, 1].",
        mean=NO_MEAN,
        std=NO_STD,
    ),
    "byol": Preprocessing(
        "Centre crop of 224/256 of the shorter side, resized to {size} (bicubic, not antialiased), clipped "
        "to [0, 1]."
    ),
    "local_aggregation": Preprocessing(
        "Centre crop of 224/256 of the shorter side, resized to {size} (area), rounded down to 8 bits."
    ),
    "sobel": Preprocessing(_BILINEAR, remark="Sobel filters are inside the network."),
    "lightness": Preprocessing(_BILINEAR, inside=_LIGHTNESS),
    "lightness_square": Preprocessing(
        "Both sides to {size} pixels (bilinear), no crop.", inside=_LIGHTNESS
    ),
    "lab": Preprocessing(
        _BILINEAR, inside="CIE Lab is made of the image, and 50 subtracted from L"
    ),
}
