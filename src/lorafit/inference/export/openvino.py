"""A graph in OpenVINO's own form."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit.system.extras import require

if TYPE_CHECKING:
    import onnx


def write_for_openvino(model: "onnx.ModelProto", path: Path) -> None:
    """Write a graph as OpenVINO's intermediate representation, what is in fp32 as fp16.

    Args:
        model: As `build_graph`, `trace_graph` or `quantize_statically` makes it.
        path: The `.xml`; the weights go into the `.bin` beside it.
    """
    openvino: Any = require("openvino", extra="openvino", purpose="Exporting for OpenVINO")
    openvino.save_model(openvino.Core().read_model(model.SerializeToString()), str(path), compress_to_fp16=True)
