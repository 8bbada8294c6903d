"""From an item of a batch (bytes and their type, rows, or tensors) to the tensors the model takes.

Which body means what is settled in the contract ("HTTP, native routes"); an item from the window goes the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from engine.codecs import arrays, json_inputs, media_types, multipart
from engine.codecs.parquet import parse_parquet
from engine.codecs.tables import parse_csv
from engine.codecs.texts import check_text, decode_text
from engine.codecs.wire_inputs import ModelFace, WireInputs
from engine.errors import EngineError, Malformed, UnsupportedMediaType, UnusableInput
from engine.model_spec import ModelSpec
from engine.prediction import Wire
from engine.protocol import Buffer
from engine.tensors import unpack_tensor
from engine.worker import drawing
from engine.worker.tasks.base import CONTEXT, Arrays, TakesAudio, TakesText, Task, Windows
from engine.worker.work import Block, Form, Work

_IMAGE = "image/"
_AUDIO = "audio/"
WIRES = {
    str(Wire.OPEN_INFERENCE): "engine.codecs.open_inference",
    str(Wire.TENSORFLOW_SERVING): "engine.codecs.tensorflow_serving",
}
"""Modules by protocol: imported when the first body of theirs comes. What they check bodies with takes a tenth of a
second to import, for which every load would wait."""


class InputReader:
    """Reads items for one model. Its declared inputs are those of ``spec``, none where nothing declares them."""

    def __init__(self, task: Task, spec: ModelSpec) -> None:
        self._task = task
        self._inputs = inputs = spec.inputs
        self._rows_are_free = bool(inputs) and all(t.shape and t.shape[0] == -1 for t in inputs)
        self._face = ModelFace(
            spec.id,
            inputs,
            spec.outputs,
            spec.signatures,
            images=task.takes_images,
            texts=isinstance(task, TakesText),
            tables=task.takes_tables,
        )

    def read(self, header: Mapping[str, Any], buffers: Sequence[Buffer]) -> Work:
        """One item of a ``batch`` message with its buffers. Raises EngineError where the whole item is unusable."""
        draw = header.get("draw") is True
        params = self._task.read_params((header.get("params") or {}) | (drawing.PARAMS if draw else {}))
        work = Work(str(header["id"]), Form.PREDICTIONS, params, draw=draw)
        kind = header["kind"]
        if (wire := header.get("wire")) is not None:
            self._read_wire(work, bytes(buffers[0]), wire)
        elif kind == "bytes":
            self._read_bytes(work, bytes(buffers[0]), header.get("content_type"))
        elif kind == "rows":
            self._read_rows(work, json_inputs.check_rows(json_inputs.parse_json(buffers[0])).rows)
        else:
            named = dict(unpack_tensor(t, b) for t, b in zip(header["tensors"], buffers, strict=True))
            self._read_tensors(work, named)
        if draw and (work.picture is None or work.inputs != 1):
            raise UnsupportedMediaType("An answer is drawn over one picture, and that was not one.")
        return work

    def _read_bytes(self, work: Work, data: bytes, content_type: str | None, *, inside_form: bool = False) -> None:
        stated = media_types.media_type(content_type)
        if stated == media_types.MULTIPART and not inside_form:
            self._read_form(work, multipart.parse_files(data, content_type or ""))
            return
        if not data:
            raise UnusableInput("The input is empty (0 bytes).", code="nothing_to_predict")
        kind = self._recognise(data) if stated in (None, media_types.OCTET_STREAM) else stated
        if kind == media_types.JSON:
            self._read_json(work, data)
        elif kind == media_types.NPY:
            self._read_tensors(work, {self._only_input(): arrays.read_npy(data)})
        elif kind == media_types.NPZ:
            self._read_tensors(work, arrays.read_npz(data))
        elif kind == media_types.CSV and self._task.takes_tables:
            table = parse_csv(data)
            rows = [dict(zip(table.columns, cells, strict=True)) for cells in table.rows]
            self._read_rows(work, rows, decimal_comma=table.decimal_comma)
            work.form = Form.RESULTS
        elif kind == media_types.PARQUET and self._task.takes_tables:
            columns = parse_parquet(data)
            self._read_rows(work, [dict(zip(columns.columns, cells, strict=True)) for cells in columns.rows])
            work.form = Form.RESULTS
        elif kind is not None and kind.startswith(_IMAGE) and self._task.takes_images:
            self._add_image(work, data)
        elif kind == media_types.TEXT and isinstance(self._task, TakesText):
            text = decode_text(data, media_types.charset(content_type) if stated == media_types.TEXT else None)
            self._add_windows(work, self._task.from_text(text))
        elif kind is not None and kind.startswith(_AUDIO) and isinstance(self._task, TakesAudio):
            self._add_windows(work, self._task.from_audio(data))
        else:
            raise self._unsupported(kind or stated)

    def _read_wire(self, work: Work, data: bytes, wire: Mapping[str, Any]) -> None:
        """The body of a public protocol: the model's own tensors, or encoded inputs for the task's preprocessing."""
        given: WireInputs = import_module(WIRES[wire["protocol"]]).read(data, wire, self._face)
        work.echo = given.echo
        if given.rows:
            self._read_rows(work, given.rows)
        elif given.encoded or given.texts:
            for picture in given.encoded:
                self._add_image(work, picture)
            for text in given.texts:
                assert isinstance(self._task, TakesText)
                self._add_windows(work, self._task.from_text(check_text(text)))
        else:
            self._read_tensors(work, given.tensors)
            return
        work.form = Form.RESULTS if given.answers else Form.OUTPUTS
        if not given.answers and any(b.rows != 1 or b.source or b.reduce for b in work.blocks):
            raise UnusableInput(
                "The model sees this input in pieces, which have no outputs of their own: ask at /predict.",
                code="invalid_shape",
            )

    def _recognise(self, data: bytes) -> str | None:
        """The type by the first bytes; what they do not tell is read as what this task takes."""
        kind = media_types.recognise(data)
        if kind is None and self._task.takes_images:
            return _IMAGE + "*"  # the decoder says best what is wrong with it
        if kind is None and isinstance(self._task, TakesAudio):
            return _AUDIO + "*"
        if kind is None and isinstance(self._task, TakesText):
            return media_types.TEXT
        if kind is None and self._task.takes_tables and media_types.looks_like_text(data):
            return media_types.CSV
        return kind

    def _unsupported(self, kind: str | None) -> UnsupportedMediaType:
        takes = "an image, " if self._task.takes_images else "CSV, Parquet, " if self._task.takes_tables else ""
        takes += "text, " if isinstance(self._task, TakesText) else ""
        takes += "a recording, " if isinstance(self._task, TakesAudio) else ""
        what = f"input of type {kind}" if kind else "this input, whose type could not be recognised"
        return UnsupportedMediaType(f"This model does not take {what}; it takes {takes}.npy, .npz or JSON.")

    def _add_image(self, work: Work, data: bytes) -> None:
        prepared = self._task.from_image(data)
        work.picture = data if work.draw else None
        if isinstance(prepared, Windows):
            self._add_windows(work, prepared)
            return
        tensors = dict(prepared)
        context = tensors.pop(CONTEXT, None)
        work.blocks.append(Block(tensors, 1, [work.inputs], context=context))
        work.inputs += 1

    def _add_windows(self, work: Work, windows: Windows) -> None:
        context = None
        if windows.context:
            context = np.empty(windows.rows, dtype=object)
            context[:] = windows.context
        slots = [work.inputs] * windows.rows
        block = Block(windows.arrays, windows.rows, slots, windows=True, context=context)
        block.source, block.reduce = windows.source, windows.reduce
        work.blocks.append(block)
        work.inputs += 1

    def _read_json(self, work: Work, data: bytes) -> None:
        body = json_inputs.parse_input(data)
        if isinstance(body, json_inputs.ImageBytes):
            if not self._task.takes_images:
                raise UnsupportedMediaType("This model does not take an image.")
            self._add_image(work, body.data)
        elif isinstance(body, json_inputs.Text):
            if not isinstance(self._task, TakesText):
                raise UnsupportedMediaType("This model does not take text.")
            self._add_windows(work, self._task.from_text(check_text(body.text)))
        elif isinstance(body, json_inputs.Rows):
            self._read_rows(work, body.rows)
        else:
            declared = {tensor.name: tensor for tensor in self._inputs}
            if declared:
                arrays.check_names(body.values, self._inputs)
            named = {n: arrays.nested_to_array(n, v, declared.get(n)) for n, v in body.values.items()}
            self._read_tensors(work, named)

    def _read_rows(self, work: Work, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> None:
        if not self._task.takes_tables:
            raise UnsupportedMediaType("This model does not take rows of a table.")
        table = self._task.from_table(rows, decimal_comma=decimal_comma)
        first = work.inputs
        work.inputs += len(rows)
        if len(rows) > 1:
            work.form = Form.RESULTS
        work.errors |= {first + number: error for number, error in table.errors.items()}
        if table.numbers:
            work.blocks.append(Block(table.arrays, len(table.numbers), [first + n for n in table.numbers]))

    def _read_tensors(self, work: Work, named: Arrays) -> None:
        fitted = arrays.fit_inputs(named, self._inputs)
        work.form = Form.OUTPUTS
        rows = {len(a) for a in fitted.values() if a.ndim}
        if not fitted or 0 in rows:
            raise UnusableInput("The tensors hold no rows.", code="nothing_to_predict")
        if self._rows_are_free and len(rows) > 1:
            raise UnusableInput("The inputs differ in their first dimension, the rows.", code="invalid_shape")
        count = max(rows, default=1)
        work.blocks.append(Block(fitted, count, [0] * count, whole=not self._rows_are_free, row_by_row=False))
        work.inputs += 1

    def _only_input(self) -> str:
        if len(self._inputs) > 1:
            names = ", ".join(repr(t.name) for t in self._inputs)
            raise UnusableInput(
                f"One array says not which input it is: the model takes {names}; send them as .npz.",
                code="unknown_input",
            )
        return self._inputs[0].name if self._inputs else "input"

    def _read_form(self, work: Work, files: list[multipart.FilePart]) -> None:
        if len(files) == 1:
            self._read_bytes(work, files[0].data, files[0].content_type, inside_form=True)
            return
        for file in files:
            part = Work(work.id, Form.PREDICTIONS, work.params)
            first = work.inputs
            try:
                self._read_bytes(part, file.data, file.content_type, inside_form=True)
                if part.form is Form.OUTPUTS:
                    raise Malformed("A form takes one file of tensors, not several.")
            except EngineError as error:
                work.errors[first] = error
                work.inputs += 1
                continue
            for block in part.blocks:
                block.slots = [first + slot for slot in block.slots]
            work.blocks.extend(part.blocks)
            work.errors |= {first + slot: error for slot, error in part.errors.items()}
            work.inputs += part.inputs
        work.form = Form.RESULTS
