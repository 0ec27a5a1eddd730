"""Benchmarks of lm-evaluation-harness, through its Python API, where it is installed.

The harness asks three things of a model: the log-likelihood of a continuation, that of a whole
text, and text generated up to a stop word. :func:`harness_model` answers them with the models of
this package; the harness itself holds the tasks and their scores.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.head import log_probabilities, spans
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.settings import EvaluateConfig


def benchmark(
    model: PuzzleForCausalLM,
    tokenizer: PreTrainedTokenizerBase | None,
    config: EvaluateConfig,
) -> dict[str, float]:
    """Scores of the tasks in ``config.lm_eval``, as ``{"task.metric": value}``.

    Raises:
        UserError: the harness is not installed, knows no such task, or the model has no tokenizer.
    """
    if not config.lm_eval:
        return {}
    check_installed()
    if tokenizer is None:
        raise UserError("evaluate.lm_eval needs a parent with a tokenizer.json to read tasks with")
    import lm_eval  # pyrefly: ignore[missing-import]
    from lm_eval.tasks import TaskManager  # pyrefly: ignore[missing-import]

    manager = TaskManager(include_path=config.lm_eval_path)
    unknown = [task for task in config.lm_eval if not manager.match_tasks([task])]
    if unknown:
        raise UserError(
            f"evaluate.lm_eval: lm-evaluation-harness knows no task {unknown[0]!r}; name one of "
            "its own (lm_eval ls tasks), or the directory of yours in evaluate.lm_eval_path"
        )
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found = lm_eval.simple_evaluate(
        model=harness_model(model, tokenizer, config.batch_tokens),
        tasks=list(config.lm_eval),
        task_manager=manager,
        limit=config.lm_eval_limit,
        bootstrap_iters=0,
    )
    return flat(found["results"])


def check_installed() -> None:
    """Refuses at once, and not after hours, when the harness is asked for and not there."""
    try:
        import lm_eval  # noqa: F401  # pyrefly: ignore[missing-import]
    except ImportError:
        raise UserError(
            "evaluate.lm_eval needs lm-evaluation-harness: pip install lm_eval (or "
            "'adaptive-compute[eval]'), or set evaluate.lm_eval=[]"
        ) from None


def flat(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The harness's ``{task: {"metric,filter": value}}`` without filters, errors and labels."""
    scores = {}
    for task, metrics in results.items():
        for key, value in metrics.items():
            metric, _, kind = key.partition(",")
            if isinstance(value, (int, float)) and kind and not metric.endswith("_stderr"):
                name = metric if kind == "none" else f"{metric}.{kind}"
                scores[f"{task}.{name}"] = float(value)
    return scores


def harness_model(
    model: PuzzleForCausalLM, tokenizer: PreTrainedTokenizerBase, batch_tokens: int
) -> Any:
    """The model as an instance of the harness's ``LM``."""
    from lm_eval.api.model import LM  # pyrefly: ignore[missing-import]

    answers = Answers(model, tokenizer, batch_tokens)

    class PuzzleLM(LM):
        def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
            return answers.continuations([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Any) -> list[float]:
            return answers.texts([request.args[0] for request in requests])

        def generate_until(self, requests: Any) -> list[str]:
            return [answers.generated(*request.args) for request in requests]

    return PuzzleLM()


class Answers:
    """What a harness asks, answered in batches of a token budget.

    Contexts begin with BOS where the tokenizer has one. What exceeds the model's positions is cut
    off on the left, whole texts are cut up into windows that do not overlap.
    """

    def __init__(
        self, model: PuzzleForCausalLM, tokenizer: PreTrainedTokenizerBase, batch_tokens: int
    ):
        self.model, self.tokenizer, self.batch_tokens = model, tokenizer, batch_tokens
        self.room = model.config.max_position_embeddings
        bos = tokenizer.bos_token_id
        self.start = [tokenizer.eos_token_id or 0] if bos is None else [bos]

    def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation in its context, and whether it is the greedy one."""
        rows, counts = [], []
        for context, continuation in pairs:
            # Blanks at the end of a context belong to the first token of what follows.
            cut = len(context.rstrip())
            before = self._encode(context[:cut])
            whole = self._encode(context + continuation)
            count = max(1, len(whole) - len(before))
            rows.append((self.start + whole)[-self.room :])
            counts.append(min(count, len(rows[-1]) - 1))
        return [(float(logp.sum()), bool(best.all())) for logp, best in self._tails(rows, counts)]

    def texts(self, texts: Sequence[str]) -> list[float]:
        """Log-likelihood of each whole text."""
        rows: list[list[int]] = []
        owners: list[int] = []
        for number, text in enumerate(texts):
            ids, room = self._encode(text), self.room - 1
            for cut in range(0, len(ids), room):
                rows.append(self.start + ids[cut : cut + room])
                owners.append(number)
        sums = [0.0] * len(texts)
        tails = self._tails(rows, [len(row) - 1 for row in rows])
        for owner, (logp, _) in zip(owners, tails, strict=True):
            sums[owner] += float(logp.sum())
        return sums

    def generated(self, context: str, options: dict[str, Any]) -> str:
        """The greedy continuation up to a stop word, which is left out."""
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        count = min(int(options.get("max_gen_toks", 256)), self.room // 2)
        ids = (self.start + self._encode(context))[-(self.room - count) :]
        device = self.model.device
        found = cast(Any, self.model).generate(
            torch.tensor([ids], device=device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64, device=device),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=self.start[0],
        )
        new = found[0, len(ids) :]
        text = str(self.tokenizer.decode(new, skip_special_tokens=True))
        return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    @torch.inference_mode()
    def _tails(
        self, rows: list[list[int]], counts: list[int]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each row's last ``count`` tokens: log-probabilities and whether each is the best."""
        if not rows:
            return
        packed = Rows.pack(rows).to(self.model.device)
        results: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for index in packed.token_order(self.batch_tokens):
            batch = packed.select(index)
            hidden_BTH = self.model.model(batch.ids_NT, use_cache=False).last_hidden_state
            for b, n in enumerate(index.tolist()):
                end = len(rows[n])
                hidden_PH = hidden_BTH[b, end - counts[n] - 1 : end - 1]
                target_P = batch.ids_NT[b, end - counts[n] : end]
                results[n] = self._judged(hidden_PH, target_P)
        yield from (results[n] for n in range(len(rows)))

    def _judged(
        self, hidden_PH: torch.Tensor, target_P: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weight_VH = self.model.lm_head.weight
        logp, best = [], []
        for part in spans(len(hidden_PH), len(weight_VH)):
            logp_CV = log_probabilities(hidden_PH[part], weight_VH)
            logp.append(logp_CV.gather(-1, target_P[part, None])[:, 0])
            best.append(logp_CV.argmax(-1) == target_P[part])
        return torch.cat(logp).double(), torch.cat(best)
