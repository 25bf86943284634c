"""Networks written op by op as ONNX models."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser


class Net:
    """The text of an ONNX graph, and its constants."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def op(self, text: str, name: str = "") -> str:
        """Add a node, ``Op<attributes>(inputs)``; gives the name of its result."""
        name = name or f"t{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name

    def model(self, inputs: str, outputs: str) -> onnx.ModelProto:
        """The model with the ``inputs`` and ``outputs`` of ONNX's text form, opset 20."""
        body = "\n".join(self.lines)
        model = onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["": 20]> net ({inputs}) => ({outputs}) {{ {body} }}'
        )
        for name, array in self.constants.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return model
