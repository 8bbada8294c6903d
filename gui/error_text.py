"""An error's code as words: what is true in one sentence, what to do in one more.

Sentences that name a file or a number come from the error itself (``message`` is one sentence by contract); this
table adds the advice, and replaces messages that only a programmer would understand.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import ConsentRequired, EngineError, InternalError
from gui.language import language, mark, tr


@dataclass(frozen=True, slots=True)
class ErrorText:
    """``sentence`` says what happened, ``advice`` what to do, ``details`` is for the fold (code first)."""

    sentence: str
    advice: str
    details: str
    code: str


_ADVICE = {
    "model_not_found": mark("Check that the file is still there, then open it again."),
    "model_unreadable": mark("Check that the file is there and that you may read it."),
    "model_format_unknown": mark(
        "Deskside opens Keras, TensorFlow SavedModel, LiteRT, TorchScript, torch.export, ONNX, "
    "Hugging Face and BioImage.IO models."),
    "model_corrupt": mark("The file may be cut short. Copy or download it again, then open it once more."),
    "model_refused": mark("Save it as .keras, .safetensors, ONNX or TorchScript. Deskside never opens this kind."),
    "no_golden_sample": mark("Keep an answer that you know is right; the model is then checked against it."),
    "needs_consent": mark("Open it again and choose to run it, if you made it or trust who did."),
    "model_changed": mark("The file changed while it was being opened. Open it again."),
    "sidecar_invalid": mark("Correct the line in the .toml file beside the model, or take the file away."),
    "framework_missing": mark("Install the framework this model needs, then open it again."),
    "load_failed": mark("Details hold the last lines the model's process wrote."),
    "load_timeout": mark("The load showed no progress for a long time and was ended. Open it again."),
    "load_cancelled": mark("Nothing was opened."),
    "malformed": mark("Check the file and drop it again."),
    "unsupported_media_type": mark("Drop a kind of file this model works with."),
    "input_too_large": mark("Use a smaller file."),
    "unusable_input": mark("Check the file and drop it again."),
    "image_invalid": mark("The picture may be damaged. Save it again as PNG or JPEG."),
    "image_too_large": mark("Use a smaller picture."),
    "image_format": mark("Save it as PNG or JPEG and drop that."),
    "table_invalid": mark("Save the table again as CSV with one line of column names."),
    "column_missing": mark("Add the column, or open the model this table was made for."),
    "value_invalid": mark("Correct the value and drop the table again."),
    "invalid_shape": mark("The input does not have the shape this model takes."),
    "invalid_dtype": mark("The input does not have the number type this model takes."),
    "unknown_input": mark("Name the inputs as the model names them."),
    "model_error": mark("The model itself could not work with this input. Details hold what it said."),
    "nothing_to_predict": mark("Drop a picture or a table that holds something."),
    "quarantined": mark("This input ended the model's process before, so it is not run again."),
    "prediction_expired": mark("Run it again to change what is shown."),
    "cancelled": mark("Nothing was changed."),
    "busy": mark("Wait a moment and run it again."),
    "loading": mark("It runs once the model is ready."),
    "worker_restarted": mark("The model's process is starting again. Run it again in a moment."),
    "engine_lost": mark("Ask again: another process takes its place."),
    "draining": mark("The model is being closed."),
    "model_failed": mark("Start the model again from its chip at the top."),
    "deadline_exceeded": mark("Run it again, or give the model less to do."),
    "device_oom": mark("Close another model or program that uses the device's memory, then run it again."),
    "settings_invalid": mark("The settings stay as they were."),
    "port_in_use": mark("The server stays off until you choose."),
    "address_unavailable": mark("Check that this computer is connected to the network. The server stays off."),
    "permission_denied": mark("Choose a port from 1024 up. The server stays off."),
    "server_self_check": mark("A firewall or another program may be in the way. The server stays off."),
    "file_unreadable": mark("Check that the file is still there and that you may read it."),
    "file_too_large": mark("Use a smaller file."),
    "file_kind": mark("It stays untouched."),
    "camera_missing": mark("Connect a camera, then look again."),
    "camera_refused": mark("Allow it in the system's privacy settings, on Linux by joining the group video."),
    "camera_busy": mark("Close the program that uses it, then start again."),
    "camera_lost": mark("Check its cable, then start again."),
    "camera_support": mark("Install deskside[camera], or use another camera. Recorded clips can be played meanwhile."),
    "camera_ended": mark("Start it again; the model and your list are untouched."),
    "clip_unreadable": mark("Choose a folder of JPEG pictures, or an animated GIF, WebP or PNG."),
    "screen_refused": mark("Take a screenshot with the desktop's own tool, then paste it here with Ctrl+V."),
    "internal": mark("Copy the details and report them. The window keeps working."),
}  # fmt: skip

_SENTENCE = {
    "worker_restarted": mark("The model's process ended while it worked on this."),
    "deadline_exceeded": mark("The model took too long for this one."),
    "internal": mark("Something in Deskside went wrong."),
}


_ANY = mark("That did not work.")
_GENERAL = {
    "model_not_found": mark("The model is not there."),
    "model_unreadable": mark("The model cannot be read."),
    "model_format_unknown": mark("This is no model that Deskside opens."),
    "model_corrupt": mark("The model's file is damaged."),
    "model_refused": mark("This kind of model is refused."),
    "no_golden_sample": mark("No answer is kept for this model."),
    "needs_consent": mark("This model is a program and was not agreed to."),
    "model_changed": mark("The model's file changed."),
    "sidecar_invalid": mark("The file beside the model holds a mistake."),
    "framework_missing": mark("A framework is missing."),
    "load_failed": mark("The model could not be loaded."),
    "load_timeout": mark("Loading took too long."),
    "load_cancelled": mark("The load was cancelled."),
    "malformed": mark("The input cannot be understood."),
    "unsupported_media_type": mark("This model does not take this kind of file."),
    "input_too_large": mark("The input is too large."),
    "unusable_input": mark("The model cannot use this input."),
    "image_invalid": mark("This is not a picture that can be opened."),
    "image_too_large": mark("The picture is too large."),
    "image_format": mark("This kind of picture is not opened."),
    "table_invalid": mark("The table cannot be read."),
    "column_missing": mark("The table lacks a column."),
    "value_invalid": mark("A value of the table does not fit its column."),
    "invalid_shape": mark("The input has the wrong shape."),
    "invalid_dtype": mark("The input has the wrong number type."),
    "unknown_input": mark("The model has no such input."),
    "model_error": mark("The model could not answer this."),
    "nothing_to_predict": mark("There is nothing to ask the model about."),
    "quarantined": mark("This input is not run again."),
    "prediction_expired": mark("This answer is no longer kept."),
    "cancelled": mark("It was cancelled."),
    "busy": mark("The model has too much to do."),
    "loading": mark("The model is still being loaded."),
    "engine_lost": mark("The engine's process has ended."),
    "draining": mark("The model is being closed."),
    "model_failed": mark("The model has stopped."),
    "device_oom": mark("The device's memory is full."),
    "settings_invalid": mark("A setting is not valid."),
    "port_in_use": mark("The port is in use by another program."),
    "address_unavailable": mark("The network address is not there."),
    "permission_denied": mark("The system does not allow this port."),
    "server_self_check": mark("The server did not answer its own question."),
}
"""What an error of the engine is, where its own sentence is in another language than the window's."""


class FileProblem(EngineError):
    """A dropped file that never reached the engine. ``code`` is file_unreadable, file_too_large or file_kind."""

    code = "file_unreadable"


CAMERA_CODES = frozenset(code for code in _ADVICE if code.startswith(("camera_", "clip_")))


class FrameProblem(EngineError):
    """A camera, a clip or the screen gives no picture. ``code`` is one of ``CAMERA_CODES``, or screen_refused."""

    code = "camera_ended"


def error_text(error: BaseException) -> ErrorText:
    """The words for ``error``; anything that is no EngineError counts as ``internal``."""
    if not isinstance(error, EngineError):
        error = InternalError(f"{type(error).__name__}: {error}")
    told, advice = _SENTENCE.get(error.code), tr(_ADVICE.get(error.code, ""))
    sentence = tr(told) if told else error.message or tr("Something went wrong.")
    if language() != "en" and not told and not isinstance(error, FileProblem | FrameProblem):
        # The engine speaks English, to scripts as to the log; what it says of this one case is quoted.
        sentence = tr(_GENERAL.get(error.code, _ANY))
        advice = f"{advice} “{error.message}”" if error.message else advice
    lines = [f"code     {error.code}", f"message  {error.message}"]
    if isinstance(error, ConsentRequired) and error.fingerprint:
        lines.append(f"sha256   {error.fingerprint}")
    if error.details:
        lines += ["", error.details]
    return ErrorText(sentence, advice, "\n".join(lines), error.code)
