"""Detectors as TensorFlow's Object Detection API exports them: a SavedModel, and LiteRT with its own operator.

What they find is the brightest rectangle of the picture, so that a test knows where it is. Shapes, names and types are
those of exporter_lib_v2.py and export_tflite_graph_lib_tf2.py in tensorflow/models (research/object_detection).

``python -m tests.engine.worker.make_tensorflow_detectors FOLDER`` leaves ``saved/saved_model`` and
``lite/lite.tflite``, each with a ``labels.txt``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import tensorflow as tf

MOST = 10
SIDE = 64
POST_PROCESS = (
    'name: "TFLite_Detection_PostProcess" attr { key: "max_detections" value { i: 10 } } '
    'attr { key: "max_classes_per_detection" value { i: 1 } } attr { key: "use_regular_nms" value { b: false } } '
    'attr { key: "nms_score_threshold" value { f: 0.1 } } attr { key: "nms_iou_threshold" value { f: 0.6 } } '
    'attr { key: "y_scale" value { f: 10.0 } } attr { key: "x_scale" value { f: 10.0 } } '
    'attr { key: "h_scale" value { f: 5.0 } } attr { key: "w_scale" value { f: 5.0 } } '
    'attr { key: "num_classes" value { i: 2 } }'
)


def brightest(grey: Any) -> Any:
    """(ymin, xmin, ymax, xmax) as shares, of what is brighter than the middle of (height, width) from 0 to 255."""
    bright = tf.cast(grey > 127.0, tf.float32)
    edges = []
    for axis in (1, 0):
        seen = tf.where(tf.reduce_max(bright, axis=axis) > 0)[:, 0]
        length = tf.cast(tf.shape(grey)[1 - axis], tf.float32)
        first, last = tf.cast(tf.reduce_min(seen), tf.float32), tf.cast(tf.reduce_max(seen) + 1, tf.float32)
        edges.append((first / length, last / length))
    (ymin, ymax), (xmin, xmax) = edges
    return tf.stack([ymin, xmin, ymax, xmax])


class Detector(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8, name="input_tensor")])  # type: ignore[untyped-decorator]
    def find(self, input_tensor: Any) -> Any:
        box = brightest(tf.reduce_mean(tf.cast(input_tensor[0], tf.float32), axis=2))
        rest = MOST - 1
        return {
            "detection_boxes": tf.concat([box[None], tf.zeros([rest, 4])], 0)[None],
            "detection_scores": tf.concat([[0.9], tf.zeros([rest])], 0)[None],
            "detection_classes": tf.ones([1, MOST]) * 2.0,
            "num_detections": tf.constant([float(MOST)]),
            "raw_detection_boxes": tf.zeros([1, 50, 4]),
            "raw_detection_scores": tf.zeros([1, 50, 3]),
        }


class Lite(tf.Module):  # type: ignore[misc]  # as above
    """One anchor that is the whole picture; the operator decodes the box that is put in relation to it."""

    @tf.function(experimental_implements=POST_PROCESS)  # type: ignore[untyped-decorator]
    def post_process(self, boxes: Any, scores: Any, anchors: Any) -> Any:
        return (
            tf.zeros([1, MOST, 4]) + tf.reduce_sum(boxes) + tf.reduce_sum(anchors),
            tf.zeros([1, MOST]) + tf.reduce_sum(scores),
            tf.zeros([1, MOST]),
            tf.zeros([1]),
        )

    @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, name="normalized_input_image_tensor")])  # type: ignore[untyped-decorator]
    def find(self, image: Any) -> Any:
        bright = tf.cast(tf.reduce_mean(image, axis=3)[0] > 0.5, tf.float32)
        places = (tf.range(SIDE, dtype=tf.float32) + 0.5) / SIDE
        rows, columns = tf.reduce_max(bright, axis=1), tf.reduce_max(bright, axis=0)
        y, x = (tf.reduce_sum(seen * places) / tf.reduce_sum(seen) for seen in (rows, columns))
        height, width = tf.reduce_sum(rows) / SIDE, tf.reduce_sum(columns) / SIDE
        # How far its middle is from the anchor's and by what it is larger: box_coders/faster_rcnn_box_coder.py.
        code = tf.stack([(y - 0.5) * 10.0, (x - 0.5) * 10.0, tf.math.log(height) * 5.0, tf.math.log(width) * 5.0])
        anchors = tf.constant([[0.5, 0.5, 1.0, 1.0]])
        boxes, classes, scores, count = self.post_process(code[None, None], tf.constant([[[0.0, 0.2, 0.8]]]), anchors)
        # As TensorFlow 2's exports do, in an order that no name tells.
        return scores, boxes, count, classes


def main(folder: Path) -> None:
    (folder / "saved").mkdir()
    (folder / "lite").mkdir()
    detector = Detector()
    tf.saved_model.save(detector, str(folder / "saved" / "saved_model"), signatures={"serving_default": detector.find})
    (folder / "saved" / "labels.txt").write_text("cat\ndog\n")
    lite = Lite()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([lite.find.get_concrete_function()], lite)
    converter.allow_custom_ops = True
    (folder / "lite" / "lite.tflite").write_bytes(converter.convert())
    (folder / "lite" / "labels.txt").write_text("cat\ndog\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
