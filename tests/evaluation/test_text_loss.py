from __future__ import annotations

import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.evaluation.text_loss import text_loss
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer

TEXTS = ["a person walks forward", "a person waves", "someone jumps and then turns to the left"]


@pytest.fixture
def model() -> Llamo:
    torch.manual_seed(0)
    return Llamo(preset("tiny")).eval()


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(TEXTS * 5, 300)


def test_the_loss_is_the_mean_over_the_tokens_of_each_text_alone(model: Llamo, tokenizer: TextTokenizer) -> None:
    terms = []
    for text in TEXTS:
        ids = torch.tensor([[tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]])
        probabilities = model.text_logits(ids[:, :-1]).log_softmax(-1)[0]
        terms += (-probabilities.gather(1, ids[0, 1:, None])[:, 0]).tolist()
    assert text_loss(model, tokenizer, TEXTS) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_motion_weights_have_no_say_and_text_weights_do(model: Llamo, tokenizer: TextTokenizer) -> None:
    before = text_loss(model, tokenizer, TEXTS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone.text."):
                parameter.fill_(torch.nan)
        assert text_loss(model, tokenizer, TEXTS) == before
        model.backbone.text.norm.weight.mul_(1.5)
    assert text_loss(model, tokenizer, TEXTS) != before


def test_no_texts_are_refused(model: Llamo, tokenizer: TextTokenizer) -> None:
    with pytest.raises(ParameterError, match="no texts"):
        text_loss(model, tokenizer, [])
