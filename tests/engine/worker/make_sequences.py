"""Writes tiny models of texts and recordings and what transformers' pipelines answer with them.

``python -m tests.engine.worker.make_sequences FOLDER``: random weights, a WordPiece tokenizer made here. The answers go
into ``references.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.engine.worker.sequences import LENGTH, LONG, RATE, TEXTS, WORDS, tone

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *WORDS, "##ville", "##s", ",", ".", "é", "##é"]
NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def save_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"]))
    from tokenizers import decoders

    tokenizer.decoder = decoders.WordPiece()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LENGTH,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(folder)
    return fast


def bert_config(labels: tuple[str, ...], **more: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        initializer_range=1.0,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        **more,
    )


def write_texts(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import BertForSequenceClassification, BertForTokenClassification, BertModel, pipeline

    torch.manual_seed(3)
    moods = ("bad", "fair", "good")
    models = {
        "mood": BertForSequenceClassification(bert_config(moods)),
        "topics": BertForSequenceClassification(bert_config(moods, problem_type="multi_label_classification")),
        "rating": BertForSequenceClassification(bert_config(("stars",), problem_type="regression")),
        "names": BertForTokenClassification(bert_config(NAMES)),
        "vectors": BertModel(bert_config(moods)),
    }
    tokenizer = None
    for name, model in models.items():
        model.eval().save_pretrained(folder / name)
        tokenizer = save_tokenizer(folder / name)
    references: dict[str, Any] = {}
    for name in ("mood", "topics", "rating"):
        ask = pipeline("text-classification", model=models[name], tokenizer=tokenizer, top_k=None)
        references[name] = [ask(text)[0] if isinstance(ask(text)[0], list) else ask(text) for text in TEXTS]
    for strategy in ("simple", "none"):
        ask = pipeline(
            "token-classification", model=models["names"], tokenizer=tokenizer, aggregation_strategy=strategy
        )
        references[f"names {strategy}"] = [_plain(ask(text)) for text in TEXTS]
    ask = pipeline("feature-extraction", model=models["vectors"], tokenizer=tokenizer)
    references["vectors"] = [ask(text) for text in TEXTS]
    references["mood windows"] = _windows(models["mood"], tokenizer)
    return references


def _windows(model: Any, tokenizer: Any) -> list[list[float]]:
    """The scores of each window of ``LONG``, cut from its tokens by hand, one call each."""
    import torch

    tokens = tokenizer(LONG, add_special_tokens=False, truncation=False)["input_ids"]
    room = LENGTH - 2
    step = room - room // 4
    scores = []
    for first in range(0, len(tokens), step):
        row = [tokenizer.cls_token_id, *tokens[first : first + room], tokenizer.sep_token_id]
        with torch.inference_mode():
            scores.append(model(input_ids=torch.tensor([row])).logits.softmax(-1)[0].tolist())
        if first + room >= len(tokens):
            return scores
    return scores


def _plain(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: v.item() if isinstance(v, np.generic) else v for key, v in e.items()} for e in entities]


def write_sentences(folder: Path) -> dict[str, Any]:
    """The body of ``vectors`` as a package of sentence-transformers, and the vector by its documented formulas."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    target = folder / "sentences"
    model = AutoModel.from_pretrained(folder / "vectors").eval()
    model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(folder / "vectors")
    tokenizer.save_pretrained(target)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LENGTH - 4}))
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    )
    vectors = []
    for text in TEXTS:
        with torch.inference_mode():
            tokens = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(tokens.mean(0), dim=0).tolist())
    return {"sentences": vectors}


def write_recordings(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForSequenceClassification,
        pipeline,
    )

    torch.manual_seed(4)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(10, 8), conv_stride=(5, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, classifier_proj_size=8, vocab_size=8, initializer_range=1.0,
        id2label={0: "hum", 1: "bell", 2: "hiss"}, label2id={"hum": 0, "bell": 1, "hiss": 2},
    )  # fmt: skip
    model = Wav2Vec2ForSequenceClassification(config).eval()
    model.save_pretrained(folder / "sounds")
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True)
    extractor.save_pretrained(folder / "sounds")
    ask = pipeline("audio-classification", model=model, feature_extractor=extractor, top_k=3)
    return {"sounds": [ask(tone(seconds, RATE).astype(np.float32)) for seconds in (0.5, 2.0)]}


def main(folder: Path) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    references = write_texts(folder) | write_sentences(folder) | write_recordings(folder)
    (folder / "references.json").write_text(json.dumps(references))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
