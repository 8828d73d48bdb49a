"""Types of arrays that several stages share."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

#: By name, such as the outputs of a split.
Arrays = dict[str, np.ndarray]
