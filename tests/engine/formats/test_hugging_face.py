"""Folders of transformers: what their JSON says, and one sentence for what is missing, damaged or not to be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import identity
from engine.errors import ModelCorrupt, ModelRefused
from engine.formats import describe_model
from engine.model_spec import ModelSpec, TensorSpec, TrustClass
from tests.engine.formats.test_describe import complete
from tests.engine.formats.weights import BERT, PROCESSOR, VIT, WEIGHTS, entry, folder_of, safetensors

Copied = Callable[..., Path]


def refusal(path: Path, error: type[Exception] = ModelCorrupt) -> str:
    """The sentence of a folder or file that does not open."""
    with pytest.raises(error) as caught:
        describe_model(path)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert str(path.parent) not in sentence
    return sentence


def opened(path: Path) -> ModelSpec:
    return complete(describe_model(path))


def test_a_picture_classifier_says_it_all(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "Zoo", preprocessor_config__json=PROCESSOR)
    spec = opened(folder)
    assert (spec.format, spec.runtime, spec.trust_class) == ("hugging_face", "transformers", TrustClass.DATA)
    assert (spec.path, spec.model_file, spec.task) == (folder, folder, "image-classification")
    assert spec.labels == ("cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "kite", "lynx", "yak")
    assert spec.inputs == (TensorSpec("pixel_values", "float32", (-1, 3, -1, -1)),)
    assert spec.outputs == (TensorSpec("logits", "float32", (-1, 11)),)
    assert spec.architecture == "ViTForImageClassification"
    how = spec.preprocessing
    assert (how.size, how.resize, how.crop, how.resample) == ((48, 40), "stretch", "none", "bilinear")
    assert (how.layout, how.channel_order, how.scaling) == ("nchw", "rgb", "0..1")
    assert (how.mean, how.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert spec.postprocessing.activation == "softmax"
    assert spec.evidence["preprocessing.size"] == "preprocessor_config.json: size"
    assert spec.evidence["preprocessing.mean"] == "preprocessor_config.json: image_mean"
    assert spec.evidence["preprocessing.std"] == "preprocessor_config.json: image_processor_type"
    assert spec.evidence["labels"] == "config.json: id2label"
    assert spec.evidence["task"] == "config.json: architectures (ViTForImageClassification: image-classification)"
    assert {f.name for f in spec.files} == {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_its_folder_its_weights_and_its_config_are_one_model(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "Zoo", pytorch_model__bin=WEIGHTS, optimizer__pt=b"x")
    for path in (folder, folder / "config.json", folder / "model.safetensors", folder / "pytorch_model.bin"):
        assert describe_model(path).model_file == folder
        assert identity.model_location(path) == folder
        assert identity.base_id(path) == "zoo"
    assert identity.model_location(folder / "optimizer.pt") == folder / "optimizer.pt"


def test_the_library_s_cache_of_links_is_a_folder_too(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "real")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in folder.iterdir():
        blob = tmp_path / f"blob-{file.stem}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(blob)
    for path in (snapshot, snapshot / "model.safetensors"):
        assert describe_model(path).model_file == snapshot
        assert identity.model_location(path) == snapshot


@pytest.mark.parametrize(
    ("change", "activation", "width"),
    [
        ({"problem_type": "multi_label_classification"}, "sigmoid", 11),
        ({"id2label": {"0": "alone"}}, "sigmoid", 1),
        ({"id2label": None}, "softmax", 2),
        ({"id2label": {"0": "a", "2": "b"}}, "softmax", 2),
        ({"id2label": None, "num_labels": 7}, "softmax", 7),
    ],
)
def test_classes_and_activation(tmp_path: Path, change: dict[str, Any], activation: str, width: int) -> None:
    spec = opened(folder_of(tmp_path / "zoo", VIT | change))
    assert spec.postprocessing.activation == activation
    assert spec.outputs[0].shape == (-1, width)
    assert spec.evidence["labels"] == ("config.json: id2label" if spec.labels else "assumed")


def test_without_its_processor_the_preparation_is_assumed_and_says_why(tmp_path: Path) -> None:
    spec = opened(folder_of(tmp_path / "zoo"))
    assert spec.preprocessing.size == (32, 32)
    assert spec.evidence["preprocessing.size"] == "config.json: image_size"
    for field in ("scaling", "mean", "std", "resize"):
        assert spec.evidence[f"preprocessing.{field}"] == "assumed (preprocessor_config.json is missing)"
    unknown = folder_of(tmp_path / "odd", preprocessor_config__json={"image_processor_type": "OddImageProcessor"})
    assert opened(unknown).evidence["preprocessing.scaling"] == "assumed (the steps of Odd are not known)"


@pytest.mark.parametrize(
    ("config", "task", "inputs"),
    [
        (BERT | {"architectures": ["BertForMaskedLM"]}, "fill-mask", ["input_ids", "attention_mask"]),
        (VIT | {"architectures": ["GroundingDinoForObjectDetection"]}, "object-detection", ["pixel_values"]),
        (VIT | {"architectures": ["OneFormerForUniversalSegmentation"]}, "image-segmentation", ["pixel_values"]),
        (VIT | {"architectures": ["DepthProForDepthEstimation"]}, "depth-estimation", ["pixel_values"]),
        (VIT | {"architectures": ["ViTModel"]}, "image-feature-extraction", ["pixel_values"]),
        ({"architectures": ["Wav2Vec2ForCTC"], "conv_dim": [4]}, "automatic-speech-recognition", []),
    ],
)
def test_other_tasks_are_named_and_take_tensors(
    tmp_path: Path, config: dict[str, Any], task: str, inputs: list[str]
) -> None:
    spec = opened(folder_of(tmp_path / "model", config, vocab__txt=b"[PAD]\n"))
    assert spec.task == "raw-tensors"
    assert spec.evidence["task"] == f"config.json: architectures ({config['architectures'][0]}: {task})"
    assert [tensor.name for tensor in spec.inputs] == inputs


def test_a_tokenizer_names_the_inputs(tmp_path: Path) -> None:
    names = ["input_ids", "token_type_ids", "attention_mask"]
    spec = opened(folder_of(tmp_path / "m", BERT, vocab__txt=b"x", tokenizer_config__json={"model_input_names": names}))
    assert [tensor.name for tensor in spec.inputs] == names
    assert spec.evidence["inputs"] == "tokenizer_config.json: model_input_names"


# What is missing, damaged or not to be trusted


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"model__safetensors": None}, "zoo has a config.json but no weights: expected model.safetensors or"),
        ({"model__safetensors": None, "tf_model__h5": b"x"}, "but no weights, only those of TensorFlow (tf_model.h5)"),
        ({"config": None, "pytorch_model__bin": b"x"}, "zoo has weights but no config.json"),
        ({"config": BERT}, "zoo has no tokenizer, without which BertForSequenceClassification understands no text"),
        ({"config": b"{"}, "config.json in zoo is not JSON"),
        ({"config": b"[" * 100_000}, "config.json in zoo is not JSON"),
        ({"config": b"[]"}, "config.json in zoo is not a JSON object"),
        ({"config": {"model_type": "vit"}}, "config.json in zoo names no architectures"),
        (
            {"preprocessor_config__json": PROCESSOR | {"size": "large"}},
            "preprocessor_config.json in zoo: size: expected",
        ),
        ({"preprocessor_config__json": PROCESSOR | {"image_mean": [1]}}, "image_mean: expected 3 numbers"),
        ({"preprocessor_config__json": PROCESSOR | {"resample": 9}}, "resample: expected a number from 0 to 5"),
        ({"preprocessor_config__json": PROCESSOR | {"image_std": 0}}, "image_std: expected numbers above 0"),
        ({"preprocessor_config__json": PROCESSOR | {"do_resize": 1}}, "do_resize: expected true or false"),
        (
            {"preprocessor_config__json": PROCESSOR | {"rescale_factor": -1}},
            "rescale_factor: expected a number above 0",
        ),
        ({"model__safetensors": WEIGHTS[:-1]}, "model.safetensors cannot be opened, 'b' reaches past its end"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(folder_of(tmp_path / "zoo", **files))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config": VIT | {"auto_map": {"AutoModel": "modeling.Net"}}}, "its model is Python code of its own"),
        (
            {"preprocessor_config__json": PROCESSOR | {"auto_map": {"AutoImageProcessor": "x.Y"}}},
            "is Python code of its own",
        ),
        (
            {"config": VIT | {"vision": [{"_attn_implementation": "some-body/kernel"}]}},
            "asks for code from the network",
        ),
        (
            {"config": VIT | {"architectures": ["os.system"]}},
            "names the class 'os.system', which is none of the models",
        ),
        ({"config": VIT | {"architectures": ["Trainer"]}}, "names the class 'Trainer', which is none of the models"),
    ],
)
def test_code_is_refused(tmp_path: Path, files: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(folder_of(tmp_path / "zoo", **files), ModelRefused)


def test_a_pickled_object_is_refused_whatever_it_is_called(tmp_path: Path, models: Path) -> None:
    whole, weights = ((models / name).read_bytes() for name in ("whole.pt", "weights.pt"))
    bad = folder_of(tmp_path / "bad", model__safetensors=None, pytorch_model__bin=whole)
    assert "pytorch_model.bin is refused: it is a pickled Python object (torch.nn" in refusal(bad, ModelRefused)
    legacy = (models / "legacy.pt").read_bytes()
    old = folder_of(tmp_path / "old", model__safetensors=None, pytorch_model__bin=legacy)
    assert "it is a pickle as PyTorch wrote them before 1.6" in refusal(old, ModelRefused)
    good = folder_of(tmp_path / "good", model__safetensors=None, pytorch_model__bin=weights)
    assert describe_model(good).trust_class is TrustClass.DATA


def shards(**changes: Any) -> dict[str, Any]:
    files: dict[str, Any] = {
        "model__safetensors": None,
        "model-1-of-2__safetensors": safetensors({"w": entry([2], 0)}, bytes(8)),
        "model-2-of-2__safetensors": safetensors({"b": entry([1], 0)}, bytes(4)),
        "model__safetensors__index__json": {
            "weight_map": {"w": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
        },
    }
    return files | changes


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "zoo", **shards())
    spec = opened(folder)
    assert sum(f.name.startswith("model-") for f in spec.files) == 2
    assert describe_model(folder / "model-1-of-2.safetensors").model_file == folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model-2-of-2__safetensors": None}, "zoo lacks model-2-of-2.safetensors, one of the 2 files of its weights"),
        ({"model-2-of-2__safetensors": safetensors({}, b"")}, "lacks 'b', which model.safetensors.index.json says"),
        ({"model-2-of-2__safetensors": b"x"}, "model-2-of-2.safetensors cannot be opened, it is cut off"),
        (
            {"model__safetensors__index__json": {"weight_map": {"w": "../other/model.safetensors"}}},
            "which is no file of weights in it",
        ),
        ({"model__safetensors__index__json": {"weight_map": {"w": "/dev/zero"}}}, "which is no file of weights in it"),
        ({"model__safetensors__index__json": {}}, "is damaged: it has no weight_map"),
    ],
)
def test_shards_that_are_not_there(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    folder_of(tmp_path / "other")  # a real file outside, which an index must not reach
    assert sentence in refusal(folder_of(tmp_path / "zoo", **shards(**changes)))


# The header of safetensors


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x01", "it is cut off or is of another kind"),
        (b"\xff" * 20, "it is cut off or is of another kind"),
        (safetensors(b" {}", b""), "its header is not JSON"),
        (safetensors(b"{", b""), "its header is not JSON"),
        (safetensors(b"{" + b'"a":' * 100_000, b""), "its header is not JSON"),
        (safetensors(b'{"a":{},"a":{}}', b""), "names a tensor twice"),
        (safetensors({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "the entry of 'a' in its header is damaged"),
        (safetensors({"a": entry([1], 0, "PICKLE")}, bytes(4)), "the entry of 'a' in its header is damaged"),
        (safetensors({"a": entry([-1], 0)}, bytes(4)), "the entry of 'a' in its header is damaged"),
        (safetensors({"a": entry([True], 0)}, bytes(4)), "the entry of 'a' in its header is damaged"),
        (safetensors({"a": entry([1] * 33, 0)}, bytes(4)), "the entry of 'a' in its header is damaged"),
        (safetensors({"a": entry([2], 0, "F16")}, bytes(8)), "'a' in it is not as long as its shape and dtype say"),
        (safetensors({"a": entry([1 << 40, 1 << 40], 0)}, bytes(8)), "damaged"),
        (safetensors({"a": entry([3], 0)}, bytes(8)), "'a' reaches past its end"),
        (
            safetensors({"a": entry([2], 0), "b": entry([1], 4)}, bytes(8)),
            "'b' overlaps another tensor or leaves a gap",
        ),
        (
            safetensors({"a": entry([1], 0), "b": entry([1], 8)}, bytes(12)),
            "'b' overlaps another tensor or leaves a gap",
        ),
        (safetensors({"a": entry([1], 0)}, bytes(5)), "bytes follow its last tensor"),
        (safetensors({str(i): entry([0], 0) for i in range(20_001)}, b""), "it holds more than 20,000 tensors"),
        (safetensors(b"{" + b" " * (8 << 20) + b"}", b""), "its header is larger than 8 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_header_that_promises_too_much(tmp_path: Path, data: bytes, sentence: str) -> None:
    file = tmp_path / "net.safetensors"
    file.write_bytes(data)
    assert sentence in refusal(file)


# Loose weights


SIDECAR = 'architecture = "code/net.py:Net"\n[architecture_kwargs]\nwidth = 4\n'


def with_code(copied: Copied, sidecar: str = SIDECAR) -> Path:
    weights = copied("weights.pt")
    (weights.parent / "code").mkdir()
    (weights.parent / "code" / "net.py").write_text("raise SystemExit('never run here')")
    (weights.parent / "deskside.toml").write_text(sidecar)
    return weights


def test_weights_ask_for_their_model(copied: Copied, tmp_path: Path) -> None:
    sentence = refusal(copied("checkpoint.pth"), ModelRefused)
    assert sentence.startswith("checkpoint.pth holds weights, but not the model they belong to. Put its config.json")
    (tmp_path / "net.safetensors").write_bytes(WEIGHTS)
    assert "net.safetensors holds weights, but not the model" in refusal(tmp_path / "net.safetensors", ModelRefused)


def test_a_config_beside_the_weights_is_their_model(copied: Copied) -> None:
    weights = copied("weights.pt")
    folder_of(weights.parent / "elsewhere", model__safetensors=None)
    (weights.parent / "elsewhere" / "config.json").rename(weights.parent / "config.json")
    (weights.parent / "elsewhere").rmdir()
    spec = opened(weights.parent)
    assert (spec.format, spec.runtime, spec.trust_class) == ("state_dict", "transformers", TrustClass.DATA)
    assert (spec.model_file, spec.task) == (weights, "image-classification")
    assert {f.name for f in spec.files} == {"weights.pt", "config.json"}


def test_a_class_in_the_sidecar_makes_a_program(copied: Copied) -> None:
    weights = with_code(copied)
    spec = opened(weights)
    assert (spec.format, spec.runtime, spec.trust_class) == ("state_dict", "state_dict", TrustClass.PROGRAM)
    assert spec.architecture_kwargs == {"width": 4}
    assert set(spec.files) == {weights, weights.parent / "code" / "net.py"}
    assert spec.evidence["architecture"] == "sidecar"


def test_consent_is_bound_to_the_code_and_to_the_words_that_name_it(copied: Copied) -> None:
    from engine.consent import fingerprint

    weights = with_code(copied)
    seen = {fingerprint(describe_model(weights))}
    sidecar = weights.parent / "deskside.toml"
    for text in (SIDECAR.replace("4", "5"), SIDECAR.replace(":Net", ":Other")):
        sidecar.write_text(text)
        seen.add(fingerprint(describe_model(weights)))
    (weights.parent / "code" / "net.py").write_text("other = 1")
    seen.add(fingerprint(describe_model(weights)))
    assert len(seen) == 4
    # What names no code is the owner's to change at any time.
    sidecar.write_text('labels = ["a", "b"]\n' + sidecar.read_text())
    assert fingerprint(describe_model(weights)) in seen


@pytest.mark.parametrize(
    "named",
    [
        "net.py:Net",
        "code/net.py",
        "code/net:Net",
        "../opened/code/net.py:Net",
        "/etc/passwd.py:Net",
        "code/net.py:a.b",
        "x",
    ],
)
def test_a_class_that_is_not_there(copied: Copied, named: str) -> None:
    from engine.errors import SidecarInvalid

    sentence = refusal(with_code(copied, f'architecture = "{named}"'), SidecarInvalid)
    assert "architecture: " in sentence


def test_a_link_to_code_elsewhere_is_not_followed(copied: Copied, tmp_path: Path) -> None:
    from engine.errors import SidecarInvalid

    weights = with_code(copied)
    (tmp_path / "outside.py").write_text("")
    (weights.parent / "code" / "net.py").unlink()
    (weights.parent / "code" / "net.py").symlink_to(tmp_path / "outside.py")
    assert "architecture: " in refusal(weights, SidecarInvalid)


def test_only_weights_take_a_class(copied: Copied) -> None:
    from engine.errors import SidecarInvalid

    model = copied("script.pt")
    (model.parent / "deskside.toml").write_text('architecture = "net.py:Net"')
    assert "only weights alone take a class" in refusal(model, SidecarInvalid)


# -- texts and recordings ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "task", "shape", "activation", "labels"),
    [
        ({}, "text-classification", (-1, 2), "softmax", ()),
        ({"id2label": {"0": "bad", "1": "good"}}, "text-classification", (-1, 2), "softmax", ("bad", "good")),
        ({"problem_type": "multi_label_classification"}, "text-classification", (-1, 2), "sigmoid", ()),
        ({"problem_type": "regression", "id2label": {"0": "x"}}, "text-classification", (-1, 1), "none", ("x",)),
        (
            {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B-X"}},
            "token-classification", (-1, -1, 2), "softmax", ("O", "B-X"),
        ),
    ],
)  # fmt: skip
def test_heads_of_texts(
    tmp_path: Path, changes: dict[str, Any], task: str, shape: tuple[int, ...], activation: str, labels: tuple[str, ...]
) -> None:
    spec = opened(folder_of(tmp_path / "model", BERT | changes, vocab__txt=b"[PAD]\n"))
    assert (spec.task, spec.outputs[0].shape, spec.labels) == (task, shape, labels)
    assert spec.postprocessing.activation == activation
    assert [tensor.name for tensor in spec.inputs] == ["input_ids", "attention_mask"]


def test_a_recording_needs_what_prepares_it(tmp_path: Path) -> None:
    config = {"architectures": ["Wav2Vec2ForSequenceClassification"], "conv_dim": [4], "id2label": {"0": "a", "1": "b"}}
    without = opened(folder_of(tmp_path / "without", config))
    assert without.task == "raw-tensors"
    assert without.evidence["task"].startswith("assumed (preprocessor_config.json is missing")
    spec = opened(folder_of(tmp_path / "with", config, preprocessor_config__json={"sampling_rate": 16000}))
    assert (spec.task, spec.labels) == ("audio-classification", ("a", "b"))


MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
BODY = BERT | {"architectures": ["BertModel"]}


def sentence_folder(folder: Path, modules: Any, pooling: Any) -> Path:
    folder_of(folder, BODY, vocab__txt=b"[PAD]\n", modules__json=modules)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("pooling", "modes"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ["mean"]),
        ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, ["cls", "max"]),
        ({"pooling_mode": "lasttoken"}, ["lasttoken"]),
    ],
)
def test_a_sentence_model_says_how_its_tokens_are_pooled(tmp_path: Path, pooling: Any, modes: list[str]) -> None:
    folder = sentence_folder(tmp_path / "model", MODULES, pooling)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 99, "do_lower_case": True}))
    spec = opened(folder)
    assert spec.task == "feature-extraction"
    tokenize, pooled, normalised = spec.steps
    assert tokenize == {"name": "tokenize", "max_length": 99, "lower": True}
    assert pooled == {"name": "pooling", "modes": modes}
    assert normalised == {"name": "normalize"}
    assert {"modules.json", "sentence_bert_config.json"} <= {file.name for file in spec.files}


def test_a_body_without_modules_has_no_steps(tmp_path: Path) -> None:
    spec = opened(folder_of(tmp_path / "model", BODY, vocab__txt=b"[PAD]\n"))
    assert (spec.task, spec.steps) == ("feature-extraction", ())


def test_a_step_that_is_not_known_leaves_raw_tensors(tmp_path: Path) -> None:
    modules = [*MODULES[:2], {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    spec = opened(sentence_folder(tmp_path / "model", modules, {"pooling_mode_mean_tokens": True}))
    assert spec.task == "raw-tensors"
    assert "Transformer, Pooling, Dense is more than pooling" in spec.evidence["task"]


@pytest.mark.parametrize(
    ("modules", "pooling", "sentence"),
    [
        ({"no": "list"}, {}, "modules.json in model is damaged"),
        (MODULES, {}, "names no way of pooling that is known"),
        (MODULES, {"pooling_mode": "median"}, "names no way of pooling that is known"),
        (MODULES, ["mean"], "is not a JSON object"),
        ([MODULES[0], MODULES[1] | {"path": "../../elsewhere"}], {}, "lacks the pooling"),
    ],
)
def test_a_damaged_sentence_model_is_told(tmp_path: Path, modules: Any, pooling: Any, sentence: str) -> None:
    with pytest.raises(ModelCorrupt, match=sentence):
        opened(sentence_folder(tmp_path / "model", modules, pooling))
