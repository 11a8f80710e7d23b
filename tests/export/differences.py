"""How far two arrays are apart."""

import numpy as np


def largest_difference(expected, received):
    return float(np.abs(received - expected).max() / np.abs(expected).max())
