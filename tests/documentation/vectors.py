"""The case that the page on vectors shows: `python -m tests.documentation.vectors` writes it anew."""

import json
import re
from pathlib import Path

import numpy as np

from conformance.cases import Case
from conformance.oracle import permitted, permitted_gradients
from conformance.vectors.encoding import encoded
from conformance.vectors.recorder import Demand

PAGE = Path(__file__).parent.parent.parent / "docs" / "vectors.md"
BLOCK = re.compile(r"(?<=<!-- case -->\n).*?(?=<!-- end of case -->)", re.DOTALL)


def example() -> str:
    """A small case as it stands in a file, with line breaks."""
    arguments = {"logprobs": np.array([[-0.5, -2.0]]), "ref_logprobs": np.array([[-1.5, -2.0]])}
    options = {"estimator": "k3", "log_ratio_clip": 20.0, "value_clip": None}
    case, upstream = Case("kl_estimate", arguments, options, "float32", "generic"), np.array([[0.5, -1.0]])
    demand = Demand(case, ("kl.estimators",), permitted(case), upstream, permitted_gradients(case, upstream))
    lines = (f' "{key}": {json.dumps(value)}' for key, value in encoded(demand).items())
    return "```json\n{\n" + ",\n".join(lines) + "\n}\n```\n"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda _: example(), page), encoding="utf-8")
