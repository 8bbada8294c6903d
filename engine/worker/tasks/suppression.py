"""Of boxes that show the same thing, only the best stays: the ONNX operator NonMaxSuppression, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CANDIDATES = 30_000
"""The best so many boxes are compared with each other, as Ultralytics does (``max_nms``)."""


class NonMaxSuppression:
    """Greedy suppression within each class. Loads ONNX Runtime when it is made, on one thread of the caller."""

    def __init__(self) -> None:
        import onnxruntime
        from onnx import TensorProto, helper

        kinds = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "most": TensorProto.INT64,
                 "iou": TensorProto.FLOAT}  # fmt: skip
        shapes: dict[str, list[str | int | None]] = {
            "boxes": [1, "n", 4],
            "scores": [1, 1, "n"],
            "most": [1],
            "iou": [1],
        }
        graph = helper.make_graph(
            [helper.make_node("NonMaxSuppression", list(kinds), ["kept"])],
            "suppression",
            [helper.make_tensor_value_info(name, kind, shapes[name]) for name, kind in kinds.items()],
            [helper.make_tensor_value_info("kept", TensorProto.INT64, ["k", 3])],
        )
        # Opset 13 and IR 8 are read by every ONNX Runtime of the last years.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(
        self, boxes: NDArray[np.float64], scores: NDArray[np.float64], classes: NDArray[np.int64], iou: float
    ) -> NDArray[np.int64]:
        """Which of the boxes stay, best first; of equal scores the first. Boxes are (N, 4), xmin, ymin, xmax, ymax.

        Two boxes are one where their intersection over union is above ``iou``.
        """
        order = np.argsort(-scores, kind="stable")[:MOST_CANDIDATES]
        kept = np.zeros(len(scores), dtype=bool)
        for number in np.unique(classes[order]):
            mine = order[classes[order] == number]
            # Descending ranks in place of the scores: two that differ only in float64 keep their order.
            ranks = np.arange(len(mine), 0, -1, dtype=np.float32)
            (found,) = self._session.run(
                None,
                {
                    "boxes": boxes[mine].astype(np.float32)[np.newaxis],
                    "scores": ranks[np.newaxis, np.newaxis],
                    "most": np.array([len(mine)], dtype=np.int64),
                    "iou": np.array([iou], dtype=np.float32),
                },
            )
            kept[mine[found[:, 2]]] = True
        return order[kept[order]].astype(np.int64)
