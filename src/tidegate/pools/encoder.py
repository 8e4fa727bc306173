"""Sentence vectors: tokens through an ONNX encoder, mean over the mask, unit length.

Reimers and Gurevych, "Sentence-BERT", 2019, section 3 (mean pooling).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy
import numpy.typing
import onnxruntime
from tokenizers import Tokenizer

MAX_TOKENS = 256
"""Longer texts are cut here: the length the model was trained for."""

Vector = numpy.typing.NDArray[numpy.float32]


class EncodedTexts(msgspec.Struct, frozen=True):
    """``vectors`` of shape (texts, dimensions), and the tokens that were read of each text."""

    vectors: Vector
    tokens: list[int]


class Encoder:
    """One model in memory. ``encode`` releases the interpreter while it computes."""

    def __init__(self, weights: Path, tokenizer: Path, threads: int = 1) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()  # to the longest of a batch, not to a fixed length
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"]
        )
        self.dimensions = self.encode(["warm up"]).vectors.shape[1]

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Vectors of ``texts`` in their order."""
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = numpy.array([e.ids for e in encodings], dtype=numpy.int64)
        mask = numpy.array([e.attention_mask for e in encodings], dtype=numpy.int64)
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": numpy.zeros_like(ids),
        }
        hidden = self._session.run(["last_hidden_state"], inputs)[0]
        weight = mask[..., None].astype(numpy.float32)
        means = (hidden * weight).sum(axis=1) / weight.sum(axis=1)
        vectors = means / numpy.linalg.norm(means, axis=1, keepdims=True)
        return EncodedTexts(vectors.astype(numpy.float32), mask.sum(axis=1).tolist())
