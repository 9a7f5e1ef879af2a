"""A small BERT learns to sort sentences, and is pruned to half of its multiply-adds while the Trainer retrains it.

The sentences are from the docstrings of Python's own library: is this one about mail, or about doing things at once?

Install:  pip install 'softprune[transformers]'
Run:      python examples/bert_classifier.py          (--quick: fewer epochs)
Expect:   170,562 parameters become 97,050, 4 heads in each layer become 3, and the stream of 64 becomes 44; 91.2 % of
          the test sentences are right before, and 93.3 % after pruning, which trains on for four epochs (93.5 % if
          the dense network trains on as long). 20 s on one core.
"""

import argparse
import ast
import os
import re
import sysconfig
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the network is built from its configuration: nothing to download

import onnxruntime
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import compress

MAIL = ["email/*.py", "mailbox.py", "smtplib.py", "imaplib.py", "poplib.py"]
AT_ONCE = ["asyncio/*.py", "concurrent/**/*.py", "multiprocessing/*.py", "threading.py", "queue.py"]
LENGTH = {name: {1: "length"} for name in ("input_ids", "attention_mask")}  # sentences have any number of words
PADDING, UNKNOWN = 0, 1
CONFIG = BertConfig(
    vocab_size=1000,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=32,
    initializer_range=0.1,
    num_labels=2,
)
Sample = dict[str, torch.Tensor]


def sentences(files: list[str]) -> list[list[str]]:
    """The words of each sentence of five words or more in the docstrings of these files of Python's library."""
    library, found = Path(sysconfig.get_path("stdlib")), {}
    for file in sorted(file for pattern in files for file in library.glob(pattern)):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for sentence in re.split(r"(?<=[.:!?])\s+|\n\s*\n", ast.get_docstring(node) or ""):
                    words = re.findall("[a-z]+", sentence.lower())[: CONFIG.max_position_embeddings]
                    found[tuple(words)] = len(words) >= 5
    return [list(words) for words, long in found.items() if long]


def samples() -> tuple[list[Sample], list[Sample]]:
    """To train on and to test on, four to one; put your own texts and tokenizer here."""
    texts = [(words, label) for label, files in enumerate([MAIL, AT_ONCE]) for words in sentences(files)]
    texts = [texts[n] for n in torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()]
    part = len(texts) // 5
    common = Counter(word for words, _ in texts[part:] for word in words).most_common(CONFIG.vocab_size - 2)
    ids = {word: number for number, (word, _) in enumerate(common, start=UNKNOWN + 1)}
    made = [
        {"input_ids": torch.tensor([ids.get(word, UNKNOWN) for word in words]), "labels": torch.tensor(label)}
        for words, label in texts
    ]
    return made[part:], made[:part]


def batch(samples: list[Sample]) -> Sample:
    """Sentences as long as the longest one."""
    ids = pad_sequence([sample["input_ids"] for sample in samples], batch_first=True, padding_value=PADDING)
    labels = torch.stack([sample["labels"] for sample in samples])
    return {"input_ids": ids, "attention_mask": (ids != PADDING).long(), "labels": labels}


def without_labels(batch: Sample) -> Sample:
    return {name: batch[name] for name in LENGTH}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/bert_classifier"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    train, test = samples()
    model = BertForSequenceClassification(CONFIG)
    example = without_labels(batch(test[:2]))

    def half_of_the_macs(model: torch.nn.Module, loop: compress.TrainingLength) -> compress.Pruner:
        """Removes nodes, heads and channels of the stream with the least effect on the loss, over two epochs."""
        return compress.Pruner(
            model,
            compress.nodes("*"),
            macs=0.5,
            example=example,
            criterion="taylor_square",  # of the loss that the network returns when it is given labels
            batches=[batch(train[start : start + 64]) for start in range(0, 1024, 64)],
            removal=compress.Soft(steps=loop.steps("2 epochs")),
        )

    def fit(epochs: int, callbacks: list[compress.TrainerPruning]) -> None:
        arguments = TrainingArguments(
            output_dir=str(options.out),
            num_train_epochs=epochs,
            per_device_train_batch_size=32,
            learning_rate=1e-3,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(model, arguments, data_collator=batch, train_dataset=train, callbacks=callbacks).train()

    fit(1 if options.quick else 4, [])
    report("dense", model, test)
    pruning = compress.TrainerPruning(half_of_the_macs)
    fit(2 if options.quick else 4, [pruning])
    print(pruning.pruner)
    report("pruned", model, test)
    small = compress.slim(model.eval(), example, dynamic=LENGTH)  # raises unless small(x) == model(x)
    report("slim", small, test)
    attentions = [layer.attention.self for layer in small.bert.encoder.layer]
    heads = [attention.query.out_features // attention.attention_head_size for attention in attentions]
    print(f"still a {type(small).__name__}, with {heads} heads in its layers instead of {CONFIG.num_attention_heads}")

    file = options.out / "small.onnx"
    compress.export.onnx(small, file, example, dynamic=LENGTH)
    print(f"{file}: {file.stat().st_size:,} bytes")
    session = onnxruntime.InferenceSession(file)
    for sentences in (test[:1], test[1:8]):
        inputs = without_labels(batch(sentences))
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
        print(f"onnxruntime: {tuple(inputs['input_ids'].shape)} word ids in, {logits.shape} logits out")


def report(name: str, model: torch.nn.Module, test: list[Sample]) -> None:
    inputs = batch(test)
    with torch.no_grad():
        right = model.eval()(**without_labels(inputs)).logits.argmax(1) == inputs["labels"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name:6} {parameters:8,} parameters, {right.float().mean():.1%} of {len(test)} test sentences right")


if __name__ == "__main__":
    main()
