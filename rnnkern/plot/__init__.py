"""Pictures with matplotlib: what happens inside a layer, and how fast it is.

Every function returns a `matplotlib.figure.Figure` and draws into `figure` or `ax` where one is given: one of
matplotlib's figures or subfigures, or axes. Nothing is shown and nothing of matplotlib's settings is changed.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'rnnkern.plot needs the package matplotlib: pip install "rnnkern[plot]" ({error})'
    ) from error

from .flow import gradient_flow
from .heat import gates
from .passage import text
from .roofs import roofline
from .speedups import speed

__all__ = ["gates", "gradient_flow", "roofline", "speed", "text"]
